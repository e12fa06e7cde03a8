//! The media thread: one poll over the sockets, queues and deadlines of its rooms.

use super::IceTransportPolicy;
use super::connection::{Connection, Hear, MediaEvent, PublishLine};
use super::counters::RoomCounters;
use super::ice_servers::TurnServer;
use super::peer::{Peer, Side};
use super::sockets::Sockets;
use mio::{Events, Poll, Registry, Token, Waker};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};
use str0m::config::DtlsCert;
use tokio::sync::mpsc;
use voiced_core::packet::Packet;

/// Orders waiting per thread: a join takes about ten, so 400 rooms may join at once.
const ORDERS_MAX: usize = 4_096;
/// Packets waiting per thread: 40 ms of 500 rooms. The thread takes them within a millisecond or two.
const PACKETS_MAX: usize = 1_024;
/// Readiness taken in per poll; what does not fit comes with the next.
const READY_MAX: usize = 1_024;
/// Longest sleep; deadlines and the bell cut it short.
const SLEEP_MAX: Duration = Duration::from_secs(5);
/// The token of the bell; sockets count from there.
const BELL: Token = Token(0);

/// Names a room on its thread, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key(pub u64);

/// What a room asks of its thread.
pub(crate) enum Order {
    /// Begin, with two fresh peers.
    Open(Box<Opening>),
    /// Begin anew with two fresh peers, listeners kept; news of the old ones go nowhere.
    Renew { route: IpAddr, events: mpsc::Sender<MediaEvent> },
    /// The server's offer.
    Offer { id: u32, sdp: String },
    /// Offer these tracks and the data channels.
    Publish(Vec<PublishLine>),
    /// Offer new ICE credentials.
    Restart,
    /// The server's answer.
    Answer { sdp: String },
    /// An address of the server.
    Candidate { side: Side, candidate: String },
    /// The TURN servers that may be asked.
    Relays(Vec<TurnServer>),
    /// A data message.
    Data { reliable: bool, message: Vec<u8> },
    /// Reliable data messages once more, those that wait among them.
    Resend(Vec<Vec<u8>>),
    /// Hear a track.
    Listen { track_sid: String, hear: Hear },
    /// Hear it no more.
    Unlisten { track_sid: String },
    /// The listener of one track hears another.
    Relisten { from: String, to: String },
    /// The room is over.
    Close,
}

/// What a new room needs.
pub(crate) struct Opening {
    /// This host's address on the way to the server.
    pub route: IpAddr,
    /// Where news go.
    pub events: mpsc::Sender<MediaEvent>,
    /// What is counted.
    pub counters: Arc<RoomCounters>,
}

struct Outgoing {
    key: Key,
    track: usize,
    packet: Packet,
}

/// The rim's end of a media thread. The thread ends when the last one is dropped.
pub(crate) struct MediaThread {
    orders: SyncSender<(Key, Order)>,
    packets: SyncSender<Outgoing>,
    bell: Arc<Bell>,
}

impl MediaThread {
    /// Starts a thread.
    pub fn start(index: usize, bind: Vec<IpAddr>, policy: IceTransportPolicy, certificate: Option<DtlsCert>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let bell = Arc::new(Bell { waker: Waker::new(poll.registry(), BELL)?, rung: AtomicBool::new(false), stop: AtomicBool::new(false) });
        let (orders, orders_in) = sync_channel(ORDERS_MAX);
        let (packets, packets_in) = sync_channel(PACKETS_MAX);
        let registry = Arc::new(poll.registry().try_clone()?);
        let rooms = Rooms {
            registry,
            bind,
            policy,
            certificate,
            ids: SocketIds(BELL.0),
            connections: HashMap::new(),
            sockets: HashMap::new(),
            alarms: BinaryHeap::new(),
        };
        let run = Run { poll, bell: bell.clone(), orders: orders_in, packets: packets_in, rooms };
        std::thread::Builder::new().name(format!("livekit-media-{index}")).spawn(move || run.run())?;
        Ok(Self { orders, packets, bell })
    }

    /// Hands over an order; `false` when the thread is far behind.
    pub fn order(&self, key: Key, order: Order) -> bool {
        let taken = self.orders.try_send((key, order)).is_ok();
        self.bell.ring();
        taken
    }

    /// Hands over a packet; `false` when the thread is far behind.
    pub fn send(&self, key: Key, track: usize, packet: &Packet) -> bool {
        let taken = self.packets.try_send(Outgoing { key, track, packet: *packet }).is_ok();
        self.bell.ring();
        taken
    }
}

impl Drop for MediaThread {
    fn drop(&mut self) {
        self.bell.stop.store(true, Ordering::Release);
        self.bell.ring();
    }
}

/// Wakes the thread, with one system call for all that is handed over until it has looked.
struct Bell {
    waker: Waker,
    rung: AtomicBool,
    stop: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            // a full eventfd is awake already
            let _ = self.waker.wake();
        }
    }

    /// To be called before the queues are looked at, so that what comes later rings again.
    fn hear(&self) {
        self.rung.store(false, Ordering::SeqCst);
    }
}

/// Gives each socket a token of its own, so that news of a closed one fall on nobody.
pub(super) struct SocketIds(usize);

impl SocketIds {
    pub fn next(&mut self) -> Token {
        self.0 += 1;
        Token(self.0)
    }
}

struct Run {
    poll: Poll,
    bell: Arc<Bell>,
    orders: Receiver<(Key, Order)>,
    packets: Receiver<Outgoing>,
    rooms: Rooms,
}

impl Run {
    fn run(mut self) {
        let mut events = Events::with_capacity(READY_MAX);
        let mut unread: Vec<Token> = Vec::new();
        while !self.bell.stop.load(Ordering::Acquire) {
            let sleep = if unread.is_empty() { self.rooms.sleep(Instant::now()) } else { Duration::ZERO };
            if let Err(error) = self.poll.poll(&mut events, Some(sleep))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "media thread cannot wait");
                return;
            }
            self.bell.hear();
            let now = Instant::now();
            self.take_orders(now);
            self.take_packets(now);
            let ready: Vec<Token> = events.iter().map(mio::event::Event::token).filter(|token| *token != BELL).chain(unread.drain(..)).collect();
            unread.extend(ready.into_iter().filter(|token| self.rooms.receive(*token, now)));
            self.rooms.advance(now);
        }
    }

    fn take_orders(&mut self, now: Instant) {
        for _ in 0..ORDERS_MAX {
            match self.orders.try_recv() {
                Ok((key, order)) => self.rooms.apply(key, order, now),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    fn take_packets(&mut self, now: Instant) {
        for _ in 0..PACKETS_MAX {
            let Ok(Outgoing { key, track, packet }) = self.packets.try_recv() else { return };
            self.rooms.send(key, track, &packet, now);
        }
    }
}

/// The rooms of one thread.
struct Rooms {
    registry: Arc<Registry>,
    bind: Vec<IpAddr>,
    policy: IceTransportPolicy,
    certificate: Option<DtlsCert>,
    ids: SocketIds,
    connections: HashMap<Key, Scheduled>,
    sockets: HashMap<Token, (Key, Side)>,
    alarms: BinaryHeap<Reverse<(Instant, Key)>>,
}

/// A connection and the earliest alarm set for it.
struct Scheduled {
    connection: Connection,
    alarm: Option<Instant>,
}

impl Rooms {
    fn sleep(&self, now: Instant) -> Duration {
        self.alarms.peek().map_or(SLEEP_MAX, |Reverse((at, _))| at.saturating_duration_since(now)).min(SLEEP_MAX)
    }

    fn apply(&mut self, key: Key, order: Order, now: Instant) {
        match order {
            Order::Open(opening) => return self.open(key, *opening, now),
            Order::Renew { route, events } => return self.renew(key, route, events, now),
            Order::Close => return self.close(key, now),
            _ => {}
        }
        let Some(Scheduled { connection, .. }) = self.connections.get_mut(&key) else { return };
        match order {
            Order::Offer { id, sdp } => connection.offer(id, &sdp, now),
            Order::Publish(tracks) => connection.publish(&tracks, now),
            Order::Restart => connection.restart(now),
            Order::Answer { sdp } => connection.accept(&sdp, now),
            Order::Candidate { side, candidate } => connection.candidate(side, &candidate, now),
            Order::Relays(servers) => connection.relays(servers, now),
            Order::Data { reliable, message } => connection.send_data(reliable, message, now),
            Order::Resend(messages) => connection.resend(messages, now),
            Order::Listen { track_sid, hear } => connection.listen(track_sid, hear),
            Order::Unlisten { track_sid } => connection.unlisten(&track_sid),
            Order::Relisten { from, to } => connection.relisten(&from, to),
            Order::Open(_) | Order::Renew { .. } | Order::Close => {}
        }
        self.schedule(key, now);
    }

    fn open(&mut self, key: Key, opening: Opening, now: Instant) {
        let Opening { route, events, counters } = opening;
        match self.peers(key, route, now) {
            Ok([publisher, subscriber]) => {
                let connection = Connection::new(publisher, subscriber, events, counters);
                self.connections.insert(key, Scheduled { connection, alarm: None });
                self.schedule(key, now);
            }
            Err(error) => {
                tracing::error!(%error, "no socket for a room");
                // the room is to hear of it at once, not by a timeout
                let _ = events.try_send(MediaEvent::Down(Side::Publisher));
            }
        }
    }

    fn renew(&mut self, key: Key, route: IpAddr, events: mpsc::Sender<MediaEvent>, now: Instant) {
        let peers = self.peers(key, route, now);
        let Some(Scheduled { connection, .. }) = self.connections.get_mut(&key) else { return };
        match peers {
            Ok([publisher, subscriber]) => {
                let old = connection.renew(publisher, subscriber, events);
                self.forget(old, now);
                self.schedule(key, now);
            }
            // the old, broken peers stay; the room's time for coming back runs out
            Err(error) => tracing::error!(%error, "no socket for a room"),
        }
    }

    fn close(&mut self, key: Key, now: Instant) {
        if let Some(Scheduled { connection, .. }) = self.connections.remove(&key) {
            self.forget([connection.publisher, connection.subscriber], now);
        }
    }

    fn peers(&mut self, key: Key, route: IpAddr, now: Instant) -> io::Result<[Box<Peer>; 2]> {
        let mut peer = |side| -> io::Result<Box<Peer>> {
            let sockets = Sockets::bind(&self.bind, route, &mut self.ids, &self.registry)?;
            self.sockets.extend(sockets.tokens().map(|token| (token, (key, side))));
            Ok(Box::new(Peer::new(self.certificate.as_ref(), sockets, self.policy, now)))
        };
        Ok([peer(Side::Publisher)?, peer(Side::Subscriber)?])
    }

    fn forget(&mut self, peers: [Box<Peer>; 2], now: Instant) {
        for mut peer in peers {
            for token in peer.tokens() {
                self.sockets.remove(&token);
            }
            peer.close(now, &RoomCounters::default());
        }
    }

    fn send(&mut self, key: Key, track: usize, packet: &Packet, now: Instant) {
        if let Some(Scheduled { connection, .. }) = self.connections.get_mut(&key) {
            connection.send(track, packet, now);
            self.schedule(key, now);
        }
    }

    fn receive(&mut self, token: Token, now: Instant) -> bool {
        let Some(&(key, side)) = self.sockets.get(&token) else { return false };
        let Some(Scheduled { connection, .. }) = self.connections.get_mut(&key) else { return false };
        let more = connection.receive(side, token, now);
        self.schedule(key, now);
        more
    }

    fn advance(&mut self, now: Instant) {
        while let Some(&Reverse((at, key))) = self.alarms.peek() {
            if at > now {
                return;
            }
            self.alarms.pop();
            let Some(scheduled) = self.connections.get_mut(&key) else { continue };
            if scheduled.alarm == Some(at) {
                scheduled.alarm = None;
                scheduled.connection.advance(now);
                self.schedule(key, now);
            }
        }
    }

    /// Sets an alarm unless an earlier one is set; one that rings too early sets the next.
    fn schedule(&mut self, key: Key, now: Instant) {
        let Some(scheduled) = self.connections.get_mut(&key) else { return };
        // the poll counts in ms
        let deadline = scheduled.connection.deadline().max(now + Duration::from_millis(1));
        if scheduled.alarm.is_none_or(|alarm| deadline < alarm) {
            scheduled.alarm = Some(deadline);
            self.alarms.push(Reverse((deadline, key)));
        }
    }
}
