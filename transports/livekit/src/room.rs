//! A room as its user sees it.
//!
//! A [`Room`] is a handle: what it is asked goes to the room's one task through a bounded queue, sound straight to the
//! media thread. The task keeps LiveKit's signalling, and when it is lost brings the room back under the same handle:
//! by a resume where the server still knows us, else by joining anew.

mod event;
mod mail;
mod membership;
mod participant;
mod reconnect;
mod rpc;
mod session;
mod text;
mod tracks;
pub(crate) mod untrusted;

pub use event::{DisconnectReason, RoomEvent};
pub use participant::{Participant, ParticipantKind, RemoteTrack, TrackSource};
pub use rpc::{RpcError, RpcRequest};
pub use text::TextOptions;

pub(crate) use membership::Membership;
pub(crate) use session::{Beginning, begin};

use crate::media::{Key, MediaThread, Order, RoomCounters, RoomStats};
use livekit_protocol::data_packet::Value;
use rpc::Question;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use voiced_core::packet::Packet;

/// Requests waiting for the room's task: transcripts of some seconds, while a reconnect keeps it busy.
pub(crate) const REQUESTS_MAX: usize = 256;

/// A room that was joined. Cheap to clone; the room is left when the last clone is dropped.
#[derive(Clone)]
pub struct Room {
    requests: mpsc::Sender<Request>,
    shared: Arc<Shared>,
}

/// What the handle and the room's task share.
pub(crate) struct Shared {
    pub thread: Arc<MediaThread>,
    pub key: Key,
    pub counters: Arc<RoomCounters>,
    /// A bit for each of our tracks that is silent.
    pub muted: AtomicU64,
    /// The server takes RED, as it said at the join.
    pub takes_red: AtomicBool,
    /// Who is there, as of the last update.
    pub view: Mutex<View>,
    pub leave: Leave,
    /// Whom TLS to TURN servers trusts.
    pub turn_tls: Option<Arc<rustls::ClientConfig>>,
}

impl Shared {
    pub fn new(thread: Arc<MediaThread>, key: Key, counters: Arc<RoomCounters>, turn_tls: Option<Arc<rustls::ClientConfig>>) -> Self {
        Self { thread, key, counters, turn_tls, muted: AtomicU64::new(0), takes_red: AtomicBool::new(true), view: Mutex::default(), leave: Leave::default() }
    }

    /// Why the user wants to leave.
    fn wished(&self) -> DisconnectReason {
        self.leave.wish.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(DisconnectReason::Left)
    }
}

#[derive(Clone, Default)]
pub(crate) struct View {
    pub room: String,
    pub local: LocalParticipant,
    pub participants: Arc<[Participant]>,
}

/// The wish to leave, which a busy task must see too.
#[derive(Default)]
pub(crate) struct Leave {
    pub wish: Mutex<Option<DisconnectReason>>,
    pub wished: Notify,
}

/// Ourselves, as the room knows us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalParticipant {
    /// Names this stay in the room; a rejoin changes it.
    pub sid: String,
    /// Names us.
    pub identity: String,
}

/// What the room's task is asked.
pub(crate) enum Request {
    Send { value: Value, to: Vec<String>, speaker: Option<String>, reliable: bool },
    Ask(Question),
    Listened { track_sid: String, on: bool },
    Subscribe { track_sid: String, on: bool },
    Attributes(HashMap<String, String>),
    Mute { track: usize, muted: bool },
}

impl Room {
    /// Ourselves.
    pub fn local(&self) -> LocalParticipant {
        self.view().local
    }

    /// The room's name.
    pub fn name(&self) -> String {
        self.view().room
    }

    /// The others, as of now.
    pub fn participants(&self) -> Arc<[Participant]> {
        self.view().participants
    }

    /// Sends a packet of sound on the `track`-th published track, from any thread. Its time on the wire is its
    /// `timestamp_ms`. `false` when the track is muted or the media thread is far behind: the packet is dropped.
    pub fn send(&self, track: usize, packet: Packet) -> bool {
        let Shared { thread, key, muted, counters, .. } = &*self.shared;
        if muted.load(Ordering::Relaxed) >> track.min(63) & 1 == 1 {
            return false;
        }
        let taken = thread.send(*key, track, &packet);
        if !taken {
            counters.dropped();
        }
        taken
    }

    /// Calls `hear` on the media thread with each packet of a subscribed track, in place of an earlier listener. It must
    /// be quick: all rooms of the thread wait for it. Packets come as they arrive, late ones too, numbered and timed in
    /// one run even when the track under it is replaced.
    pub fn listen(&self, track_sid: &str, hear: Box<dyn FnMut(Packet) + Send>) -> bool {
        let track_sid = track_sid.to_owned();
        self.order(Order::Listen { track_sid: track_sid.clone(), hear }) && self.request(Request::Listened { track_sid, on: true })
    }

    /// Ends [`Room::listen`].
    pub fn unlisten(&self, track_sid: &str) -> bool {
        let track_sid = track_sid.to_owned();
        self.order(Order::Unlisten { track_sid: track_sid.clone() }) && self.request(Request::Listened { track_sid, on: false })
    }

    /// Asks the server for a track of sound, or asks it to stop.
    pub fn subscribe(&self, track_sid: &str, on: bool) -> bool {
        self.request(Request::Subscribe { track_sid: track_sid.to_owned(), on })
    }

    /// Sets attributes of ours; an empty value removes one. Others stay as they are.
    pub fn set_attributes(&self, attributes: HashMap<String, String>) -> bool {
        self.request(Request::Attributes(attributes))
    }

    /// Mutes the `track`-th published track, or lets it be heard again.
    pub fn mute(&self, track: usize, muted: bool) -> bool {
        self.request(Request::Mute { track, muted })
    }

    /// Sends a text whole.
    pub fn send_text(&self, options: TextOptions, text: &str) -> bool {
        let mut stream = TextStream { room: self.clone(), id: stream_id(), options, index: 0 };
        stream.open(Some(text.len())) && stream.write(text) && stream.close()
    }

    /// Begins a text that is written bit by bit.
    pub fn open_text(&self, options: TextOptions) -> TextStream {
        let stream = TextStream { room: self.clone(), id: stream_id(), options, index: 0 };
        stream.open(None);
        stream
    }

    /// Sends a message of the application's own kind, to everyone when `to` is empty.
    pub fn publish_data(&self, topic: &str, payload: Vec<u8>, to: &[String], reliable: bool) -> bool {
        let user = livekit_protocol::UserPacket { topic: Some(topic.to_owned()), payload, ..Default::default() };
        self.request(Request::Send { value: Value::User(user), to: to.to_vec(), speaker: None, reliable })
    }

    /// Presses a key on a phone: `0` to `9`, `*`, `#`, `A` to `D`.
    pub fn publish_dtmf(&self, digit: char) -> bool {
        let Some(code) = "0123456789*#ABCD".find(digit) else { return false };
        let value = Value::SipDtmf(livekit_protocol::SipDtmf { code: code as u32, digit: digit.to_string() });
        self.request(Request::Send { value, to: Vec::new(), speaker: None, reliable: true })
    }

    /// Asks a participant, and waits for the answer for as long as `timeout`.
    pub async fn perform_rpc(&self, to: &str, method: &str, payload: &str, timeout: Duration) -> Result<String, RpcError> {
        if payload.len() > rpc::PAYLOAD_BYTES_MAX {
            return Err(RpcError::payload_too_large());
        }
        let (answer, answered) = oneshot::channel();
        let question = Question { to: to.to_owned(), method: method.to_owned(), payload: payload.to_owned(), timeout, answer };
        if !self.request(Request::Ask(question)) {
            return Err(RpcError::not_sent());
        }
        match tokio::time::timeout(timeout, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(RpcError::not_sent()),
            Err(_) => Err(RpcError::timed_out()),
        }
    }

    /// Answers a question that came as [`RoomEvent::RpcRequest`].
    pub fn answer_rpc(&self, request: &RpcRequest, result: Result<String, RpcError>) -> bool {
        let value = rpc::response(&request.id, result);
        self.request(Request::Send { value, to: vec![request.from.clone()], speaker: None, reliable: true })
    }

    /// The server takes Opus with the packet before beside each (RED).
    pub fn takes_red(&self) -> bool {
        self.shared.takes_red.load(Ordering::Relaxed)
    }

    /// Leaves; [`RoomEvent::Disconnected`] follows.
    pub fn leave(&self, reason: DisconnectReason) {
        self.shared.leave.wish.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.shared.leave.wished.notify_one();
    }

    /// How the room is doing.
    pub fn stats(&self) -> RoomStats {
        self.shared.counters.read()
    }

    fn view(&self) -> View {
        self.shared.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn request(&self, request: Request) -> bool {
        let taken = self.requests.try_send(request).is_ok();
        if !taken {
            self.shared.counters.dropped();
        }
        taken
    }

    fn order(&self, order: Order) -> bool {
        self.shared.thread.order(self.shared.key, order)
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Room({:?} as {:?})", self.name(), self.local().identity)
    }
}

/// A text that is being written. Dropped unclosed, it never ends for those who read it.
pub struct TextStream {
    room: Room,
    id: String,
    options: TextOptions,
    index: u64,
}

impl TextStream {
    /// Writes more of the text. `false` when the room takes no more: some of it is missing then.
    pub fn write(&mut self, text: &str) -> bool {
        let mut taken = true;
        for chunk in text::chunks(&self.id, self.index, text) {
            self.index += 1;
            taken &= self.send(chunk);
        }
        taken
    }

    /// Ends the text.
    pub fn close(self) -> bool {
        self.send(text::trailer(&self.id))
    }

    fn open(&self, total_bytes: Option<usize>) -> bool {
        self.send(text::header(&self.id, &self.options, total_bytes))
    }

    fn send(&self, value: Value) -> bool {
        let TextOptions { to, speaker, .. } = &self.options;
        self.room.request(Request::Send { value, to: to.clone(), speaker: speaker.clone(), reliable: true })
    }
}

/// A name that no other text or question has.
fn stream_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
