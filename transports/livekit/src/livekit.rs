//! The way into rooms.

use crate::media::{Key, MediaCounters, MediaSettings, MediaThread, Opening, Order, RoomCounters, dtls_certificate};
use crate::room::{Beginning, Membership, Room, RoomEvent, Shared, begin};
use livekit_signaling::{SignalClient, SignalError, SignalOptions};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fmt, io};
use tokio::sync::mpsc;
use url::Url;
use voiced_core::packet::Codec;

/// The signalling protocol that is asked for: a newer one has data channels and connections of another shape.
const PROTOCOL: u32 = 16;
/// Events of a room that wait for its user: a join to a full room, or some seconds of texts.
const EVENTS_MAX: usize = 512;
/// News of the media thread that wait for a room's task: data of a second or two, while a reconnect keeps it busy.
pub(crate) const MEDIA_EVENTS_MAX: usize = 512;

/// LiveKit rooms and the media threads that carry them. Cheap to clone; the threads end with the last clone and room.
#[derive(Clone)]
pub struct LiveKit(Arc<Inner>);

struct Inner {
    threads: Vec<Arc<MediaThread>>,
    counters: Arc<MediaCounters>,
    next: AtomicU64,
    turn_tls: Option<Arc<rustls::ClientConfig>>,
}

/// How to join a room.
#[derive(Clone)]
pub struct JoinOptions {
    /// The server, `wss://` or `ws://`.
    pub url: String,
    /// The access token, which names room and identity.
    pub token: String,
    /// Tracks of ours.
    pub publish: Vec<PublishTrack>,
    /// Subscribe to every track of sound. Pictures are never subscribed to.
    pub auto_subscribe: bool,
    /// Attributes of ours, set right after the join (the token may not set any itself, or allow it).
    pub attributes: HashMap<String, String>,
}

/// A track of sound to publish, with a microphone as its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishTrack {
    /// What it is called.
    pub name: String,
    /// What is sent on it: Opus goes out with RED where the server takes it.
    pub codec: Codec,
}

/// Why a room could not be joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The address is none of a LiveKit server.
    #[error("the server's address is not a ws:// or wss:// URL with a host")]
    Address,
    /// The server's name is not known, or no route leads to it.
    #[error("no way to the server: {0}")]
    NoRoute(#[source] io::Error),
    /// The server does not let this token in.
    #[error("refused by the server: {0}")]
    Refused(#[source] SignalError),
    /// The server does not answer as it should; to be tried again.
    #[error("the server could not be reached: {0}")]
    Unreachable(#[source] SignalError),
}

impl LiveKit {
    /// Starts the media threads.
    pub fn start(settings: MediaSettings) -> io::Result<Self> {
        let MediaSettings { threads, bind, ice_transport_policy, turn_tls } = settings;
        let certificate = dtls_certificate();
        let threads = (0..threads.max(1)).map(|index| MediaThread::start(index, bind.clone(), ice_transport_policy, certificate.clone()).map(Arc::new));
        let threads = threads.collect::<io::Result<_>>()?;
        Ok(Self(Arc::new(Inner { threads, counters: Arc::default(), next: AtomicU64::new(0), turn_tls })))
    }

    /// Joins a room. It is joined when the server has let us in; [`RoomEvent::Connected`] tells when sound can flow.
    pub async fn join(&self, options: JoinOptions) -> Result<(Room, mpsc::Receiver<RoomEvent>), JoinError> {
        let JoinOptions { url, token, publish, auto_subscribe, attributes } = options;
        let route = route_to(&url).await?;
        let signal_options = signal_options();
        let (signal, join, signals) = SignalClient::connect(&url, &token, signal_options.clone(), None).await.map_err(join_error)?;
        let key = self.0.next.fetch_add(1, Ordering::Relaxed);
        let thread = self.0.threads[key as usize % self.0.threads.len()].clone();
        let counters = Arc::new(RoomCounters { all: self.0.counters.clone(), ..RoomCounters::default() });
        crate::media::count(&counters.all.joins);
        let (media_out, media) = mpsc::channel(MEDIA_EVENTS_MAX);
        thread.order(Key(key), Order::Open(Box::new(Opening { route, events: media_out, counters: counters.clone() })));
        let (events, events_in) = mpsc::channel(EVENTS_MAX);
        let shared = Arc::new(Shared::new(thread, Key(key), counters, self.0.turn_tls.clone()));
        let membership = Membership::new(&publish, auto_subscribe, attributes);
        let room = begin(Beginning { url, token, options: signal_options, signal, signals, join, membership, route, media, events, shared });
        Ok((room, events_in))
    }

    /// What all rooms have counted.
    pub fn counters(&self) -> &MediaCounters {
        &self.0.counters
    }
}

impl fmt::Debug for LiveKit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LiveKit({} media threads)", self.0.threads.len())
    }
}

impl fmt::Debug for JoinOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, publish, auto_subscribe, .. } = self;
        f.debug_struct("JoinOptions").field("url", url).field("publish", publish).field("auto_subscribe", auto_subscribe).finish_non_exhaustive()
    }
}

fn signal_options() -> SignalOptions {
    let mut options = SignalOptions::default();
    // pictures would come too; the room asks for what it can hear
    options.auto_subscribe = false;
    options.protocol_version = PROTOCOL;
    options.client_capabilities = Vec::new();
    // other participants are to speak to us without compression, and ask without data streams
    options.client_protocol = livekit_signaling::CLIENT_PROTOCOL_DEFAULT;
    options.region_failover = false;
    options
}

fn join_error(error: SignalError) -> JoinError {
    match error {
        SignalError::UrlParse(_) => JoinError::Address,
        // too much at once is no refusal
        SignalError::Client(status, _) if status.as_u16() == 429 => JoinError::Unreachable(error),
        SignalError::Client(..) | SignalError::TokenFormat => JoinError::Refused(error),
        _ => JoinError::Unreachable(error),
    }
}

/// This host's address on the way to a server.
pub(crate) async fn route_to(url: &str) -> Result<IpAddr, JoinError> {
    let url = Url::parse(url).map_err(|_| JoinError::Address)?;
    let port = url.port().unwrap_or(if matches!(url.scheme(), "wss" | "https") { 443 } else { 80 });
    let host = url.host_str().ok_or(JoinError::Address)?.trim_matches(['[', ']']);
    let mut addresses = tokio::net::lookup_host((host, port)).await.map_err(JoinError::NoRoute)?;
    let server = addresses.next().ok_or_else(|| JoinError::NoRoute(io::ErrorKind::NotFound.into()))?;
    local_address(server).map_err(JoinError::NoRoute)
}

/// Connecting a UDP socket sends nothing, but the kernel picks the address that it would send from.
fn local_address(server: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(server)?;
    Ok(socket.local_addr()?.ip())
}
