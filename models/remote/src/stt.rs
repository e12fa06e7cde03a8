//! Speech to text as a conversation sees it.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use voiced_core::model::SttEvent;

/// Pieces of sound (10 to 20 ms each) that may wait for a session: 5 s and more, longer than any wait for a socket that is not
/// yet given up. A full channel means the session is stuck; `try_send` and count what does not fit.
pub const INPUT_MAX: usize = 512;
/// Events that may wait for the conversation; a provider sends a few per second.
pub const EVENTS_MAX: usize = 64;

/// A speech-to-text provider; the encoding and rate of the sound are fixed when it is built.
pub trait Stt: Send + Sync {
    /// What its sessions are to be fed.
    fn feed(&self) -> SttFeed;
    /// Opens a session on the current tokio runtime; it connects by itself. A failure comes as [`SttEvent::Failed`].
    fn open(&self) -> SttSession;
}

/// One caller's session. Dropping it, or its `events`, cancels it.
#[derive(Debug)]
pub struct SttSession {
    /// Where sound goes.
    pub input: mpsc::Sender<SttInput>,
    /// What was understood; closes after `Failed` or after the answer to [`SttInput::Close`].
    pub events: mpsc::Receiver<SttEvent>,
    /// After `Failed`: the sound that no settled text covers, for another provider.
    pub unsettled: oneshot::Receiver<Vec<Bytes>>,
}

/// What a conversation tells a session.
#[derive(Clone, Debug, PartialEq)]
pub enum SttInput {
    /// Sound in the provider's encoding.
    Audio(Bytes),
    /// The caller began to speak, up to half a second ago. Without it a session that bills by what it hears may leave silence out.
    Speaks,
    /// Settle everything sent so far, soon; answered by [`SttEvent::Finalized`].
    Finalize,
    /// No more sound: settle what is left, then end the session.
    Close,
}

/// What a session of speech to text is fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SttFeed {
    /// The line's own mu-law packets at 8 kHz, all of them.
    Line,
    /// What the leg heard, 16-bit at 16 kHz, all of it.
    Heard,
    /// The same, while someone speaks: a session for each turn.
    Turns,
}

/// How the sound of a session is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SttEncoding {
    /// G.711 mu-law at 8 kHz, a byte a sample: a telephone leg's payload straight through.
    Mulaw8000,
    /// Signed 16-bit little-endian samples at this rate, in Hz.
    Linear16(u32),
}

impl SttEncoding {
    /// Bytes of one second of sound.
    pub const fn bytes_per_second(self) -> usize {
        match self {
            Self::Mulaw8000 => 8_000,
            Self::Linear16(rate_hz) => rate_hz as usize * 2,
        }
    }
}
