//! The worker's socket: connects, and connects again when it is lost, for as long as the worker lives.
//!
//! The pause before another try doubles up to a limit and is half random, so that a fleet does not come back to a restarted
//! server in one moment. A refused key is tried seldom: somebody has to change it first.

use super::{WorkerCounters, count};
use crate::api::shown;
use crate::token::Keys;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use rustls::crypto::CryptoProvider;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};
use url::Url;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;
type Connecting = Pin<Box<dyn Future<Output = Result<Socket, LinkError>> + Send>>;

/// Longest wait for a connection with its upgrade.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Pause before the first new try.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// Longest pause between tries: a server that is back is found within this.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Doublings after which the pause is at its longest for sure.
const DOUBLINGS_MAX: u32 = 5;
/// Pause after the server has refused us as we are.
const PAUSE_REFUSED: Duration = Duration::from_secs(30);
/// Longest wait for the socket to take a message: they are few and short.
const SEND_WAIT: Duration = Duration::from_millis(2_500);
/// Longest wait for a close frame to leave.
const CLOSE_WAIT: Duration = Duration::from_millis(500);
/// Longest message of a server, in bytes: a job with its room's and its participant's metadata (64 KiB each) and more.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Read at once from the socket, which is idle nearly always.
const READ_BUFFER_BYTES: usize = 8_192;

/// What the link has to tell.
pub(super) enum LinkEvent {
    Up,
    Down(LinkError),
    Message(Box<proto::server_message::Message>),
    /// The server is alive.
    Heard,
    /// No message of this protocol.
    Garbage,
}

pub(super) struct Link {
    url: Url,
    keys: Keys,
    counters: Arc<WorkerCounters>,
    failures: u32,
    state: State,
}

enum State {
    Waiting(Instant),
    Connecting(Connecting),
    Up(Box<Socket>),
}

impl Link {
    pub fn new(server: &Url, keys: Keys, counters: Arc<WorkerCounters>) -> Self {
        Self { url: agent_url(server), keys, counters, failures: 0, state: State::Waiting(Instant::now()) }
    }

    /// What happens next. Cancel safe: all that it waits for is kept here.
    pub async fn next(&mut self) -> LinkEvent {
        loop {
            match &mut self.state {
                State::Waiting(until) => {
                    sleep_until(*until).await;
                    count(&self.counters.connects);
                    self.state = State::Connecting(Box::pin(connect(self.url.clone(), self.keys.clone())));
                }
                State::Connecting(connecting) => match connecting.await {
                    Ok(socket) => {
                        self.state = State::Up(Box::new(socket));
                        return LinkEvent::Up;
                    }
                    Err(error) => return LinkEvent::Down(self.down(error)),
                },
                State::Up(socket) => match socket.next().await {
                    Some(Ok(Message::Binary(bytes))) => return decoded(bytes),
                    Some(Ok(Message::Text(_))) => return LinkEvent::Garbage,
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return LinkEvent::Heard,
                    Some(Ok(Message::Close(_))) | None => return LinkEvent::Down(self.hang_up("LiveKit closed the connection")),
                    Some(Err(error)) => return LinkEvent::Down(self.hang_up(reason(&error))),
                },
            }
        }
    }

    /// Sends a message; on an error the link is down.
    pub async fn send(&mut self, message: proto::worker_message::Message) -> Result<(), LinkError> {
        let bytes = proto::WorkerMessage { message: Some(message) }.encode_to_vec();
        self.send_frame(Message::Binary(bytes.into())).await
    }

    /// Tests the connection; on an error the link is down.
    pub async fn ping(&mut self) -> Result<(), LinkError> {
        self.send_frame(Message::Ping(Bytes::new())).await
    }

    /// The server wants us: the next loss starts with a short pause again.
    pub fn is_good(&mut self) {
        self.failures = 0;
    }

    /// Drops the connection for this reason; another is tried after a pause.
    pub fn hang_up(&mut self, why: &'static str) -> LinkError {
        self.down(LinkError::Lost { server: shown(&self.url), why })
    }

    /// Says goodbye.
    pub async fn close(self) {
        if let State::Up(mut socket) = self.state {
            let _ = timeout(CLOSE_WAIT, Socket::close(&mut socket, None)).await;
        }
    }

    async fn send_frame(&mut self, frame: Message) -> Result<(), LinkError> {
        let State::Up(socket) = &mut self.state else { return Ok(()) }; // a message of the connection that went
        let why = match timeout(SEND_WAIT, socket.send(frame)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => reason(&error),
            Err(_) => "LiveKit has stopped reading",
        };
        Err(self.hang_up(why))
    }

    fn down(&mut self, error: LinkError) -> LinkError {
        let pause = if error.is_refusal() { PAUSE_REFUSED } else { pause(self.failures) };
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting(Instant::now() + pause);
        error
    }
}

/// Why there is no connection. Its text holds no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LinkError {
    /// 401: the token was not believed.
    KeyRefused { server: String },
    /// Something answers, but not as a LiveKit server does.
    NotLiveKit { server: String, status: u16 },
    /// No token could be made.
    NoToken(String),
    /// Nothing answers.
    Unreachable { server: String, why: &'static str },
    /// It was there.
    Lost { server: String, why: &'static str },
}

impl LinkError {
    /// Another try fails in the same way until somebody has changed something.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::KeyRefused { .. } | Self::NotLiveKit { status: 400..500, .. } | Self::NoToken(_))
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyRefused { server } => write!(f, "{server} refuses the key: check LIVEKIT_API_KEY and LIVEKIT_API_SECRET"),
            Self::NotLiveKit { server, status } => write!(f, "{server} takes no agent workers (HTTP {status}): check LIVEKIT_URL"),
            Self::NoToken(why) => f.write_str(why),
            Self::Unreachable { server, why } => write!(f, "{server} cannot be reached ({why}): check LIVEKIT_URL"),
            Self::Lost { server, why } => write!(f, "{server}: {why}"),
        }
    }
}

/// `/agent` below the server's address, as a WebSocket's.
fn agent_url(server: &Url) -> Url {
    let scheme = if matches!(server.scheme(), "https" | "wss") { "wss" } else { "ws" };
    let rest = server.as_str().split_once("://").map_or("", |(_, rest)| rest);
    let mut url: Url = format!("{scheme}://{rest}").parse().unwrap_or_else(|_| server.clone());
    let path = format!("{}/agent", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url.set_query(None);
    url.set_fragment(None);
    url
}

/// The pause before the next try after so many failures in a row.
fn pause(failures: u32) -> Duration {
    let full = PAUSE_MAX.min(PAUSE_FIRST * (1 << failures.min(DOUBLINGS_MAX)));
    full.mul_f64(rand::random_range(0.5..=1.0))
}

async fn connect(url: Url, keys: Keys) -> Result<Socket, LinkError> {
    choose_tls_provider();
    let server = shown(&url);
    let unreachable = |why| LinkError::Unreachable { server: server.clone(), why };
    let token = keys.worker_token().map_err(|error| LinkError::NoToken(error.to_string()))?;
    let mut request = url.as_str().into_client_request().map_err(|_| unreachable("it is no address"))?;
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(|_| unreachable("the token is no header"))?;
    bearer.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, bearer);
    let config =
        WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    match timeout(CONNECT_WAIT, connect_async_with_config(request, Some(config), true)).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(Error::Http(answer))) if matches!(answer.status().as_u16(), 401 | 403) => Err(LinkError::KeyRefused { server }),
        Ok(Err(Error::Http(answer))) => Err(LinkError::NotLiveKit { server, status: answer.status().as_u16() }),
        Ok(Err(error)) => Err(unreachable(reason(&error))),
        Err(_) => Err(unreachable("no answer in time")),
    }
}

/// With two providers linked and none chosen, rustls panics at the first TLS connection. Who chose before us stays chosen.
fn choose_tls_provider() {
    if CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
}

/// A message of the server.
pub(super) fn decoded(bytes: Bytes) -> LinkEvent {
    match proto::ServerMessage::decode(bytes) {
        Ok(proto::ServerMessage { message: Some(message) }) => LinkEvent::Message(Box::new(message)),
        Ok(proto::ServerMessage { message: None }) => LinkEvent::Heard, // of a newer server
        Err(_) => LinkEvent::Garbage,
    }
}

/// An error in a few words; never a URL or a header.
fn reason(error: &Error) -> &'static str {
    match error {
        Error::Io(_) => "the connection broke",
        Error::ConnectionClosed | Error::AlreadyClosed => "the connection was closed",
        Error::Capacity(_) => "a message was too long",
        Error::Tls(_) => "TLS failed",
        Error::Url(_) => "it is no address",
        _ => "the WebSocket failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workers_address_is_below_the_servers() {
        let agent = |server: &str| agent_url(&server.parse().unwrap()).to_string();
        assert_eq!(agent("wss://lk.example.test"), "wss://lk.example.test/agent");
        assert_eq!(agent("https://lk.example.test/"), "wss://lk.example.test/agent");
        assert_eq!(agent("http://127.0.0.1:7880/base/?x=1#y"), "ws://127.0.0.1:7880/base/agent");
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        assert!((250..=500).contains(&pause(0).as_millis()));
        assert!((1_000..=2_000).contains(&pause(2).as_millis()));
        assert!((5_000..=10_000).contains(&pause(u32::MAX).as_millis()));
    }
}
