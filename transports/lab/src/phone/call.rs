//! One call: a loop that waits for the next 20 ms, the next mark or the next message, and applies each.

use super::playout::Playout;
use super::wire::{CONNECTED, Names, Said, Socket};
use super::{CallReport, Observer, Outcome, PhoneEvent};
use crate::dialogue::{AgentHeard, CallScript, Change, Cue, FRAME_BYTES, FRAME_MS, Player};
use crate::measure::Measured;
use futures_util::{SinkExt, StreamExt};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};

/// A side that does not take a message for this long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of mu-law in 1 ms.
const BYTES_PER_MS: u64 = 8;
/// Sending later than this after its time counts as late, in ms: one frame.
const LATE_MS: u128 = 20;

/// Plays the script over a socket that has just opened.
pub(super) async fn run(
    mut socket: Socket,
    names: Names<'_>,
    parameters: &BTreeMap<String, String>,
    script: CallScript,
    observer: &Observer<'_>,
) -> CallReport {
    let limit_ms = script.limit_ms;
    let mut call = Call {
        names,
        observer,
        started: Instant::now(),
        player: Player::new(script),
        agent: AgentHeard::default(),
        playout: Playout::default(),
        measured: Measured::default(),
        sound: Vec::new(),
        out: vec![CONNECTED.to_owned(), names.start(parameters)],
        sequence: 1,
        frames: 0,
        stalled: None,
        deaf_until: None,
        warned: [false; 3],
        over: None,
    };
    observer(0, PhoneEvent::Connected);
    let outcome = loop {
        if let Some(stalled) = call.stalled.take() {
            tokio::time::sleep(stalled).await;
        }
        if send(&mut socket, &mut call.out).await.is_err() {
            break Outcome::AgentHungUp;
        }
        if let Some(outcome) = call.over {
            break outcome;
        }
        if call.frames * FRAME_MS >= limit_ms {
            break Outcome::LimitReached;
        }
        tokio::select! {
            received = socket.next(), if call.deaf_until.is_none_or(|until| until <= Instant::now()) => call.receive(received),
            () = sleep_until(call.at((call.frames + 1) * FRAME_BYTES as u64)) => call.tick(),
            () = sleep_until(call.next_mark()) => call.play_until_now(),
        }
    };
    call.play_until_now();
    if outcome != Outcome::AgentHungUp {
        let stop = call.names.stop(call.sequence + 1);
        let _ = send(&mut socket, &mut vec![stop]).await;
    }
    let _ = timeout(SEND_TIMEOUT, socket.close(None)).await;
    let duration_ms = call.now_ms();
    observer(duration_ms, PhoneEvent::Over(outcome));
    call.measured.report(call.names.call_sid, outcome, duration_ms)
}

async fn send(socket: &mut Socket, out: &mut Vec<String>) -> Result<(), Error> {
    if out.is_empty() {
        return Ok(());
    }
    let sending = async {
        for text in out.drain(..) {
            socket.feed(Message::text(text)).await?;
        }
        socket.flush().await
    };
    timeout(SEND_TIMEOUT, sending).await.unwrap_or(Err(Error::ConnectionClosed))
}

struct Call<'a> {
    names: Names<'a>,
    observer: &'a Observer<'a>,
    started: Instant,
    player: Player,
    agent: AgentHeard,
    playout: Playout,
    measured: Measured,
    /// Sound of the message being read.
    sound: Vec<u8>,
    /// Messages to be sent.
    out: Vec<String>,
    /// Number of the last message sent.
    sequence: u64,
    /// Frames of the caller's sent.
    frames: u64,
    /// How long nothing is to be sent or read from now on.
    stalled: Option<Duration>,
    /// Nothing is to be read before.
    deaf_until: Option<Instant>,
    /// Each warning is raised once per stream.
    warned: [bool; 3],
    over: Option<Outcome>,
}

impl Call<'_> {
    /// A frame of the caller's is complete: say it, and hear what the agent said meanwhile.
    fn tick(&mut self) {
        let begins_ms = self.frames * FRAME_MS;
        self.frames += 1;
        let ends_ms = self.frames * FRAME_MS;
        let due = self.at(self.frames * FRAME_BYTES as u64);
        self.measured.counts.late_frames += u64::from(due.elapsed().as_millis() > LATE_MS);
        let mut cues = Vec::new();
        let frame = self.player.frame(begins_ms, &self.agent, &mut |cue| cues.push(cue));
        for cue in cues {
            self.follow(begins_ms, cue);
        }
        self.measured.caller.extend_from_slice(&frame);
        self.sequence += 1;
        // the timestamp is where the frame begins
        self.out.push(self.names.media(self.sequence, self.frames, begins_ms, &frame));
        self.play_until(self.frames * FRAME_BYTES as u64);
        let agent_from = ((self.frames - 1) * FRAME_BYTES as u64) as usize;
        let played = &self.measured.agent[agent_from..][..FRAME_BYTES];
        match self.agent.hear(ends_ms, played) {
            Change::Started => (self.observer)(begins_ms, PhoneEvent::AgentStarted),
            Change::Stopped => (self.observer)(ends_ms, PhoneEvent::AgentStopped),
            Change::Nothing => {}
        }
    }

    fn follow(&mut self, now_ms: u64, cue: Cue) {
        self.measured.follow(now_ms, &cue);
        match cue {
            Cue::Start { label, .. } => (self.observer)(now_ms, PhoneEvent::CallerStarted(&label)),
            Cue::Stop => {
                if let Some(utterance) = self.measured.utterances.last() {
                    (self.observer)(now_ms, PhoneEvent::CallerStopped(&utterance.label));
                }
            }
            Cue::Dtmf(key) => {
                (self.observer)(now_ms, PhoneEvent::Dtmf(key));
                self.sequence += 1;
                self.out.push(self.names.dtmf(self.sequence, key));
            }
            Cue::ListenedInVain => (self.observer)(now_ms, PhoneEvent::ListenedInVain),
            Cue::Stall(ms) => self.stalled = Some(Duration::from_millis(ms)),
            Cue::Deaf(ms) => self.deaf_until = Some(Instant::now() + Duration::from_millis(ms)),
            Cue::HangUp => self.over = Some(Outcome::CallerHungUp),
        }
    }

    fn receive(&mut self, received: Option<Result<Message, Error>>) {
        match received {
            Some(Ok(Message::Text(text))) => self.said(&text),
            Some(Ok(Message::Binary(_))) => self.warn(31_950),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Close(_)) | Err(_)) | None => self.over = Some(Outcome::AgentHungUp),
        }
    }

    fn said(&mut self, text: &str) {
        self.play_until_now();
        match self.names.read(text, &mut self.sound) {
            Some(Said::Media) => {
                self.measured.counts.media += 1;
                let at_ms = self.now_ms();
                self.measured.queued(at_ms, self.playout.is_empty());
                if !self.playout.media(&self.sound) {
                    self.warn(31_931);
                }
                let ahead_ms = &mut self.measured.counts.ahead_ms;
                *ahead_ms = (*ahead_ms).max(self.playout.len() as u64 / BYTES_PER_MS);
            }
            Some(Said::Mark(name)) => {
                self.measured.counts.marks += 1;
                if let Some(name) = self.playout.mark(name) {
                    self.echo(&name);
                }
            }
            Some(Said::Clear) => {
                let at_ms = self.now_ms();
                self.measured.cleared(at_ms);
                (self.observer)(at_ms, PhoneEvent::Cleared);
                let marks: Vec<_> = self.playout.clear().collect();
                for name in &marks {
                    self.echo(name);
                }
            }
            None => self.warn(31_951),
        }
    }

    fn echo(&mut self, name: &str) {
        self.sequence += 1;
        self.out.push(self.names.mark(self.sequence, name));
    }

    fn warn(&mut self, code: u32) {
        self.measured.counts.warnings += 1;
        let slot = match code {
            31_931 => 0,
            31_950 => 1,
            _ => 2,
        };
        if !std::mem::replace(&mut self.warned[slot], true) {
            (self.observer)(self.now_ms(), PhoneEvent::Warned(code));
        }
    }

    fn play_until_now(&mut self) {
        self.play_until(self.started.elapsed().as_micros() as u64 * BYTES_PER_MS / 1_000);
    }

    fn play_until(&mut self, until: u64) {
        let was_playing = !self.playout.is_empty();
        while let Some(name) = self.playout.play(until, &mut self.measured.agent) {
            self.echo(&name);
        }
        if was_playing && self.playout.is_empty() {
            self.measured.ran_dry(self.playout.dry_at() / BYTES_PER_MS);
        }
    }

    /// When the next mark is due; far away when there is none.
    fn next_mark(&self) -> Instant {
        self.playout.next_mark().map_or_else(|| self.started + Duration::from_hours(24), |position| self.at(position))
    }

    /// When the position is reached, rounded up to the µs so that it has been reached when the timer fires.
    fn at(&self, position: u64) -> Instant {
        self.started + Duration::from_micros((position * 1_000).div_ceil(BYTES_PER_MS))
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}
