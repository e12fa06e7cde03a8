//! A caller who speaks over the agent: hold first, decide then.
//!
//! A hold is cheap and can be undone, so little speech is enough for it: a person who is interrupted stops at once.
//! Whether it was an interruption takes longer to know. Words that are more than "mhm" say yes; going on for more than
//! a short word's length says yes; falling silent soon without such words says no, and the agent goes on where it was.

use crate::leg::TranscriptHint;

/// The reply's first sound comes back as echo before any canceller has learned it, for this long, in ms.
const ECHO_MS: u64 = 300;
/// Speech needed beyond the usual while it may be echo, in ms: two windows more.
const ECHO_EVIDENCE_MS: u64 = 64;
/// Speech that is an interruption whatever it says, in ms: longer than nearly all backchannels.
const INTERRUPTION_MS: u64 = 600;
/// Words that are an interruption however short.
const INTERRUPTION_WORDS: u16 = 2;
/// Quiet after which a short sound was none, in ms.
const LET_GO_MS: u64 = 350;
/// Speech shorter than this is let go at the first opportunity, in ms.
const SHORT_MS: u64 = 500;
/// Quiet after which a longer or half-understood sound is decided too, in ms: transcripts are in by then.
const SETTLED_MS: u64 = 700;
/// An endless "mhm", or noise, is decided after this, in ms.
const HELD_MS_MAX: u64 = 3_000;

/// What a hold turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Too early to know.
    Undecided,
    /// The caller wants the floor.
    Interruption,
    /// The caller only nodded, or coughed.
    Backchannel,
}

/// Speech over the agent needed before it is held, in ms.
pub fn evidence_to_hold_ms(hold_ms: u32, reply_heard_ms: u64) -> u64 {
    u64::from(hold_ms) + if reply_heard_ms < ECHO_MS { ECHO_EVIDENCE_MS } else { 0 }
}

/// Judges a hold of `held_ms` in which the caller spoke for `speech_ms` and has now been quiet for `quiet_ms`.
pub fn judge(speech_ms: u64, quiet_ms: u64, held_ms: u64, hint: TranscriptHint) -> Judgement {
    let nod = hint.words > 0 && hint.backchannel;
    let some_word = hint.words > 0 && !hint.backchannel;
    if has_words(hint) || (speech_ms >= INTERRUPTION_MS && !nod) || held_ms >= HELD_MS_MAX {
        return Judgement::Interruption;
    }
    let settled = quiet_ms >= SETTLED_MS;
    if some_word {
        return if settled { Judgement::Interruption } else { Judgement::Undecided };
    }
    if settled || (quiet_ms >= LET_GO_MS && (nod || speech_ms < SHORT_MS)) {
        return Judgement::Backchannel;
    }
    Judgement::Undecided
}

/// The transcript alone shows an interruption.
pub fn has_words(hint: TranscriptHint) -> bool {
    !hint.backchannel && (hint.words >= INTERRUPTION_WORDS || (hint.words > 0 && hint.settled))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(words: u16, backchannel: bool, settled: bool) -> TranscriptHint {
        TranscriptHint { words, backchannel, settled, ..TranscriptHint::default() }
    }

    #[test]
    fn a_hold_is_judged_by_length_quiet_and_words() {
        use Judgement::{Backchannel, Interruption, Undecided};
        let silent = TranscriptHint::default();
        for (speech_ms, quiet_ms, hint, expected) in [
            (300, 0, silent, Undecided),
            (300, 340, silent, Undecided),
            (300, 350, silent, Backchannel),
            (550, 350, silent, Undecided),
            (550, 700, silent, Backchannel),
            (600, 0, silent, Interruption),
            (100, 0, hint(2, false, false), Interruption),
            (100, 0, hint(1, false, true), Interruption),
            (100, 350, hint(1, false, false), Undecided),
            (100, 700, hint(1, false, false), Interruption),
            (900, 100, hint(2, true, true), Undecided),
            (900, 350, hint(2, true, true), Backchannel),
        ] {
            assert_eq!(judge(speech_ms, quiet_ms, 1_000, hint), expected, "{speech_ms} {quiet_ms} {hint:?}");
        }
        assert_eq!(judge(900, 0, 3_000, hint(2, true, false)), Interruption);
    }

    #[test]
    fn what_may_be_echo_needs_more_speech() {
        assert!(evidence_to_hold_ms(60, 100) > evidence_to_hold_ms(60, 300));
    }
}
