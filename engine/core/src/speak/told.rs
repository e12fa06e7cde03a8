//! What a playout tells: of the far end, of itself and of what it is given.

use crate::time::MediaTime;

/// What the far end has heard of the current reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlayoutEvent {
    /// The first sound was handed to the line.
    Started,
    /// A phrase was heard to its end. Not told of phrases heard to their end just before a cut: its [`HeardUntil`](crate::leg::HeardUntil) does.
    PhraseHeard(u32),
    /// All of the reply was heard.
    ReplyHeard {
        /// When its last sound was played at the far end.
        at: MediaTime,
    },
}

/// Where the current reply stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlayoutState {
    /// No reply.
    Idle,
    /// Sound is gathered, nothing may be heard yet.
    Waiting,
    /// Committed: heard as it comes.
    Playing,
    /// Silenced, to be resumed or cut.
    Held,
    /// Heard to its end.
    Done,
}

/// What became of a pushed chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// It will be heard in its turn.
    Taken,
    /// Its reply is void, complete or older than the one at hand.
    Old,
    /// Another reply still has the floor; cut it first.
    Busy,
    /// No room.
    Full,
}

/// What went wrong since [`super::Playout::reset`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlayoutCounters {
    /// Times the far end ran dry within a reply.
    pub underruns: u32,
    /// Chunks refused as [`Push::Old`].
    pub old_chunks: u32,
    /// Chunks refused as [`Push::Full`] or [`Push::Busy`].
    pub refused_chunks: u32,
}
