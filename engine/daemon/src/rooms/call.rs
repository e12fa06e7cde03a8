//! One call in a room: the agent joins as a participant, hears the one it is there for, and leaves when that one has gone.
//!
//! `select → apply`, as in a phone call: what the room tells becomes the call's line and requests, what the call says
//! becomes packets, captions and attributes. Whom the agent hears is decided by [`Linked`]; the sound itself goes from the
//! media thread to the call without passing through here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use voiced_core::conversation::Input;
use voiced_core::frame::Rate;
use voiced_core::line::{FromLine, Gone, ToLine};
use voiced_core::packet::{Codec, Packet};
use voiced_events::deliver::unix_ms;
use voiced_livekit::{DisconnectReason, JoinOptions, Participant, ParticipantKind, PublishTrack, RemoteTrack, Room, RoomEvent, RpcError};

use super::early::EarlyTexts;
use super::linked::{Linked, Move};
use super::profile::JobProfile;
use super::show::{Show, state};
use super::voices::Voices;
use super::{LiveRoom, REQUESTS_MAX, RoomHost, WATCHED_MAX};
use crate::call::{Line, Observed, Request};
use crate::sessions::{NewCall, Session};

/// Joining takes some 100 ms; a server that needs longer than this is as good as down.
const JOIN_MAX: Duration = Duration::from_secs(10);
/// A room in which nobody appears is left after this long: callers ring for less.
const NOBODY_MAX: Duration = Duration::from_mins(5);
/// Who disappears is waited for this long: a browser that reloads, a phone that changes networks.
const AWAY_MAX: Duration = Duration::from_secs(20);
/// A phone that disappears without hanging up: its gateway joins again at once, if it does.
const PHONE_AWAY_MAX: Duration = Duration::from_secs(5);
/// Messages to the call that wait at most: 5 s of sound.
const FROM_LINE_MAX: usize = 256;
/// Messages to the room that wait at most: 5 s of sound.
const TO_LINE_MAX: usize = 256;
/// Our one published track.
const VOICE: usize = 0;

/// What a room wants of the agent.
pub struct RoomJob {
    pub room: String,
    pub url: String,
    pub token: String,
    /// The participant that the job is about, where it is about one.
    pub participant: Option<String>,
    pub profile: JobProfile,
    /// Everyone is heard, not the linked participant alone.
    pub hear_all: bool,
    /// Told to leave, by the server or an operator.
    pub stop: mpsc::Receiver<()>,
}

/// Carries a job from the join to the moment before the leave, which is for who tells the server of its end: a room is
/// left after that, or the server takes the job for failed.
pub async fn run(host: &Arc<RoomHost>, job: RoomJob) -> Result<Room> {
    let options = JoinOptions {
        url: job.url.clone(),
        token: job.token.clone(),
        publish: vec![PublishTrack { name: "agent".into(), codec: Codec::Opus }],
        auto_subscribe: false,
        attributes: state("initializing"),
    };
    let (room, events) = tokio::time::timeout(JOIN_MAX, host.media.join(options)).await.context("the room was not joined in time")??;
    let RoomJob { room: name, participant, profile, stop, hear_all, .. } = job;
    let mut call = RoomCall {
        host: Arc::clone(host),
        room: room.clone(),
        name,
        profile,
        hear_all,
        linked: Linked::new(participant),
        voices: HashMap::new(),
        early: EarlyTexts::default(),
        leave_at: Instant::now() + NOBODY_MAX,
        connected: false,
        live: None,
        hung_up: false,
    };
    for other in room.participants().iter() {
        call.joined(other)?;
    }
    let ended = call.serve(events, stop).await;
    host.live().remove(&call.name);
    call.end_phone().await;
    ended.map(|()| room)
}

struct RoomCall {
    host: Arc<RoomHost>,
    room: Room,
    name: String,
    profile: JobProfile,
    hear_all: bool,
    linked: Linked,
    /// Of whom the agent hears, by identity.
    voices: HashMap<String, Voices>,
    early: EarlyTexts,
    /// When the room is left unless somebody is there.
    leave_at: Instant,
    /// Sound and texts can flow.
    connected: bool,
    live: Option<Live>,
    /// The agent has ended the call.
    hung_up: bool,
}

/// The call, once somebody is there to talk with.
struct Live {
    from: mpsc::Sender<FromLine>,
    to: mpsc::Receiver<ToLine>,
    watched: mpsc::Receiver<Observed>,
    requests: mpsc::Sender<Request>,
    task: JoinHandle<()>,
    show: Show,
}

impl RoomCall {
    async fn serve(&mut self, mut events: mpsc::Receiver<RoomEvent>, mut stop: mpsc::Receiver<()>) -> Result<()> {
        loop {
            let away = self.live.is_none() || self.linked.is_away();
            tokio::select! {
                event = events.recv() => match event {
                    Some(RoomEvent::Disconnected { reason }) => return self.disconnected(reason).await,
                    Some(event) => self.apply(event)?,
                    None => return self.disconnected(DisconnectReason::Lost).await,
                },
                _ = stop.recv() => return self.gone(Gone::HungUp).await,
                () = sleep_until(self.leave_at), if away => return self.gone(Gone::HungUp).await,
                heard = hear(&mut self.live) => match heard {
                    Heard::Say(said) => self.say(&said),
                    Heard::Watched(observed) => self.show(&observed),
                    Heard::Over => return Ok(()),
                },
            }
        }
    }

    fn apply(&mut self, event: RoomEvent) -> Result<()> {
        match event {
            RoomEvent::Connected => {
                self.connected = true;
                self.ready();
            }
            RoomEvent::ParticipantJoined(participant) | RoomEvent::ParticipantChanged(participant) => self.joined(&participant)?,
            RoomEvent::ParticipantLeft { identity, reason } => self.left(&identity, reason),
            RoomEvent::TrackSubscribed { identity, track } => self.listen(&identity, &track),
            RoomEvent::TrackMuted { identity, sid, muted } => _ = self.voices.get(&identity).map(|voices| voices.muted(&sid, muted)),
            RoomEvent::TrackUnsubscribed { identity, sid } => {
                // a guest has its place in the call for as long as its track is listened to
                let _ = self.room.unlisten(&sid);
                _ = self.voices.get_mut(&identity).map(|voices| voices.gone(&sid));
            }
            RoomEvent::Text { topic, from, text, complete: true, .. } if topic == "lk.chat" => {
                if self.live.is_some() && self.may_talk(&from) {
                    self.tell(Input::Typed(text));
                } else {
                    self.early.keep(Instant::now(), from, text);
                }
            }
            RoomEvent::Dtmf { from, digit } if self.linked.is(&from) => {
                for digit in digit.chars() {
                    self.line_says(FromLine::Dtmf(digit));
                }
            }
            RoomEvent::RpcRequest(request) => {
                let _ = self.room.answer_rpc(&request, Err(RpcError::unsupported_method())); // who asked gives up by time
            }
            _ => {}
        }
        Ok(())
    }

    fn may_talk(&self, identity: &str) -> bool {
        self.hear_all || self.linked.is(identity)
    }

    /// Somebody is there: perhaps the one we came for.
    fn joined(&mut self, participant: &Participant) -> Result<()> {
        let is_linked = matches!(self.linked.sees(participant), Move::Linked | Move::Back);
        if !(is_linked || self.hear_all && participant.kind.is_human()) {
            return Ok(());
        }
        self.subscribe(participant);
        if is_linked && self.live.is_none() {
            self.live = Some(self.begin(participant)?);
            self.ready();
        }
        for text in self.early.of(Instant::now(), &participant.identity) {
            self.tell(Input::Typed(text));
        }
        Ok(())
    }

    fn left(&mut self, identity: &str, reason: DisconnectReason) {
        if self.linked.loses(identity) {
            self.leave_at = Instant::now() + away_max(self.linked.is_phone(), reason);
        } else {
            self.voices.remove(identity);
        }
    }

    fn subscribe(&self, participant: &Participant) {
        for track in participant.tracks.iter().filter(|track| track.audio && track.source.is_voice()) {
            let _ = self.room.subscribe(&track.sid, true); // a room that takes no requests is about to end
        }
    }

    /// The linked participant's sound goes straight from the media thread to the call.
    fn listen(&mut self, identity: &str, track: &RemoteTrack) {
        let Some(live) = self.live.as_ref().filter(|_| track.audio && self.may_talk(identity)) else { return };
        let mut pass = self.voices.entry(identity.to_owned()).or_default().add(track);
        if !self.linked.is(identity) {
            return listen_too(&self.room, live, &track.sid, pass);
        }
        let (from, metrics) = (live.from.clone(), Arc::clone(&self.host.sessions.metrics));
        let _ = self.room.listen(
            &track.sid,
            Box::new(move |packet| {
                let Some(packet) = pass(packet) else { return };
                if from.try_send(FromLine::Audio(packet)).is_err() {
                    metrics.packets_dropped.add(1);
                }
            }),
        );
    }

    /// Gives the call its place.
    fn begin(&self, participant: &Participant) -> Result<Live> {
        let agent = self.profile.agent(&self.host.sessions.agents, Rate::Hz48000)?;
        let (from_sender, from) = mpsc::channel(FROM_LINE_MAX);
        let (to, to_receiver) = mpsc::channel(TO_LINE_MAX);
        let (watcher, watched) = mpsc::channel(WATCHED_MAX);
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        let attribute = |name: &str| participant.attributes.get(name).cloned().unwrap_or_default();
        let phone = participant.kind == ParticipantKind::Sip;
        let caller = attribute("sip.phoneNumber");
        let session = Session {
            id: format!("room-{}", self.name),
            r#type: if phone { "sip" } else { "room" },
            from: if caller.is_empty() { participant.identity.clone() } else { caller },
            to: if phone { attribute("sip.trunkPhoneNumber") } else { self.name.clone() },
            started_at_unix_ms: unix_ms(),
        };
        let metadata = [
            ("transport", "livekit"),
            ("room", self.name.as_str()),
            ("participant", participant.identity.as_str()),
            ("from", session.from.as_str()),
            ("to", session.to.as_str()),
        ];
        let call = NewCall {
            call_sid: Some(attribute("sip.callID")).filter(|sid| !sid.is_empty()),
            metadata: metadata.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            session,
            agent,
            watcher: Some(watcher),
            requests: Some(asked),
            agent_alone: false,
            in_band_fec: !self.room.takes_red(),
            // the track behind the caller changes, and with it who reads it
            direct: false,
        };
        let task = self.host.sessions.take(call, Line { from, to: Some(to) })?.task;
        self.host.live().insert(self.name.clone(), LiveRoom::new(requests.clone(), None));
        Ok(Live { from: from_sender, to: to_receiver, watched, requests, task, show: Show::new(self.room.clone()) })
    }

    /// What the call wants of its line. Nothing is queued at the far end, so a mark is reached when it is met.
    fn say(&mut self, said: &ToLine) {
        match *said {
            ToLine::Audio(packet) => {
                let _ = self.room.send(VOICE, packet); // what the room drops it counts
            }
            ToLine::Mark(number) => self.line_says(FromLine::Mark(number)),
            ToLine::Clear => {}
            // the call's task ends by itself, and with it our stay
            ToLine::HangUp => {
                self.hung_up = true;
                self.line_says(FromLine::Gone(Gone::HungUp));
            }
        }
    }

    fn show(&mut self, observed: &Observed) {
        if let Some(live) = &mut self.live {
            live.show.observe(observed, self.linked.identity());
        }
    }

    fn ready(&mut self) {
        if let Some(live) = self.live.as_mut().filter(|_| self.connected) {
            live.show.ready();
        }
    }

    fn tell(&self, input: Input) {
        if let Some(live) = &self.live
            && live.requests.try_send(Request::Tell(input)).is_err()
        {
            tracing::warn!(room = self.name, "a message was dropped: the call takes no more");
        }
    }

    fn line_says(&self, from: FromLine) {
        if let Some(live) = &self.live {
            let _ = live.from.try_send(from); // a call that takes nothing is ending
        }
    }

    /// A phone stays on the line until it is put out of the room; a person with a browser sees that the agent has left.
    async fn end_phone(&self) {
        let phone = self.linked.identity().filter(|_| self.hung_up && self.linked.is_phone() && !self.linked.is_away());
        if let Some(identity) = phone
            && let Err(error) = self.host.api.remove_participant(&self.name, identity).await
        {
            tracing::warn!(room = self.name, %error, "the phone is not hung up");
        }
    }

    /// The line is over from the room's side: the call says its last and is waited for.
    async fn gone(&mut self, gone: Gone) -> Result<()> {
        if let Some(live) = self.live.take() {
            let _ = live.from.send(FromLine::Gone(gone)).await;
            drop(live.to);
            let _ = live.task.await; // its panic is logged where it happened
        }
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason) -> Result<()> {
        let lost = matches!(reason, DisconnectReason::Lost | DisconnectReason::MediaFailure | DisconnectReason::ServerShutdown | DisconnectReason::Refused);
        self.gone(if lost { Gone::Lost } else { Gone::HungUp }).await?;
        if lost {
            bail!("the room was lost: {reason:?}");
        }
        Ok(())
    }
}

/// How long somebody who has left is waited for.
fn away_max(is_phone: bool, reason: DisconnectReason) -> Duration {
    match reason {
        _ if !is_phone => AWAY_MAX,
        // a phone that hangs up does not come back
        DisconnectReason::Left | DisconnectReason::Removed | DisconnectReason::RoomDeleted => Duration::ZERO,
        _ => PHONE_AWAY_MAX,
    }
}

/// Somebody else's sound goes into the call as a guest's, as long as the track lives.
fn listen_too(room: &Room, live: &Live, sid: &str, mut pass: impl FnMut(Packet) -> Option<Packet> + Send + 'static) {
    let (joined, port) = oneshot::channel();
    let guest = Request::Guest { codec: Codec::Opus, to_caller: false, to_agent: true, joined };
    if live.requests.try_send(guest).is_err() {
        return;
    }
    let (room, sid) = (room.clone(), sid.to_owned());
    tokio::spawn(async move {
        let Ok(mut port) = port.await else { return };
        let _ = room.listen(
            &sid,
            Box::new(move |packet| {
                if let Some(packet) = pass(packet) {
                    let _ = port.packets.push(&packet); // a call that is that far behind hears better without it
                }
            }),
        );
    });
}

#[allow(clippy::large_enum_variant)] // nearly every one is sound, passed on at once
enum Heard {
    Say(ToLine),
    Watched(Observed),
    Over,
}

/// What the call says or does next; waits for ever while there is none.
async fn hear(live: &mut Option<Live>) -> Heard {
    let Some(live) = live else { return std::future::pending().await };
    tokio::select! {
        said = live.to.recv() => said.map_or(Heard::Over, Heard::Say),
        Some(observed) = live.watched.recv() => Heard::Watched(observed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_that_hangs_up_is_not_waited_for_and_one_that_is_lost_is() {
        for (reason, waited) in
            [(DisconnectReason::Left, false), (DisconnectReason::Removed, false), (DisconnectReason::DuplicateIdentity, true), (DisconnectReason::Lost, true)]
        {
            assert_eq!(away_max(true, reason) > Duration::ZERO, waited, "{reason:?}");
            assert!(away_max(false, reason) >= away_max(true, reason), "a browser may reload");
        }
    }
}
