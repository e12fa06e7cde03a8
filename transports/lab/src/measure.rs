//! What a call was like, measured from its two channels.
//!
//! Sound is judged in pieces of 10 ms. Where the caller speaks in a recording is told from the recording itself, since
//! most hold clicks and a room's noise besides: pieces within 23 dB of its loud ones and well above its quiet ones,
//! three in a row. An answer is the first audible piece of the agent's after the caller's last one of speech, if the
//! agent was quiet just before; a barge-in is over when the agent's last audible piece before its next pause has been
//! played. Both channels share one clock, so every number is a difference of places in them.

use crate::dialogue::{AUDIBLE_POWER, Cue, PAUSE_MS, is_audible, power};
use std::io;
use std::path::Path;
use voiced_core::codec::sample_from_mulaw;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The script came to its end.
    CallerHungUp,
    /// The stream was closed by the other side.
    AgentHungUp,
    /// The TwiML opened no stream: an apology was said.
    Apology,
    /// The script's limit came first.
    LimitReached,
}

/// What came of a call, on the phone or in a room.
#[derive(Clone, Debug)]
pub struct CallReport {
    /// The call's name at Twilio, or the room's.
    pub call_sid: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Length of the stream, in ms.
    pub duration_ms: u64,
    /// Each thing said, in order, barge-ins included.
    pub utterances: Vec<UtteranceReport>,
    /// Each thing said over the agent.
    pub barge_ins: Vec<BargeInReport>,
    /// What was counted.
    pub counts: Counts,
    /// Both sides as the caller heard them.
    pub recording: Recording,
}

impl CallReport {
    /// The longest quiet, in ms, between the caller's words (by their place in [`Self::utterances`]) and the agent's last sound
    /// before the next ones; `None` where the agent had nothing to say.
    pub fn longest_quiet_ms(&self, utterance: usize) -> Option<u64> {
        let agent = Audible::of(&self.recording.agent);
        let mut quiet_from_ms = self.utterances.get(utterance)?.until_ms;
        let next_ms = self.utterances.get(utterance + 1).map_or(self.duration_ms, |next| next.from_ms);
        let mut longest_ms = None;
        while let Some(at_ms) = agent.first(quiet_from_ms, next_ms) {
            longest_ms = longest_ms.max(Some(at_ms.saturating_sub(quiet_from_ms)));
            quiet_from_ms = at_ms + PIECE_MS;
        }
        longest_ms
    }

    pub(crate) fn unanswered(call_sid: &str) -> Self {
        Self {
            call_sid: call_sid.to_owned(),
            outcome: Outcome::Apology,
            duration_ms: 0,
            utterances: Vec::new(),
            barge_ins: Vec::new(),
            counts: Counts::default(),
            recording: Recording::default(),
        }
    }
}

/// Both sides of a call, mono mu-law at 8 kHz, from the stream's start.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// What the caller's side sent.
    pub caller: Vec<u8>,
    /// What was played to the caller.
    pub agent: Vec<u8>,
}

/// One thing the caller said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UtteranceReport {
    /// Its name in the script.
    pub label: String,
    /// Its first audible sound, in ms.
    pub from_ms: u64,
    /// The end of its last audible sound, in ms.
    pub until_ms: u64,
    /// From there to the agent's first audible sound; `None` when none came before the next utterance.
    pub response_ms: Option<u64>,
    /// The agent began to speak before the caller had finished (a barge-in never counts).
    pub cut_off: bool,
}

/// How the agent took an interruption. Spans are from the caller's first audible sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BargeInReport {
    /// Its name in the script.
    pub label: String,
    /// The caller's first audible sound, in ms.
    pub at_ms: u64,
    /// Until `clear` arrived.
    pub clear_ms: Option<u64>,
    /// Until the agent's last sound was played; `None` when it was not speaking.
    pub stopped_ms: Option<u64>,
}

/// What was counted in a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Media messages from the agent's side.
    pub media: u64,
    /// Marks from the agent's side.
    pub marks: u64,
    /// Clears from the agent's side.
    pub clears: u64,
    /// Times the agent's sound ran dry and went on within 200 ms.
    pub gaps: u64,
    /// Most of the agent's sound that waited to be played, in ms; not told of rooms, where none waits.
    pub ahead_ms: u64,
    /// Messages that Twilio would warn of.
    pub warnings: u64,
    /// The caller's frames sent more than 20 ms late: the phone itself had no time.
    pub late_frames: u64,
}

impl Recording {
    /// Writes a WAV at 8 kHz, the caller left and the agent right; the shorter side is filled with silence.
    pub fn write_wav(&self, path: &Path) -> io::Result<()> {
        let spec = hound::WavSpec { channels: 2, sample_rate: 8_000, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
        let mut wav = hound::WavWriter::create(path, spec).map_err(io::Error::other)?;
        let sample = |side: &[u8], at: usize| side.get(at).map_or(0, |&byte| sample_from_mulaw(byte));
        for at in 0..self.caller.len().max(self.agent.len()) {
            wav.write_sample(sample(&self.caller, at)).map_err(io::Error::other)?;
            wav.write_sample(sample(&self.agent, at)).map_err(io::Error::other)?;
        }
        wav.finalize().map_err(io::Error::other)
    }
}

/// Something said, as the script had it.
#[derive(Debug)]
pub(crate) struct Utterance {
    pub(crate) label: String,
    pub(crate) over: bool,
    pub(crate) from_ms: u64,
    pub(crate) until_ms: u64,
}

/// What a call gathers while it runs.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) caller: Vec<u8>,
    pub(crate) agent: Vec<u8>,
    pub(crate) utterances: Vec<Utterance>,
    pub(crate) counts: Counts,
    clears_ms: Vec<u64>,
    dry_ms: Option<u64>,
}

/// Length of a judged piece, in ms and in bytes.
const PIECE_MS: u64 = 10;
const PIECE_BYTES: usize = 80;
/// What is louder than this share of a recording is its loud speech, in percent.
const LOUD_PERCENT: usize = 90;
/// Speech is at most this much weaker in power than the loud speech, 27 dB: the consonant at the end of "much" is 23 dB below.
const SPEECH_BELOW_LOUD: i64 = 500;
/// What is quieter than this share of a recording is its room, in percent; speech has at least 10 dB more.
const ROOM_PERCENT: usize = 8;
const SPEECH_ABOVE_ROOM: i64 = 10;
/// Pieces in a row that are speech and no click.
const SPEECH_PIECES: usize = 3;
/// Quiet before an answer, in ms: what follows sound without it belongs to what was said before.
const ONSET_QUIET_MS: u64 = 200;
/// A pause in the agent's sound shorter than this is a gap, in ms; longer ones are meant.
const GAP_MS_MAX: u64 = 200;

impl Measured {
    /// The caller does as the script says; only speech is measured.
    pub(crate) fn follow(&mut self, now_ms: u64, cue: &Cue) {
        match cue {
            Cue::Start { label, over } => self.utterances.push(Utterance { label: label.clone(), over: *over, from_ms: now_ms, until_ms: now_ms }),
            Cue::Stop => {
                if let Some(utterance) = self.utterances.last_mut() {
                    utterance.until_ms = now_ms;
                }
            }
            Cue::Dtmf(_) | Cue::Stall(_) | Cue::Deaf(_) | Cue::ListenedInVain | Cue::HangUp => {}
        }
    }

    pub(crate) fn cleared(&mut self, at_ms: u64) {
        self.counts.clears += 1;
        self.clears_ms.push(at_ms);
        self.dry_ms = None;
    }

    pub(crate) fn ran_dry(&mut self, at_ms: u64) {
        self.dry_ms = Some(at_ms);
    }

    /// Sound was queued at the far end.
    pub(crate) fn queued(&mut self, at_ms: u64, was_empty: bool) {
        if let Some(dry_ms) = self.dry_ms.take()
            && was_empty
            && (1..=GAP_MS_MAX).contains(&(at_ms - dry_ms))
        {
            self.counts.gaps += 1;
        }
    }

    pub(crate) fn report(self, call_sid: &str, outcome: Outcome, duration_ms: u64) -> CallReport {
        let agent = Audible::of(&self.agent);
        let mut utterances = Vec::new();
        let mut barge_ins = Vec::new();
        for (at, said) in self.utterances.iter().enumerate() {
            let next_ms = self.utterances.get(at + 1).map_or(duration_ms, |next| next.from_ms);
            // one that was never finished lasted until the call's end
            let said_until_ms = if said.until_ms > said.from_ms { said.until_ms } else { duration_ms };
            let speech = speech(&self.caller, said.from_ms, said_until_ms);
            let (from_ms, until_ms) = speech.map_or((said.from_ms, said_until_ms), |speech| (speech.start, speech.end));
            let response_ms = agent.onset(until_ms, next_ms).map(|at_ms| at_ms - until_ms);
            let cut_off = !said.over && agent.onset(from_ms, until_ms).is_some();
            utterances.push(UtteranceReport { label: said.label.clone(), from_ms, until_ms, response_ms, cut_off });
            if said.over {
                let cleared = self.clears_ms.iter().find(|&&at_ms| (from_ms..next_ms).contains(&at_ms));
                barge_ins.push(BargeInReport {
                    label: said.label.clone(),
                    at_ms: from_ms,
                    clear_ms: cleared.map(|at_ms| at_ms - from_ms),
                    stopped_ms: agent.end_of_stretch(from_ms).map(|at_ms| at_ms - from_ms),
                });
            }
        }
        let recording = Recording { caller: self.caller, agent: self.agent };
        let (call_sid, counts) = (call_sid.to_owned(), self.counts);
        CallReport { call_sid, outcome, duration_ms, utterances, barge_ins, counts, recording }
    }
}

/// From the first to the last sound of speech in what was said from `from_ms` to `until_ms`.
fn speech(caller: &[u8], from_ms: u64, until_ms: u64) -> Option<std::ops::Range<u64>> {
    let powers: Vec<i64> = caller.chunks(PIECE_BYTES).take(until_ms.div_ceil(PIECE_MS) as usize).skip((from_ms / PIECE_MS) as usize).map(power).collect();
    let mut sorted = powers.clone();
    sorted.sort_unstable();
    let of_all = |percent: usize| sorted.get(sorted.len().saturating_sub(1) * percent / 100).copied();
    let (loud, room) = (of_all(LOUD_PERCENT)?, of_all(ROOM_PERCENT)?);
    let enough = (loud / SPEECH_BELOW_LOUD).max((room * SPEECH_ABOVE_ROOM).min(loud / 10)).max(AUDIBLE_POWER);
    let is_speech = |run: &[i64]| run.iter().all(|&power| power > enough);
    let first = powers.windows(SPEECH_PIECES).position(is_speech)?;
    let last = powers.windows(SPEECH_PIECES).rposition(is_speech)? + SPEECH_PIECES;
    let at_ms = |piece: usize| from_ms / PIECE_MS * PIECE_MS + piece as u64 * PIECE_MS;
    Some(at_ms(first)..at_ms(last))
}

/// Which pieces of a channel are audible.
struct Audible(Vec<bool>);

impl Audible {
    fn of(sound: &[u8]) -> Self {
        Self(sound.chunks(PIECE_BYTES).map(is_audible).collect())
    }

    fn pieces(&self, from_ms: u64, until_ms: u64) -> std::ops::Range<usize> {
        let until = (until_ms.div_ceil(PIECE_MS) as usize).min(self.0.len());
        ((from_ms / PIECE_MS) as usize).min(until)..until
    }

    /// Start of the first audible piece.
    fn first(&self, from_ms: u64, until_ms: u64) -> Option<u64> {
        self.pieces(from_ms, until_ms).find(|&at| self.0[at]).map(|at| at as u64 * PIECE_MS)
    }

    /// End of the last audible piece.
    fn last(&self, from_ms: u64, until_ms: u64) -> Option<u64> {
        self.pieces(from_ms, until_ms).rfind(|&at| self.0[at]).map(|at| (at as u64 + 1) * PIECE_MS)
    }

    /// Start of the first audible piece that has quiet before it.
    fn onset(&self, from_ms: u64, until_ms: u64) -> Option<u64> {
        self.pieces(from_ms, until_ms).find_map(|at| {
            let at_ms = at as u64 * PIECE_MS;
            let is_onset = self.0[at] && self.first(at_ms.saturating_sub(ONSET_QUIET_MS), at_ms).is_none();
            is_onset.then_some(at_ms)
        })
    }

    /// End of the stretch of sound going on at `at_ms`: until a pause of [`PAUSE_MS`].
    fn end_of_stretch(&self, at_ms: u64) -> Option<u64> {
        let mut end_ms = self.last(at_ms.saturating_sub(PAUSE_MS), at_ms + PIECE_MS)?;
        while let Some(later_ms) = self.last(end_ms, end_ms + PAUSE_MS) {
            end_ms = later_ms;
        }
        Some(end_ms.max(at_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(loud_ms: &[std::ops::Range<u64>]) -> Vec<u8> {
        let loud = |at: u64| loud_ms.iter().any(|range| range.contains(&(at / 8)));
        (0..5_000 * 8).map(|at| if loud(at) { 0x20 } else { 0xFF }).collect()
    }

    fn said(label: &str, over: bool, from_ms: u64, until_ms: u64) -> Utterance {
        Utterance { label: label.to_owned(), over, from_ms, until_ms }
    }

    #[test]
    fn an_answer_and_an_interruption_are_measured_from_the_sound() {
        let mut measured = Measured {
            // 100 ms of quiet around what is said belong to the recording, not to the speech
            caller: channel(&[600..1_000, 2_100..2_700]),
            agent: channel(&[0..400, 1_450..1_700, 1_800..2_260, 3_000..3_500]),
            utterances: vec![said("a", false, 500, 1_100), said("b", true, 2_000, 2_800)],
            ..Measured::default()
        };
        measured.cleared(2_230);
        let report = measured.report("CA1", Outcome::CallerHungUp, 5_000);
        let spans: Vec<_> = report.utterances.iter().map(|said| (said.from_ms, said.until_ms, said.response_ms, said.cut_off)).collect();
        assert_eq!(spans, [(600, 1_000, Some(450), false), (2_100, 2_700, Some(300), false)]);
        let barge_in = BargeInReport { label: "b".to_owned(), at_ms: 2_100, clear_ms: Some(130), stopped_ms: Some(160) };
        assert_eq!(report.barge_ins, [barge_in]);
        assert_eq!((report.longest_quiet_ms(0), report.longest_quiet_ms(1), report.longest_quiet_ms(2)), (Some(450), Some(300), None));
    }

    #[test]
    fn an_agent_that_speaks_into_a_pause_has_cut_the_caller_off() {
        let measured = Measured {
            caller: channel(&[500..1_000, 1_900..2_500]),
            agent: channel(&[1_600..1_800, 1_850..2_000]),
            utterances: vec![said("a", false, 500, 2_500)],
            ..Measured::default()
        };
        let report = measured.report("CA1", Outcome::CallerHungUp, 5_000);
        assert!(report.utterances[0].cut_off);
        assert_eq!(report.utterances[0].response_ms, None);
    }
}
