//! What the fake Deepgram makes of sound: when words begin to show, and when they are settled.

use super::{Saying, results};
use crate::providers::{Latency, Script, ms};
use serde_json::json;
use std::collections::VecDeque;
use tokio::time::Instant;
use voiced_core::codec::mulaw_decode;

/// Sound is judged in steps of this length, in ms.
const STEP_MS: u64 = 20;
/// Mean level above which a step holds speech: -40 dBFS.
const SPEECH_LEVEL: f32 = 0.01;
/// Without words to tell, a sign of life comes this often, in ms of sound.
const EMPTY_EVERY_MS: u64 = 1_000;

pub(in crate::providers) struct Hearing {
    script: Script,
    latency: Latency,
    stream: usize,
    mulaw: bool,
    step_samples: usize,
    /// Samples of the step that is not yet whole, and the odd byte of a sample.
    step: Vec<f32>,
    odd: Option<u8>,
    /// Sound so far, and where the unsettled part begins, in ms.
    heard_ms: u64,
    settled_ms: u64,
    told_ms: u64,
    /// The utterance: its number, its words, sound of it, words shown, words settled.
    utterance: usize,
    words: Vec<String>,
    spoken_ms: u64,
    shown: usize,
    settled: usize,
    silence_ms: u64,
    /// When the last sound of speech came.
    spoken_at: Option<Instant>,
}

type Due = VecDeque<(Instant, Saying)>;

impl Hearing {
    pub fn new(script: Script, latency: Latency, stream: usize, mulaw: bool, rate_hz: u32) -> Self {
        let words = words(&script, stream, 0);
        Self {
            script,
            latency,
            stream,
            mulaw,
            step_samples: (u64::from(rate_hz) * STEP_MS / 1_000).max(1) as usize,
            step: Vec::new(),
            odd: None,
            heard_ms: 0,
            settled_ms: 0,
            told_ms: 0,
            utterance: 0,
            words,
            spoken_ms: 0,
            shown: 0,
            settled: 0,
            silence_ms: 0,
            spoken_at: None,
        }
    }

    pub fn hear(&mut self, sound: &[u8], now: Instant, due: &mut Due) {
        for sample in self.decode(sound) {
            self.step.push(sample);
            if self.step.len() == self.step_samples {
                let level = self.step.iter().map(|sample| sample.abs()).sum::<f32>() / self.step.len() as f32;
                self.step.clear();
                self.step(level > SPEECH_LEVEL, now, due);
            }
        }
    }

    /// Settles what was spoken.
    pub fn finalize(&mut self, now: Instant, due: &mut Due) {
        let saying = self.settle(true);
        push(due, self.settles_at(now), saying);
    }

    /// Settles the rest and ends.
    pub fn close(&mut self, now: Instant, due: &mut Due) {
        let at = self.settles_at(now);
        if self.shown > self.settled {
            let saying = self.settle(false);
            push(due, at, saying);
        }
        let metadata = json!({"type": "Metadata", "request_id": "lab", "duration": self.heard_ms as f64 / 1e3, "channels": 1});
        push(due, at, Saying::Metadata(metadata));
    }

    fn step(&mut self, speech: bool, now: Instant, due: &mut Due) {
        self.heard_ms += STEP_MS;
        let at = now + ms(self.latency.stt_interim_ms);
        if speech {
            if self.silence_ms >= self.script.utterance_gap_ms && self.spoken_ms > 0 {
                self.next_utterance(at, due);
            }
            self.silence_ms = 0;
            self.spoken_ms += STEP_MS;
            self.spoken_at = Some(now);
            let shown = self.spoken_ms.div_ceil(self.script.caller_word_ms.max(1)) as usize;
            if shown.min(self.words.len()) > self.shown {
                self.shown += 1;
                self.tell(at, due);
            }
        } else {
            self.silence_ms += STEP_MS;
        }
        if self.heard_ms - self.told_ms >= EMPTY_EVERY_MS {
            self.tell(at, due);
        }
    }

    /// The current guess; where nothing is unsettled, that the silence is settled.
    fn tell(&mut self, at: Instant, due: &mut Due) {
        self.told_ms = self.heard_ms;
        let saying = if self.shown > self.settled { results(&self.unsettled(), self.span_s(), false, false) } else { self.settle(false) };
        push(due, at, saying);
    }

    fn settle(&mut self, from_finalize: bool) -> Saying {
        let saying = results(&self.unsettled(), self.span_s(), true, from_finalize);
        self.settled = self.shown;
        self.settled_ms = self.heard_ms;
        saying
    }

    fn next_utterance(&mut self, at: Instant, due: &mut Due) {
        if self.shown > self.settled {
            let saying = self.settle(false);
            push(due, at, saying);
        }
        self.utterance += 1;
        self.words = words(&self.script, self.stream, self.utterance);
        (self.spoken_ms, self.shown, self.settled) = (0, 0, 0);
    }

    fn settles_at(&self, now: Instant) -> Instant {
        let shown = self.spoken_at.map_or(now, |at| now.max(at + ms(self.latency.stt_interim_ms)));
        shown + ms(self.latency.stt_final_ms)
    }

    fn unsettled(&self) -> String {
        self.words[self.settled..self.shown].join(" ")
    }

    fn span_s(&self) -> (f64, f64) {
        (self.settled_ms as f64 / 1e3, self.heard_ms as f64 / 1e3)
    }

    fn decode(&mut self, sound: &[u8]) -> Vec<f32> {
        if self.mulaw {
            let mut samples = vec![0.0; sound.len()];
            mulaw_decode(sound, &mut samples);
            return samples;
        }
        let mut bytes = self.odd.take().into_iter().chain(sound.iter().copied());
        let mut samples = Vec::with_capacity(sound.len() / 2 + 1);
        while let Some(low) = bytes.next() {
            let Some(high) = bytes.next() else {
                self.odd = Some(low);
                break;
            };
            samples.push(f32::from(i16::from_le_bytes([low, high])) / 32_768.0);
        }
        samples
    }
}

fn words(script: &Script, stream: usize, utterance: usize) -> Vec<String> {
    (script.caller)(stream, utterance).split_whitespace().map(str::to_owned).collect()
}

/// Nothing overtakes what was said before.
fn push(due: &mut Due, at: Instant, saying: Saying) {
    let at = due.back().map_or(at, |(last, _)| at.max(*last));
    due.push_back((at, saying));
}
