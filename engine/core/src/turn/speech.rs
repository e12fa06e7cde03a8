//! The speech gate: from the probabilities of 32 ms windows to stretches of speech with true edges.
//!
//! A stretch begins after two windows in a row that are surely speech (or one that is beyond doubt, while nothing of
//! the agent can leak in) and lives on while windows stay above a lower threshold. The edges it reports are not the
//! moments of these decisions: they are dated back to the first and last 10 ms frame of the deciding windows that is
//! within 27 dB of the caller's loudest and above the room, for the model goes on for some 100 ms after the last of
//! them. Without a model the same gate runs on the level above the line's noise.

use crate::frame::{HEARD_LEN, HeardFrame, energy};
use crate::time::{MediaTime, TICK_MS};

/// A window at or above this is speech, Silero's own threshold.
const ON: f32 = 0.5;
/// A stretch goes on while windows reach this, so that soft syllables do not end it.
const OFF: f32 = 0.35;
/// A single window at or above this begins a stretch while the agent is silent.
const BEYOND_DOUBT: f32 = 0.8;
/// Windows in a row that begin a stretch otherwise.
const WINDOWS_TO_BEGIN: u32 = 2;
/// Length of a window, in ms.
const WINDOW_MS: u64 = 32;
/// Quiet that ends a stretch, in ms: longer than the closure of a plosive, and than most soft spots inside a word.
pub const PAUSE_MS: u64 = 120;
/// Frames whose levels are kept: a window and what may be left of the one after it.
const LEVELS: usize = 8;
/// A frame this much weaker than the loudest speech (27 dB) is no edge of a word.
const EDGE: f32 = 2e-3;
/// Nor is one within 13 dB of the quietest frames, the room's noise, unless it is within 10 dB of the loudest.
const ABOVE_ROOM: f32 = 20.0;
const EDGE_MAX: f32 = 0.1;
/// Windows that the model still calls speech after the last such frame are its own tail, up to 96 ms; more are soft speech.
const TAIL_WINDOWS: u32 = 3;
/// The loudest level fades by this factor per frame (half in 7 s), so that a click is forgotten.
const PEAK_FADE: f32 = 0.999;
/// Sound as strong as a word's is unjudged for so long, in ms: two windows, and what is left of the one in which it began.
const UNJUDGED_MS: u64 = 80;
/// Rise of the noise floor per frame, 0.9 dB a second: slower than any word.
const FLOOR_RISE: f32 = 1.002;
/// Least noise floor as mean square, -70 dBFS: mu-law's own noise lies above.
const FLOOR_MIN: f32 = 1e-7;
/// Level above the noise where the energy gate is at 0, in dB, and what it takes from there to 1.
const SNR_ZERO_DB: f32 = 6.0;
const SNR_SPAN_DB: f32 = 12.0;

/// Tells speech from quiet in one caller's sound.
#[derive(Clone, Debug)]
pub struct SpeechGate {
    speaking: bool,
    run: u32,
    /// Windows of speech in a row without an edge.
    faint: u32,
    first: MediaTime,
    last: MediaTime,
    /// Since when frames are as strong as the edge of a word.
    loud_since: Option<MediaTime>,
    evidence_ms: u64,
    levels: [(MediaTime, f32); LEVELS],
    next_level: usize,
    peak: f32,
    floor: f32,
}

impl Default for SpeechGate {
    fn default() -> Self {
        Self {
            speaking: false,
            run: 0,
            faint: 0,
            first: MediaTime(0),
            last: MediaTime(0),
            loud_since: None,
            evidence_ms: 0,
            levels: [(MediaTime(0), 0.0); LEVELS],
            next_level: 0,
            peak: 0.0,
            floor: f32::MAX,
        }
    }
}

impl SpeechGate {
    /// Takes the 10 ms that begin at `at`.
    pub fn frame(&mut self, at: MediaTime, frame: &HeardFrame) {
        let level = energy(frame) / HEARD_LEN as f32;
        self.levels[self.next_level] = (at, level);
        self.next_level = (self.next_level + 1) % LEVELS;
        self.peak *= PEAK_FADE;
        self.floor = (self.floor * FLOOR_RISE).min(level).max(FLOOR_MIN);
        let is_loud = self.peak > 0.0 && level >= self.edge_level(); // before the first word nothing tells what is loud
        self.loud_since = if is_loud { self.loud_since.or(Some(at)) } else { None };
    }

    /// Takes the probability of the window that ends at `end`; `keen`: nothing of the agent is audible.
    pub fn window(&mut self, probability: f32, end: MediaTime, keen: bool) {
        let start = MediaTime(end.ms().saturating_sub(WINDOW_MS));
        if probability < OFF {
            self.run = 0;
            self.faint = 0;
            return;
        }
        if probability >= ON {
            self.loudest(start);
        }
        let edge = self.last_edge(start, end);
        self.faint = if edge.is_none() { self.faint + 1 } else { 0 };
        let soft = self.faint > TAIL_WINDOWS;
        if probability >= ON && (edge.is_some() || soft) {
            self.run += 1;
            self.evidence_ms += WINDOW_MS;
            if !self.speaking {
                if self.run == 1 {
                    self.first = self.first_edge(start, end);
                }
                self.speaking = self.run >= WINDOWS_TO_BEGIN || (keen && probability >= BEYOND_DOUBT);
            }
            if self.speaking {
                self.last = edge.unwrap_or(end);
            }
        } else if self.speaking {
            self.evidence_ms += WINDOW_MS;
            self.last = edge.unwrap_or(self.last);
        } else if probability < ON {
            self.run = 0;
        }
    }

    /// Ends the stretch once it has been quiet for [`PAUSE_MS`].
    pub fn tick(&mut self, heard_until: MediaTime) {
        if self.speaking && heard_until.since(self.last) >= PAUSE_MS {
            self.speaking = false;
            self.run = 0;
        }
    }

    /// How much the last window stands out of the noise, as a probability: the gate without a model.
    pub fn energy_probability(&self) -> f32 {
        let newest = self.levels.iter().map(|&(at, _)| at).max().unwrap_or_default();
        let window = self.levels.iter().filter(|&&(at, _)| at + WINDOW_MS > newest);
        let loud = window.map(|&(_, level)| level).fold(0.0, f32::max);
        let snr_db = 10.0 * (loud.max(FLOOR_MIN) / self.floor.max(FLOOR_MIN)).log10();
        ((snr_db - SNR_ZERO_DB) / SNR_SPAN_DB).clamp(0.0, 1.0)
    }

    /// A stretch of speech is going on.
    pub fn is_speaking(&self) -> bool {
        self.speaking
    }

    /// The last window may have been the first of a stretch.
    pub fn is_doubtful(&self) -> bool {
        !self.speaking && self.run > 0
    }

    /// The last frame is as strong as a word's and too new to be judged: the worst moment for the agent to begin.
    pub fn has_unjudged_sound(&self, heard_until: MediaTime) -> bool {
        self.loud_since.is_some_and(|since| heard_until.since(since) <= UNJUDGED_MS)
    }

    /// First frame of the newest stretch.
    pub fn first(&self) -> MediaTime {
        self.first
    }

    /// End of the last frame of speech.
    pub fn last(&self) -> MediaTime {
        self.last
    }

    /// Speech since [`SpeechGate::forget_evidence`], in ms.
    pub fn evidence_ms(&self) -> u64 {
        self.evidence_ms
    }

    /// Starts counting speech anew.
    pub fn forget_evidence(&mut self) {
        self.evidence_ms = 0;
    }

    fn loudest(&mut self, start: MediaTime) {
        let loudest = self.levels.iter().filter(|&&(at, _)| at >= start).map(|&(_, level)| level).fold(0.0, f32::max);
        self.peak = self.peak.max(loudest);
    }

    fn first_edge(&self, start: MediaTime, end: MediaTime) -> MediaTime {
        let loud = self.loud_frames(start, end).map(|at| at.max(start)).min();
        loud.unwrap_or(start)
    }

    fn last_edge(&self, start: MediaTime, end: MediaTime) -> Option<MediaTime> {
        self.loud_frames(start, end).map(|at| (at + TICK_MS).min(end)).max()
    }

    /// What a frame at the edge of a word has at least, as mean square.
    fn edge_level(&self) -> f32 {
        (self.peak * EDGE).max((self.floor * ABOVE_ROOM).min(self.peak * EDGE_MAX))
    }

    fn loud_frames(&self, start: MediaTime, end: MediaTime) -> impl Iterator<Item = MediaTime> {
        let enough = self.edge_level();
        let in_window = move |at: MediaTime| at + TICK_MS > start && at < end;
        self.levels.iter().filter(move |&&(at, level)| in_window(at) && level >= enough).map(|&(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs 32 ms windows of `level` and `probability` from `at`.
    fn run(gate: &mut SpeechGate, at: &mut u64, windows: u32, level: f32, probability: f32) {
        for _ in 0..windows {
            for frame in 0..3 {
                gate.frame(MediaTime(*at + frame * 10), &[level; HEARD_LEN]);
            }
            *at += 32;
            gate.window(probability, MediaTime(*at), false);
            gate.tick(MediaTime(*at));
        }
    }

    #[test]
    fn edges_are_those_of_the_sound_not_of_the_decision() {
        let (mut gate, mut at) = (SpeechGate::default(), 0);
        run(&mut gate, &mut at, 10, 0.001, 0.1);
        run(&mut gate, &mut at, 10, 0.2, 0.9);
        assert!(gate.is_speaking());
        assert_eq!(gate.first(), MediaTime(320));
        run(&mut gate, &mut at, 1, 0.001, 0.4); // the model's own tail
        assert_eq!(gate.last().ms().div_ceil(10) * 10, 640);
        run(&mut gate, &mut at, 4, 0.001, 0.1);
        assert!(!gate.is_speaking());
    }

    #[test]
    fn a_single_doubtful_window_is_not_speech() {
        let (mut gate, mut at) = (SpeechGate::default(), 0);
        for _ in 0..20 {
            run(&mut gate, &mut at, 1, 0.1, 0.6);
            run(&mut gate, &mut at, 1, 0.001, 0.2);
            assert!(!gate.is_speaking());
        }
    }

    #[test]
    fn the_energy_gate_hears_a_voice_and_not_a_hum() {
        let (mut gate, mut at) = (SpeechGate::default(), 0);
        run(&mut gate, &mut at, 60, 0.01, 0.0);
        assert!(gate.energy_probability() < OFF);
        run(&mut gate, &mut at, 3, 0.1, 0.0);
        assert!(gate.energy_probability() > ON);
    }
}
