//! The task of a room: waits for the server, the media thread, the user and the clock, and lets [`Membership`] say what
//! is to be done.

use super::event::{DisconnectReason, RoomEvent};
use super::membership::{Membership, Turn};
use super::{Request, Room, Shared, View};
use crate::media::{MediaEvent, Order, turn_servers};
use livekit_protocol as proto;
use livekit_signaling::{SignalClient, SignalEvent, SignalEvents, SignalOptions};
use proto::signal_request::Message as Signal;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How often the task looks at what is overdue.
const TICK: Duration = Duration::from_millis(500);
/// How long both connections may take to come up after a join or a resume.
pub(super) const MEDIA_UP_MAX: Duration = Duration::from_secs(10);
/// Words of farewell wait this long for a socket that may be dead.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// What a joined room begins with.
pub(crate) struct Beginning {
    pub url: String,
    pub token: String,
    pub options: SignalOptions,
    pub signal: SignalClient,
    pub signals: SignalEvents,
    pub join: proto::JoinResponse,
    pub membership: Membership,
    pub route: IpAddr,
    pub media: mpsc::Receiver<MediaEvent>,
    pub events: mpsc::Sender<RoomEvent>,
    pub shared: Arc<Shared>,
}

pub(super) struct Session {
    pub url: String,
    /// The token of the first join.
    pub token: String,
    pub options: SignalOptions,
    pub signal: SignalClient,
    pub signals: SignalEvents,
    pub membership: Membership,
    pub route: IpAddr,
    pub shared: Arc<Shared>,
    pub outage: Option<Outage>,
    /// When the last outage was over, and how many tries it took.
    pub mended: Option<(Instant, u32)>,
    pub media: mpsc::Receiver<MediaEvent>,
    requests: mpsc::Receiver<Request>,
    events: mpsc::Sender<RoomEvent>,
}

/// A connection that is lost, or not up yet.
pub(super) struct Outage {
    /// When it began.
    pub since: Instant,
    /// When what is being tried has failed.
    pub until: Instant,
    /// What brought the signalling back, once it is.
    pub back_by: Option<BackBy>,
    /// Tries to come back so far.
    pub tries: u32,
}

/// How a lost room came back, or is about to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackBy {
    Join,
    Resume,
    Rejoin,
}

/// Starts the task of a room.
pub(crate) fn begin(beginning: Beginning) -> Room {
    let Beginning { url, token, options, signal, signals, join, mut membership, route, media, events, shared } = beginning;
    let (requests, requests_in) = mpsc::channel(super::REQUESTS_MAX);
    let now = Instant::now();
    membership.joined(&join, now);
    shared.takes_red.store(takes_red(&join), Ordering::Relaxed);
    let outage = Some(Outage { since: now, until: now + MEDIA_UP_MAX, back_by: Some(BackBy::Join), tries: 0 });
    let shared_by_task = shared.clone();
    let session =
        Session { url, token, options, signal, signals, membership, route, shared: shared_by_task, outage, mended: None, media, requests: requests_in, events };
    session.show();
    offer_relays(&shared, join.ice_servers);
    tokio::spawn(session.run());
    Room { requests, shared }
}

/// A server that does not list what it takes is taken for one of the defaults, which have RED.
fn takes_red(join: &proto::JoinResponse) -> bool {
    join.enabled_publish_codecs.is_empty() || join.enabled_publish_codecs.iter().any(|codec| codec.mime.eq_ignore_ascii_case("audio/red"))
}

/// Tells the media thread of the server's relays as soon as their names are looked up; a join does not wait for that.
pub(super) fn offer_relays(shared: &Arc<Shared>, ice_servers: Vec<proto::IceServer>) {
    let shared = shared.clone();
    tokio::spawn(async move {
        let servers = turn_servers(ice_servers, shared.turn_tls.as_ref()).await;
        if !servers.is_empty() {
            shared.thread.order(shared.key, Order::Relays(servers));
        }
    });
}

impl Session {
    async fn run(mut self) {
        self.flush().await;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let reason = loop {
            let turn = tokio::select! {
                () = self.shared.leave.wished.notified() => Turn::Over(self.shared.wished()),
                signal = self.signals.recv() => self.signalled(signal),
                Some(event) = self.media.recv() => self.membership.media(event, Instant::now()),
                request = self.requests.recv() => match request {
                    Some(request) => {
                        self.membership.request(request, super::stream_id);
                        Turn::Stay
                    }
                    None => Turn::Over(DisconnectReason::Left),
                },
                _ = tick.tick() => self.ticked(Instant::now()),
            };
            self.flush().await;
            let over = match turn {
                Turn::Stay => self.settle().await,
                Turn::Lost { why, anew } => self.lost(why, anew).await,
                Turn::Over(reason) => Some(reason),
            };
            if let Some(reason) = over {
                break reason;
            }
        };
        self.end(reason).await;
    }

    /// Hands out what the membership has to say.
    pub async fn flush(&mut self) {
        let out = std::mem::take(&mut self.membership.out);
        self.shared.muted.store(self.membership.muted(), Ordering::Relaxed);
        for order in out.orders {
            self.order(order);
        }
        for signal in out.signals {
            self.signal.send(signal).await;
        }
        if out.roster {
            self.show();
        }
        for event in out.events {
            self.tell(event).await;
        }
    }

    /// A user who does not read holds up the room's news, not its sound; one who has dropped the other end wants none.
    pub async fn tell(&mut self, event: RoomEvent) {
        let _ = self.events.send(event).await;
    }

    pub fn order(&self, order: Order) {
        if !self.shared.thread.order(self.shared.key, order) {
            self.shared.counters.dropped();
        }
    }

    /// Lets the handle see who is there.
    pub fn show(&self) {
        let view =
            View { room: self.membership.room.clone(), local: self.membership.local.clone(), participants: self.membership.participants().cloned().collect() };
        *self.shared.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }

    pub fn signalled(&mut self, signal: Option<SignalEvent>) -> Turn {
        match signal {
            Some(SignalEvent::Message(message)) => self.membership.signal(*message),
            Some(SignalEvent::Close(_)) | None => Turn::Lost { why: proto::ReconnectReason::RrSignalDisconnected, anew: false },
        }
    }

    fn ticked(&mut self, now: Instant) -> Turn {
        self.membership.tick(now);
        let overdue = self.outage.as_ref().is_some_and(|outage| outage.until <= now);
        if overdue { Turn::Lost { why: proto::ReconnectReason::RrUnknown, anew: true } } else { Turn::Stay }
    }

    async fn end(mut self, reason: DisconnectReason) {
        let leave = proto::LeaveRequest { reason: reason.to_proto() as i32, ..Default::default() };
        let farewell = async {
            self.signal.send(Signal::Leave(leave)).await;
            self.signal.close().await;
        };
        let _ = tokio::time::timeout(FAREWELL_MAX, farewell).await;
        self.order(Order::Close);
        self.requests.close();
        self.tell(RoomEvent::Disconnected { reason }).await;
    }
}
