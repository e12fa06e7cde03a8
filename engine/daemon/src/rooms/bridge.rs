//! A phone call's room: people listen in, talk to the caller, whisper to the agent, take its place.
//!
//! Two participants stand for the call. The *caller* publishes the line's own mu-law packets, as they come; the *agent*
//! publishes its speech alone, also as mu-law, and hears the people in the room. So the server sends each of them everyone
//! but themselves, and nothing is transcoded on its way into the room. People's sound goes to the call's audio thread,
//! which mixes it into what the caller hears.
//!
//! The bridge hangs on the call and never the other way round: a room that cannot be joined, or is lost, is tried again a
//! few times and then done without.

mod tracks;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use voiced_core::conversation::Input;
use voiced_core::packet::{Codec, Packet};
use voiced_livekit::token::{Grants, ParticipantToken, TokenKind};
use voiced_livekit::{DisconnectReason, JoinOptions, Participant, PublishTrack, Room, RoomEvent, RpcError};

use super::RoomHost;
use super::early::EarlyTexts;
use super::show::{Show, state};
use crate::call::{Observed, Request, Side};
use crate::http::rooms::SupervisorMode;
use tracks::Person;

/// Attribute by which a participant chooses how to take part.
const MODE: &str = "voiced.mode";
/// Tries to join in a row, and the pause after each: a server that restarts is back by then.
const JOINS_MAX: u32 = 5;
const JOIN_PAUSE: Duration = Duration::from_secs(3);
/// A join that takes longer than this has failed.
const JOIN_MAX: Duration = Duration::from_secs(10);
/// A room that comes back takes less time than this. Whoever had the floor of one that is away longer cannot be heard.
const AWAY_MAX: Duration = Duration::from_secs(5);
/// Orders from the HTTP side that wait at most.
pub const ORDERS_MAX: usize = 16;

/// What the HTTP side wants of a call's room.
pub enum Order {
    /// How someone shall take part.
    TakePart(String, SupervisorMode),
    /// The agent has its place back from whoever took it.
    CallBack,
}

/// The call that has a room.
pub struct Bridged {
    pub call_sid: String,
    pub from: String,
    pub to: String,
    pub requests: mpsc::Sender<Request>,
    pub watched: mpsc::Receiver<Observed>,
    pub orders: mpsc::Receiver<Order>,
    /// How people shall take part, by identity, as was ordered so far.
    pub ordered: HashMap<String, SupervisorMode>,
}

/// Keeps the call's room until the call is over.
pub async fn run(host: Arc<RoomHost>, room: String, mut call: Bridged) {
    let mut attempt = 0;
    while attempt < JOINS_MAX {
        attempt += 1;
        let joined = tokio::select! {
            joined = Bridge::join(&host, &room, &call) => joined,
            () = call.requests.closed() => return,
        };
        match joined {
            Ok((mut bridge, events)) => {
                if bridge.serve(&mut call, events).await == Left::WithTheCall {
                    return;
                }
                tracing::warn!(room, "the call's room was lost; the call goes on");
                attempt = 0;
            }
            Err(error) => tracing::warn!(room, attempt, error = format!("{error:#}"), "the call's room cannot be joined; the call goes on"),
        }
        // nobody else can talk with the caller now
        let _ = call.requests.send(Request::Tell(Input::AgentMaySpeak(true))).await; // a call that is over needs no telling
        tokio::select! { () = sleep(JOIN_PAUSE) => {}, () = call.requests.closed() => return }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    WithTheCall,
    Lost,
}

struct Bridge {
    host: Arc<RoomHost>,
    caller: Room,
    agent: Room,
    caller_identity: String,
    requests: mpsc::Sender<Request>,
    people: BTreeMap<String, Person>,
    early: EarlyTexts,
    /// Since when the room is away, as it is until it is connected.
    away_since: Option<Instant>,
    show: Show,
    /// The call's sound goes into these rooms as long as this is held.
    tapped: Arc<()>,
}

impl Bridge {
    async fn join(host: &Arc<RoomHost>, room: &str, call: &Bridged) -> Result<(Self, mpsc::Receiver<RoomEvent>)> {
        let caller_identity = format!("caller-{}", call.call_sid);
        let attributes = [
            ("sip.phoneNumber", call.from.as_str()),
            ("sip.trunkPhoneNumber", call.to.as_str()),
            ("sip.callID", call.call_sid.as_str()),
            ("sip.twilio.callSid", call.call_sid.as_str()),
            ("sip.callStatus", "active"),
        ];
        let caller_token = ParticipantToken {
            name: call.from.clone(),
            kind: TokenKind::Sip,
            grants: Grants { subscribe: false, ..Grants::default() },
            attributes: attributes.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            ..ParticipantToken::new(room, &caller_identity)
        };
        let agent_token = ParticipantToken {
            name: super::DISPLAY_NAME.into(),
            kind: TokenKind::Agent,
            grants: Grants { update_own_metadata: true, ..Grants::default() },
            attributes: state("initializing").into_iter().collect(),
            ..ParticipantToken::new(room, format!("agent-{}", call.call_sid))
        };
        let (caller, _) = Self::enter(host, &caller_token, "caller").await.context("as the caller")?;
        let (agent, events) = Self::enter(host, &agent_token, "agent").await.context("as the agent")?;
        let bridge = Self {
            host: Arc::clone(host),
            show: Show::new(agent.clone()),
            caller,
            agent,
            caller_identity,
            requests: call.requests.clone(),
            people: BTreeMap::new(),
            early: EarlyTexts::default(),
            away_since: Some(Instant::now()),
            tapped: Arc::default(),
        };
        bridge.tap().await;
        Ok((bridge, events))
    }

    async fn enter(host: &RoomHost, token: &ParticipantToken, track: &str) -> Result<(Room, mpsc::Receiver<RoomEvent>)> {
        let token = host.keys.participant_token(token)?;
        let options = JoinOptions {
            url: host.url.to_string(),
            token: token.expose().to_owned(),
            publish: vec![PublishTrack { name: track.into(), codec: Codec::Mulaw }],
            auto_subscribe: false,
            attributes: HashMap::new(),
        };
        Ok(tokio::time::timeout(JOIN_MAX, host.media.join(options)).await.context("not joined in time")??)
    }

    /// The call's sound into the room.
    async fn tap(&self) {
        let (caller, agent) = (self.caller.clone(), self.agent.clone());
        let tapped = Arc::downgrade(&self.tapped);
        let tap = move |side, packet: &Packet| {
            let _ = match side {
                Side::Caller => caller.send(0, *packet), // what a room drops it counts
                Side::Agent => agent.send(0, *packet),
            };
            tapped.strong_count() > 0
        };
        let _ = self.requests.send(Request::Tap(Box::new(tap))).await; // a call that is over ends the bridge
    }

    async fn serve(&mut self, call: &mut Bridged, mut events: mpsc::Receiver<RoomEvent>) -> Left {
        for person in self.agent.participants().iter() {
            self.seen(person, &mut call.ordered).await;
        }
        self.relieve().await;
        let left = loop {
            let away_until = self.away_since.map(|since| since + AWAY_MAX);
            tokio::select! {
                () = self.requests.closed() => break Left::WithTheCall,
                Some(observed) = call.watched.recv() => self.show.observe(&observed, Some(&self.caller_identity)),
                Some(order) = call.orders.recv() => self.carry_out(order, &mut call.ordered).await,
                () = sleep_until(away_until.unwrap_or_else(Instant::now)), if away_until.is_some() => {
                    self.away_since = None;
                    self.tell(Input::AgentMaySpeak(true)).await;
                }
                event = events.recv() => match event {
                    Some(RoomEvent::Disconnected { .. }) | None => break Left::Lost,
                    Some(event) => self.apply(event, &mut call.ordered).await,
                },
            }
        };
        for identity in self.people.keys().cloned().collect::<Vec<_>>() {
            self.left(&identity).await;
        }
        self.caller.leave(DisconnectReason::Left);
        self.agent.leave(DisconnectReason::Left);
        left
    }

    async fn apply(&mut self, event: RoomEvent, ordered: &mut HashMap<String, SupervisorMode>) {
        match event {
            RoomEvent::Connected => {
                self.show.ready();
                self.away_since = None;
                self.relieve().await;
            }
            RoomEvent::Reconnecting => self.away_since = Some(Instant::now()),
            RoomEvent::Reconnected { .. } => {
                self.away_since = None;
                self.relieve().await;
            }
            RoomEvent::ParticipantJoined(person) | RoomEvent::ParticipantChanged(person) => self.seen(&person, ordered).await,
            RoomEvent::ParticipantLeft { identity, .. } => self.left(&identity).await,
            RoomEvent::TrackSubscribed { identity, track } => self.hear(&identity, track).await,
            RoomEvent::TrackUnsubscribed { identity, sid } => self.unhear(&identity, &sid).await,
            RoomEvent::TrackMuted { identity, sid, muted } => self.muted(&identity, &sid, muted),
            RoomEvent::Text { topic, from, text, complete: true, .. } if topic == "lk.chat" => {
                if self.people.contains_key(&from) {
                    self.tell(Input::Whispered(text)).await;
                } else {
                    self.early.keep(Instant::now(), from, text);
                }
            }
            RoomEvent::RpcRequest(request) => {
                let _ = self.agent.answer_rpc(&request, Err(RpcError::unsupported_method())); // who asked gives up by time
            }
            _ => {}
        }
    }

    /// Someone came, published something or changed the way of taking part.
    async fn seen(&mut self, person: &Participant, ordered: &mut HashMap<String, SupervisorMode>) {
        if !person.kind.is_human() || person.identity == self.caller_identity {
            return;
        }
        let chosen = person.attributes.get(MODE).and_then(|mode| SupervisorMode::parse(mode));
        if self.people.get(&person.identity).is_some_and(|known| known.chosen != chosen) {
            ordered.remove(&person.identity); // the last word counts
        }
        let mode = ordered.get(&person.identity).copied().or(chosen).unwrap_or(SupervisorMode::Barge);
        let known = self.people.entry(person.identity.clone()).or_insert_with(|| Person::new(chosen, mode));
        known.chosen = chosen;
        let changed = std::mem::replace(&mut known.mode, mode) != mode;
        for text in self.early.of(Instant::now(), &person.identity) {
            self.tell(Input::Whispered(text)).await;
        }
        for track in person.tracks.iter().filter(|track| track.audio && track.source.is_voice()) {
            let _ = self.agent.subscribe(&track.sid, true); // a room that takes no requests is about to end
        }
        if changed {
            self.route(&person.identity).await;
        }
        self.relieve().await;
    }

    async fn carry_out(&mut self, order: Order, ordered: &mut HashMap<String, SupervisorMode>) {
        let changed = match order {
            Order::TakePart(identity, mode) => vec![(identity, mode)],
            // who had taken its place still talks with the caller
            Order::CallBack => {
                let there = self.people.iter().map(|(identity, person)| (identity.clone(), person.mode));
                let took: Vec<_> = there.chain(ordered.clone()).filter(|(_, mode)| *mode == SupervisorMode::Takeover).collect();
                took.into_iter().map(|(identity, _)| (identity, SupervisorMode::Barge)).collect()
            }
        };
        for (identity, mode) in changed {
            if let Some(person) = self.people.get_mut(&identity) {
                person.mode = mode;
                self.route(&identity).await;
            }
            ordered.insert(identity, mode);
        }
        self.relieve().await;
    }

    async fn left(&mut self, identity: &str) {
        if let Some(person) = self.people.remove(identity) {
            for heard in person.tracks {
                self.release(&heard).await;
            }
        }
        self.relieve().await;
    }

    /// The agent has the floor unless somebody took it over or sent the agent out.
    async fn relieve(&self) {
        let taken = self.people.values().any(|person| person.mode == SupervisorMode::Takeover);
        let silent = self.host.live().get_mut(&self.agent.name()).is_some_and(|live| {
            live.taken_over = taken;
            taken || live.without_agent
        });
        self.tell(Input::AgentMaySpeak(!silent)).await;
    }

    async fn tell(&self, input: Input) {
        let _ = self.requests.send(Request::Tell(input)).await; // a call that is over needs no telling
    }
}
