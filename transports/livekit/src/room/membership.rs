//! A participant's part in a room, without socket or clock.
//!
//! Signals of the server, news of the media thread and requests of the user come in; signals, orders and events go out
//! through three lists. What ends or breaks the stay is the value that comes back.
//!
//! Joining: our tracks are announced, the server names each, then all are offered at once with the data channels. The
//! server offers what the others send whenever that changes; each offer is answered.

use super::event::{DisconnectReason, RoomEvent};
use super::mail::Mail;
use super::participant::{Change, Roster};
use super::tracks::{Published, Subscribed, published};
use super::{LocalParticipant, Request};
use crate::livekit::PublishTrack;
use crate::media::{MediaEvent, Order, PublishLine, Side};
use livekit_protocol as proto;
use proto::signal_request::Message as Signal;
use proto::signal_response::Message as FromServer;
use std::collections::HashMap;
use std::time::Instant;

/// What an input does to the stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It goes on.
    Stay,
    /// The connection is lost; resume, or join anew where that is known to be of no use.
    Lost { why: proto::ReconnectReason, anew: bool },
    /// It is over.
    Over(DisconnectReason),
}

#[derive(Debug)]
pub(crate) struct Membership {
    pub local: LocalParticipant,
    pub room: String,
    auto_subscribe: bool,
    roster: Roster,
    published: Vec<Published>,
    offered: bool,
    subscribed: Subscribed,
    mail: Mail,
    attributes: HashMap<String, String>,
    /// The subscriber's offer and answer, which a resume repeats.
    offer: Option<proto::SessionDescription>,
    answer: Option<proto::SessionDescription>,
    publisher_up: bool,
    subscriber_up: bool,
    /// The server offers a connection to listen.
    subscribes: bool,
    connected: bool,
    pub out: Out,
}

/// What goes out.
#[derive(Default)]
pub(crate) struct Out {
    pub signals: Vec<Signal>,
    pub orders: Vec<Order>,
    pub events: Vec<RoomEvent>,
    /// Who is there has changed.
    pub roster: bool,
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Out({} signals, {} orders, {:?})", self.signals.len(), self.orders.len(), self.events)
    }
}

impl Membership {
    pub fn new(tracks: &[PublishTrack], auto_subscribe: bool, attributes: HashMap<String, String>) -> Self {
        Self {
            local: LocalParticipant::default(),
            room: String::new(),
            auto_subscribe,
            roster: Roster::default(),
            published: published(tracks),
            offered: false,
            subscribed: Subscribed::default(),
            mail: Mail::default(),
            attributes,
            offer: None,
            answer: None,
            publisher_up: false,
            subscriber_up: false,
            subscribes: true,
            connected: false,
            out: Out::default(),
        }
    }

    /// The server let us in, for the first time or anew.
    pub fn joined(&mut self, join: &proto::JoinResponse, now: Instant) {
        if let Some(me) = &join.participant {
            self.local = LocalParticipant { sid: me.sid.clone(), identity: me.identity.clone() };
        }
        self.room = join.room.as_ref().map(|room| room.name.clone()).unwrap_or_default();
        (self.offered, self.publisher_up, self.subscriber_up, self.offer, self.answer) = (false, false, false, None, None);
        self.subscribes = join.subscriber_primary;
        self.mail.rejoined();
        self.subscribed.rejoined();
        for track in &mut self.published {
            track.info = None;
        }
        if !self.attributes.is_empty() {
            self.out.signals.push(attributes(self.attributes.clone()));
        }
        self.out.signals.extend(self.published.iter().map(|track| Signal::AddTrack(track.add())));
        self.roster.absent(now);
        self.updated(&join.other_participants);
        self.subscribe();
        self.offer_tracks();
    }

    /// The server took us back: it is told where we stand, and both connections look for a way anew.
    pub fn resumed(&mut self, response: &proto::ReconnectResponse, now: Instant) {
        self.roster.absent(now);
        (self.publisher_up, self.subscriber_up) = (false, false);
        let publish_tracks = self.published.iter().map(|track| proto::TrackPublishedResponse { cid: track.line.cid.clone(), track: track.info.clone() });
        self.out.signals.push(Signal::SyncState(proto::SyncState {
            answer: self.answer.clone(),
            offer: self.offer.clone(),
            subscription: Some(proto::UpdateSubscription { track_sids: self.subscribed.asked(), subscribe: true, ..Default::default() }),
            publish_tracks: publish_tracks.filter(|published| published.track.is_some()).collect(),
            datachannel_receive_states: self.mail.received(),
            ..Default::default()
        }));
        self.mail.resumed(response.last_message_seq, &mut self.out);
        if self.offered {
            self.out.orders.push(Order::Restart);
        }
    }

    /// The connections are up, since the join or the last resume. To who may not subscribe the server offers none to listen.
    pub fn is_up(&self) -> bool {
        self.publisher_up && (self.subscriber_up || !self.subscribes)
    }

    /// Who is there.
    pub fn participants(&self) -> impl Iterator<Item = &super::Participant> {
        self.roster.all()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        let mut changes = Vec::new();
        self.roster.expire(now, &mut changes);
        self.changed(changes);
    }

    /// The server says something.
    pub fn signal(&mut self, message: FromServer) -> Turn {
        match message {
            FromServer::Offer(offer) => {
                self.out.orders.push(Order::Offer { id: offer.id, sdp: offer.sdp.clone() });
                self.offer = Some(offer);
            }
            FromServer::Answer(answer) => self.out.orders.push(Order::Answer { sdp: answer.sdp }),
            FromServer::Trickle(trickle) => self.trickled(&trickle),
            FromServer::Update(update) => self.updated(&update.participants),
            FromServer::TrackPublished(proto::TrackPublishedResponse { cid, track }) => {
                if let Some(published) = self.published.iter_mut().find(|published| published.line.cid == cid) {
                    published.info = track;
                    self.offer_tracks();
                }
            }
            FromServer::Mute(proto::MuteTrackRequest { sid, muted }) => {
                if let Some(track) = self.published.iter_mut().find(|track| track.info.as_ref().is_some_and(|info| info.sid == sid)) {
                    track.muted = muted;
                    self.out.events.push(RoomEvent::TrackMuted { identity: self.local.identity.clone(), sid, muted });
                }
            }
            FromServer::RoomMoved(moved) => return self.moved(moved),
            FromServer::Leave(leave) => return left(&leave),
            FromServer::RequestResponse(response) if response.reason != proto::request_response::Reason::Ok as i32 => {
                tracing::warn!(reason = response.reason().as_str_name(), message = response.message, "the server refused a request");
            }
            _ => {}
        }
        Turn::Stay
    }

    /// The media thread says something.
    pub fn media(&mut self, event: MediaEvent, now: Instant) -> Turn {
        match event {
            MediaEvent::Answer { id, sdp } => {
                let answer = proto::SessionDescription { r#type: "answer".to_owned(), sdp, id, ..Default::default() };
                self.answer = Some(answer.clone());
                self.out.signals.push(Signal::Answer(answer));
            }
            MediaEvent::Offer { sdp } => {
                let offer = proto::SessionDescription { r#type: "offer".to_owned(), sdp, ..Default::default() };
                self.out.signals.push(Signal::Offer(offer));
            }
            MediaEvent::Lines(lines) => {
                self.subscribed.lines(lines);
                self.reconcile();
            }
            MediaEvent::Candidate { side, candidate } => {
                let candidate_init = serde_json::json!({ "candidate": candidate, "sdpMid": "0", "sdpMLineIndex": 0 }).to_string();
                let target = if side == Side::Publisher { proto::SignalTarget::Publisher } else { proto::SignalTarget::Subscriber };
                self.out.signals.push(Signal::Trickle(proto::TrickleRequest { candidate_init, target: target as i32, ..Default::default() }));
            }
            MediaEvent::Up(side) => {
                *self.up(side) = true;
                if self.is_up() && !std::mem::replace(&mut self.connected, true) {
                    self.out.events.push(RoomEvent::Connected);
                }
            }
            MediaEvent::Down(side) => {
                *self.up(side) = false;
                let why = match side {
                    Side::Publisher => proto::ReconnectReason::RrPublisherFailed,
                    Side::Subscriber => proto::ReconnectReason::RrSubscriberFailed,
                };
                return Turn::Lost { why, anew: false };
            }
            MediaEvent::Data(bytes) => self.mail.receive(&bytes, now, &mut self.out),
        }
        Turn::Stay
    }

    /// The user asks for something.
    pub fn request(&mut self, request: Request, id: impl FnOnce() -> String) {
        match request {
            Request::Send { value, to, speaker, reliable } => self.mail.send(value, to, speaker, reliable, &mut self.out),
            Request::Ask(question) => self.mail.ask(id(), question, &mut self.out),
            Request::Listened { track_sid, on } => self.subscribed.listened(track_sid, on, &self.roster),
            Request::Subscribe { track_sid, on } => {
                self.subscribed.wish(track_sid, on);
                self.subscribe();
            }
            Request::Attributes(changed) => {
                self.attributes.extend(changed.clone());
                self.out.signals.push(attributes(changed));
            }
            Request::Mute { track, muted } => {
                if let Some(published) = self.published.get_mut(track) {
                    published.muted = muted;
                    let sid = published.info.as_ref().map(|info| info.sid.clone());
                    self.out.signals.extend(sid.map(|sid| Signal::Mute(proto::MuteTrackRequest { sid, muted })));
                }
            }
        }
    }

    /// A bit for each track of ours that is muted.
    pub fn muted(&self) -> u64 {
        self.published.iter().take(64).enumerate().fold(0, |bits, (index, track)| bits | u64::from(track.muted) << index)
    }

    fn up(&mut self, side: Side) -> &mut bool {
        match side {
            Side::Publisher => &mut self.publisher_up,
            Side::Subscriber => &mut self.subscriber_up,
        }
    }

    /// Offers our tracks once the server has named them all.
    fn offer_tracks(&mut self) {
        if !self.offered && self.published.iter().all(|track| track.info.is_some()) {
            self.offered = true;
            let lines: Vec<PublishLine> = self.published.iter().map(|track| track.line.clone()).collect();
            self.out.orders.push(Order::Publish(lines));
        }
    }

    fn trickled(&mut self, trickle: &proto::TrickleRequest) {
        let candidate = serde_json::from_str::<serde_json::Value>(&trickle.candidate_init).ok();
        let candidate = candidate.as_ref().and_then(|init| init.get("candidate")?.as_str()).filter(|candidate| !candidate.is_empty());
        if let Some(candidate) = candidate {
            let side = if trickle.target() == proto::SignalTarget::Publisher { Side::Publisher } else { Side::Subscriber };
            self.out.orders.push(Order::Candidate { side, candidate: candidate.to_owned() });
        }
    }

    fn moved(&mut self, moved: proto::RoomMovedResponse) -> Turn {
        if let Some(me) = moved.participant {
            self.local = LocalParticipant { sid: me.sid, identity: me.identity };
        }
        self.room = moved.room.map(|room| room.name).unwrap_or_default();
        let gone: Vec<String> = self.roster.all().map(|participant| participant.identity.clone()).collect();
        self.roster = Roster::default();
        self.changed(gone.into_iter().map(|identity| Change::Left { identity, reason: proto::DisconnectReason::UnknownReason }).collect());
        self.updated(&moved.other_participants);
        Turn::Stay
    }

    fn updated(&mut self, participants: &[proto::ParticipantInfo]) {
        let mut changes = Vec::new();
        // of ourselves we know more than the server
        for info in participants.iter().filter(|info| info.identity != self.local.identity) {
            self.roster.update(info, &mut changes);
        }
        self.changed(changes);
    }

    fn changed(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        self.out.roster = true;
        for change in changes {
            self.out.events.push(match change {
                Change::Joined(participant) => RoomEvent::ParticipantJoined(participant),
                Change::Changed(participant) => RoomEvent::ParticipantChanged(participant),
                Change::Muted { identity, sid, muted } => RoomEvent::TrackMuted { identity, sid, muted },
                Change::Left { identity, reason } => {
                    self.mail.forget(&identity);
                    RoomEvent::ParticipantLeft { identity, reason: reason.into() }
                }
            });
        }
        self.reconcile();
        self.subscribe();
    }

    /// Asks for what is wanted and not asked for yet.
    fn subscribe(&mut self) {
        let [start, stop] = self.subscribed.ask(&self.roster, self.auto_subscribe);
        for (track_sids, subscribe) in [(start, true), (stop, false)] {
            if !track_sids.is_empty() {
                self.out.signals.push(Signal::Subscription(proto::UpdateSubscription { track_sids, subscribe, ..Default::default() }));
            }
        }
    }

    fn reconcile(&mut self) {
        self.subscribed.reconcile(&self.roster, &mut self.out.events, &mut self.out.orders);
    }
}

fn left(leave: &proto::LeaveRequest) -> Turn {
    use proto::leave_request::Action;
    let why = proto::ReconnectReason::RrUnknown;
    match leave.action() {
        Action::Resume => Turn::Lost { why, anew: false },
        Action::Reconnect => Turn::Lost { why, anew: true },
        // an orderly shutdown of the server: another node, or the same one soon, takes us in
        Action::Disconnect if leave.can_reconnect => Turn::Lost { why, anew: true },
        Action::Disconnect => Turn::Over(leave.reason().into()),
    }
}

fn attributes(attributes: HashMap<String, String>) -> Signal {
    Signal::UpdateMetadata(proto::UpdateParticipantMetadata { attributes, ..Default::default() })
}
