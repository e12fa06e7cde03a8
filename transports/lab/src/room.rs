//! A caller in a `LiveKit` room, on our own participant: light, so that many fit beside the daemon that they measure.
//!
//! Plays the phone's scripts and is measured by the phone's ruler, so that a room's numbers stand beside a telephone
//! call's. Every 20 ms of the script are raised to 48 kHz and sent in Opus; the agent's packets go through the engine's own
//! ear for lossy lines, every 10 ms, and what comes out is what was heard: the delay of a jitter buffer is in the numbers.

mod line;

use crate::dialogue::{AgentHeard, CallScript, Cue, FRAME_BYTES, FRAME_MS, Player};
use crate::measure::{CallReport, Measured, Outcome};
use line::{Listen, Speak};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use voiced_core::codec::opus::OpusError;
use voiced_core::packet::{Codec, Packet};
use voiced_core::time::TICK_MS;
use voiced_livekit::{DisconnectReason, JoinError, JoinOptions, LiveKit, MediaSettings, PublishTrack, Room, RoomEvent};

/// From the join until sound can flow; a tenth of a second where nobody else wants the machine.
const CONNECTED_WITHIN: Duration = Duration::from_secs(20);
/// Packets that wait for the next 10 ms: more than a second of burst.
const PACKETS_MAX: usize = 64;
/// Sending later than this after its time counts as late, in ms: one frame.
const LATE_MS: u128 = 20;

/// Callers in rooms, any number at once.
#[derive(Debug)]
pub struct RoomCaller {
    livekit: LiveKit,
}

/// Where to go and as whom: what a frontend is given for its user.
#[derive(Clone)]
pub struct Invitation {
    /// The server.
    pub url: String,
    /// Identity and room are in it.
    pub token: String,
}

/// Why there was no call.
#[derive(Debug, thiserror::Error)]
pub enum RoomCallError {
    /// No media thread.
    #[error("no caller can be made: {0}")]
    Io(#[from] io::Error),
    /// The room does not let in.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The connection does not come up.
    #[error("no sound can flow within {} s of the join", CONNECTED_WITHIN.as_secs())]
    NotConnected,
    /// The codec.
    #[error(transparent)]
    Opus(#[from] OpusError),
}

impl RoomCaller {
    /// Callers at rest, whose connections share so many threads.
    pub fn start(media_threads: usize) -> Result<Self, RoomCallError> {
        Ok(Self { livekit: LiveKit::start(MediaSettings { threads: media_threads, ..MediaSettings::default() })? })
    }

    /// Joins, plays the script, leaves and reports. One task, however long the call.
    pub async fn call(&self, invitation: Invitation, script: CallScript) -> Result<CallReport, RoomCallError> {
        let options = JoinOptions {
            url: invitation.url,
            token: invitation.token,
            publish: vec![PublishTrack { name: "microphone".to_owned(), codec: Codec::Opus }],
            auto_subscribe: true,
            attributes: HashMap::new(),
        };
        let (room, mut events) = self.livekit.join(options).await?;
        let limit_ms = script.limit_ms;
        let mut call = Call::new(room, script)?;
        timeout(CONNECTED_WITHIN, call.connected(&mut events)).await.map_err(|_| RoomCallError::NotConnected)?;
        call.started = Instant::now();
        let outcome = loop {
            if let Some(outcome) = call.over {
                break outcome;
            }
            if call.now_ms() >= limit_ms {
                break Outcome::LimitReached;
            }
            tokio::select! {
                event = events.recv() => call.apply(event),
                () = sleep_until(call.due()) => call.tick(),
            }
        };
        call.room.leave(DisconnectReason::Left);
        Ok(call.report(outcome))
    }
}

struct Call {
    room: Room,
    started: Instant,
    /// Ticks of 10 ms that have passed.
    ticks: u64,
    player: Player,
    speak: Speak,
    listen: Listen,
    /// The agent's packets, from the media thread.
    arriving: mpsc::Receiver<Packet>,
    agent: AgentHeard,
    measured: Measured,
    /// The last 10 ms were made up, in part at least.
    concealing: bool,
    over: Option<Outcome>,
}

impl Call {
    fn new(room: Room, script: CallScript) -> Result<Self, OpusError> {
        Ok(Self {
            room,
            started: Instant::now(),
            ticks: 0,
            player: Player::new(script),
            speak: Speak::new()?,
            listen: Listen::new()?,
            arriving: mpsc::channel(1).1,
            agent: AgentHeard::default(),
            measured: Measured::default(),
            concealing: false,
            over: None,
        })
    }

    /// Waits until sound can flow; also over when the room ends first.
    async fn connected(&mut self, events: &mut mpsc::Receiver<RoomEvent>) {
        while self.over.is_none() {
            match events.recv().await {
                Some(RoomEvent::Connected) => return,
                event => self.apply(event),
            }
        }
    }

    fn apply(&mut self, event: Option<RoomEvent>) {
        match event {
            Some(RoomEvent::TrackSubscribed { track, .. }) if track.audio => {
                let (packets, arriving) = mpsc::channel(PACKETS_MAX);
                self.arriving = arriving;
                // what finds no room is lost, as it is on any line
                self.room.listen(&track.sid, Box::new(move |packet| _ = packets.try_send(packet)));
            }
            Some(RoomEvent::Disconnected { .. }) | None => self.over = Some(Outcome::AgentHungUp),
            Some(_) => {}
        }
    }

    /// 10 ms have passed: hear them, and after each second ten say 20 ms.
    fn tick(&mut self) {
        self.measured.counts.late_frames += u64::from(self.due().elapsed().as_millis() > LATE_MS);
        self.ticks += 1;
        while let Ok(packet) = self.arriving.try_recv() {
            self.listen.receive(&packet);
        }
        let concealing = self.listen.tick(&mut self.measured.agent);
        self.measured.counts.gaps += u64::from(concealing && !self.concealing);
        self.concealing = concealing;
        let ends_ms = self.now_ms();
        if !ends_ms.is_multiple_of(FRAME_MS) {
            return;
        }
        let begins_ms = ends_ms - FRAME_MS;
        let mut cues = Vec::new();
        let frame = self.player.frame(begins_ms, &self.agent, &mut |cue| cues.push(cue));
        for cue in cues {
            self.measured.follow(begins_ms, &cue);
            match cue {
                Cue::Dtmf(key) => _ = self.room.publish_dtmf(key),
                Cue::HangUp => self.over = Some(Outcome::CallerHungUp),
                Cue::Start { .. } | Cue::Stop | Cue::Stall(_) | Cue::Deaf(_) | Cue::ListenedInVain => {}
            }
        }
        self.measured.caller.extend_from_slice(&frame);
        if let Some(packet) = self.speak.packet(&frame, begins_ms as u32) {
            self.room.send(0, packet);
        }
        let heard_from = self.measured.agent.len().saturating_sub(FRAME_BYTES);
        self.agent.hear(ends_ms, &self.measured.agent[heard_from..]);
    }

    fn report(mut self, outcome: Outcome) -> CallReport {
        self.measured.counts.media = self.listen.received();
        let (name, duration_ms) = (self.room.name(), self.now_ms());
        self.measured.report(&name, outcome, duration_ms)
    }

    fn due(&self) -> Instant {
        self.started + Duration::from_millis((self.ticks + 1) * TICK_MS)
    }

    fn now_ms(&self) -> u64 {
        self.ticks * TICK_MS
    }
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation").field("url", &self.url).finish_non_exhaustive()
    }
}
