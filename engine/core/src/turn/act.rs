//! What the turn machine has others do: the leg, the rim, the end-of-turn model.

use crate::id::TurnId;
use crate::leg::LegEvent;
use crate::time::MediaTime;

/// Names a question to the end-of-turn model; an answer must carry it, stale ones are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AskId(pub u32);

/// An answer of the end-of-turn model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// The question it answers.
    pub ask: AskId,
    /// Probability in 0..=1 that the turn is over.
    pub probability: f32,
}

/// What a tick asks of the end-of-turn model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnAsk {
    /// Nothing.
    Nothing,
    /// Snapshot the features and ask the judge.
    Query {
        /// Comes back with the answer.
        ask: AskId,
        /// The features are to be as they were so many frames (10 ms) ago.
        frames_ago: usize,
    },
    /// Reset the features: the caller is silent and whatever comes is a new turn.
    Forget,
}

/// What the leg does for the turn machine, in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Act {
    /// Tell the rim.
    Say(LegEvent),
    /// Void all speech before this turn, and buffer this turn's unheard.
    Prepare {
        /// The turn that is not void.
        turn: TurnId,
        /// Some of what is void may be in the far end's queue.
        audible: bool,
    },
    /// The speech of this turn may be heard.
    Release(TurnId),
    /// Stop at once so that it can go on, and say so.
    Hold {
        /// The held reply.
        turn: TurnId,
        /// First frame of the caller's speech.
        at: MediaTime,
    },
    /// Go on where it was heard, and say so.
    Resume(TurnId),
    /// The held reply is void: say what was heard of it.
    Cut {
        /// The new epoch.
        turn: TurnId,
        /// The reply that is cut.
        cut: TurnId,
        /// First frame of the caller's speech.
        at: MediaTime,
    },
}
