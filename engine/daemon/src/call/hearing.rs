//! Speech to text of one call: what of its sound goes to which provider, and who hears on when one fails.
//!
//! A provider takes the line's own packets, or what the leg heard, all of it or the caller's turns only. The chain of an
//! agent may mix them: what the next one wants in another form is converted. A session that fails hands back the sound
//! that no settled text covers; the next provider gets it first, so that no word is lost.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use voiced_core::codec::{mulaw_from_sample, sample_from_mulaw};
use voiced_core::frame::Rate;
use voiced_core::leg::LegEvent;
use voiced_core::model::SttEvent;
use voiced_core::resample::Resampler;
use voiced_models_remote::breaker::Permit;
use voiced_models_remote::chain::Order;
use voiced_models_remote::stt::{SttFeed, SttInput, SttSession};

use super::ear::Ear;
use crate::agent::Agent;
use crate::metrics::Metrics;

/// A streaming speech-to-text gets sound in messages of 100 ms, and at once when a settled text is asked for: a message costs
/// more than what is in it, and a guess of the words some 40 ms later delays no answer.
const MESSAGE_MS: usize = 100;
/// Sound of one piece for a session that wants turns, in bytes: 10 ms at 16 kHz.
const PIECE_BYTES: usize = 320;
/// Sound that waits while a failed session says its last, in bytes: a second at 16 kHz.
const KEPT_BYTES_MAX: usize = 32_000;

/// What one call's speech to text is doing.
pub struct Hearing {
    agent: Arc<Agent>,
    metrics: Arc<Metrics>,
    order: Order,
    /// Place in the chain.
    at: usize,
    permit: Option<Permit>,
    session: Option<SttSession>,
    ear: Ear,
    /// Sound on its way, in the form that the session takes.
    unsent: Vec<u8>,
    /// Sound that a session which has failed did not take.
    kept: VecDeque<Bytes>,
    /// Requests to finalise that are not answered.
    finalizing: u32,
    /// From the line to what the leg hears, when a provider in the middle of a call wants that.
    upsampler: Option<Resampler>,
}

impl Hearing {
    /// Opens a session with the first provider of the agent's chain that is well.
    pub fn new(agent: Arc<Agent>, metrics: Arc<Metrics>) -> Self {
        let order = Order::new(agent.stt.len(), 0);
        let mut hearing = Self {
            agent,
            metrics,
            order,
            at: 0,
            permit: None,
            session: None,
            ear: Ear::default(),
            unsent: Vec::new(),
            kept: VecDeque::new(),
            finalizing: 0,
            upsampler: None,
        };
        hearing.next_provider();
        hearing
    }

    /// What speech to text says next. Cancel safe. Waits for ever when nobody is left to hear.
    pub async fn event(&mut self) -> SttEvent {
        loop {
            let Some(session) = &mut self.session else { return std::future::pending().await };
            match session.events.recv().await {
                Some(SttEvent::Failed(reason)) => return self.failed(reason),
                Some(event) => {
                    self.answered(&event);
                    return event;
                }
                None => self.session = None,
            }
        }
    }

    /// A packet of the line, mu-law at 8 kHz.
    pub fn packet(&mut self, payload: &[u8]) {
        match self.feed() {
            SttFeed::Line => self.stream(payload, 8),
            // no leg hands out what it hears to a chain that began with the line
            wanted if self.began_with_line() => {
                let sound = self.upsample(payload);
                self.heard(wanted, sound.into());
            }
            SttFeed::Heard | SttFeed::Turns => {}
        }
    }

    /// What the leg heard, 16-bit at 16 kHz.
    pub fn frame(&mut self, samples: &[i16]) {
        let wanted = self.feed();
        if wanted != SttFeed::Line {
            self.heard(wanted, samples.iter().flat_map(|sample| sample.to_le_bytes()).collect());
        }
    }

    /// The caller's turns: a session that wants them begins with each, with the sound before its begin.
    pub fn turn(&mut self, event: &LegEvent) {
        let begins = matches!(event, LegEvent::SpeechStarted { .. } | LegEvent::Resumed { .. } | LegEvent::Held { .. } | LegEvent::Interrupted { .. });
        if begins && self.feed() != SttFeed::Turns {
            self.give(SttInput::Speaks);
        }
        let Some(before) = self.ear.turn(event) else { return };
        if self.feed() != SttFeed::Turns {
            return;
        }
        // who goes on after all is still in the same turn
        if !matches!(event, LegEvent::Resumed { .. }) {
            self.finalizing = 0;
            self.open();
        }
        for sound in before {
            self.give(SttInput::Audio(sound));
        }
    }

    /// Asks for a settled text of all sound so far.
    pub fn finalize(&mut self) {
        self.flush();
        self.finalizing += 1;
        self.give(SttInput::Finalize);
    }

    fn feed(&self) -> SttFeed {
        self.agent.stt[self.at].provider.feed()
    }

    fn began_with_line(&self) -> bool {
        self.agent.feed() == SttFeed::Line
    }

    fn heard(&mut self, wanted: SttFeed, mut sound: Bytes) {
        if wanted == SttFeed::Heard {
            return self.stream(&sound, 32);
        }
        while !sound.is_empty() {
            if let Some(input) = self.ear.frame(sound.split_to(PIECE_BYTES.min(sound.len()))) {
                self.give(input);
            }
        }
    }

    fn stream(&mut self, bytes: &[u8], bytes_per_ms: usize) {
        self.unsent.extend_from_slice(bytes);
        if self.unsent.len() >= MESSAGE_MS * bytes_per_ms {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.unsent.is_empty() {
            let sound = std::mem::take(&mut self.unsent);
            self.give(SttInput::Audio(Bytes::from(sound)));
        }
    }

    fn give(&mut self, input: SttInput) {
        let Some(session) = &self.session else { return };
        match session.input.try_send(input) {
            // a request that finds the session closed is made again of the next provider
            Ok(()) | Err(TrySendError::Closed(SttInput::Speaks | SttInput::Finalize | SttInput::Close)) => {}
            Err(TrySendError::Full(_)) => self.metrics.stt_dropped.add(1),
            // its last event says why, and then the next provider gets what is kept
            Err(TrySendError::Closed(SttInput::Audio(sound))) => {
                self.kept.push_back(sound);
                while self.kept.iter().map(Bytes::len).sum::<usize>() > KEPT_BYTES_MAX {
                    self.kept.pop_front();
                    self.metrics.stt_dropped.add(1);
                }
            }
        }
    }

    fn answered(&mut self, event: &SttEvent) {
        match event {
            SttEvent::Finalized => self.finalizing = self.finalizing.saturating_sub(1),
            SttEvent::Interim(_) | SttEvent::Final(_) => {
                if let Some(permit) = self.permit.take() {
                    permit.worked();
                }
            }
            SttEvent::Switched(_) | SttEvent::Failed(_) => {}
        }
    }

    /// The next provider hears on, if there is one.
    fn failed(&mut self, reason: String) -> SttEvent {
        let breaker = &self.agent.stt[self.at].breaker;
        self.permit.take().unwrap_or_else(|| breaker.insist()).failed(&reason);
        let unsettled = self.session.take().and_then(|mut session| session.unsettled.try_recv().ok()).unwrap_or_default();
        let had = self.feed();
        if !self.next_provider() {
            return SttEvent::Failed(reason);
        }
        self.metrics.stt_switched.add(1);
        let unsent = Bytes::from(std::mem::take(&mut self.unsent));
        let sound: Vec<Bytes> = unsettled.into_iter().chain(self.kept.drain(..)).chain([unsent]).collect();
        self.catch_up(had, sound.concat().into());
        SttEvent::Switched(format!("{reason}; {} hears on", self.agent.stt[self.at].breaker.name()))
    }

    fn next_provider(&mut self) -> bool {
        let Some((at, permit)) = self.order.next(&self.agent.stt) else { return false };
        (self.at, self.permit) = (at, Some(permit));
        self.open();
        true
    }

    fn open(&mut self) {
        self.session = Some(self.agent.stt[self.at].provider.open());
    }

    /// Gives a new session the sound that the one before, fed like this, did not settle, and asks what that one was asked.
    fn catch_up(&mut self, had: SttFeed, sound: Bytes) {
        let wanted = self.feed();
        let mut sound: Bytes = match (had, wanted) {
            (SttFeed::Line, SttFeed::Line) | (SttFeed::Heard | SttFeed::Turns, SttFeed::Heard | SttFeed::Turns) => sound,
            (SttFeed::Line, SttFeed::Heard | SttFeed::Turns) => self.upsample(&sound).into(),
            (SttFeed::Heard | SttFeed::Turns, SttFeed::Line) => to_line(&sound).into(),
        };
        // between turns there are no words in it
        if wanted != SttFeed::Turns || self.ear.is_open() || self.finalizing > 0 {
            while !sound.is_empty() {
                self.give(SttInput::Audio(sound.split_to((PIECE_BYTES * 10).min(sound.len()))));
            }
        }
        for _ in 0..self.finalizing {
            self.give(SttInput::Finalize);
        }
    }

    fn upsample(&mut self, mulaw: &[u8]) -> Vec<u8> {
        let upsampler = self.upsampler.get_or_insert_with(|| Resampler::new(Rate::Hz8000.hz(), Rate::Hz16000.hz()));
        let (samples, mut out): (Vec<i16>, _) = (mulaw.iter().map(|&byte| sample_from_mulaw(byte)).collect(), Vec::new());
        upsampler.process_i16(&samples, &mut out);
        out.iter().flat_map(|sample| sample.to_le_bytes()).collect()
    }
}

/// 16-bit sound at 16 kHz as the line's mu-law.
fn to_line(sound: &[u8]) -> Vec<u8> {
    let (samples, mut out): (Vec<i16>, _) = (sound.as_chunks().0.iter().map(|&sample| i16::from_le_bytes(sample)).collect(), Vec::new());
    Resampler::new(Rate::Hz16000.hz(), Rate::Hz8000.hz()).process_i16(&samples, &mut out);
    out.into_iter().map(mulaw_from_sample).collect()
}
