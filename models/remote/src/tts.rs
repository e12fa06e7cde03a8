//! Text to speech as a conversation sees it.

use tokio::sync::mpsc;
use voiced_core::model::TtsEvent;
use voiced_core::reply::REPLY_CHARS_MAX;

/// Inputs of one reply that may wait for the voice: a phrase for each character of the longest, its fillers and its end.
/// None may find the voice full, for it would not be spoken.
pub const INPUT_MAX: usize = REPLY_CHARS_MAX + 64;
/// Pieces of sound that may wait for the conversation. When full, the provider is not read: playout is slower than
/// synthesis, so this is what holds the provider back.
pub const EVENTS_MAX: usize = 64;
/// Longest piece of sound in one event, in samples: 100 ms at 24 kHz, so that the first sound of a large chunk is not
/// held back by its copy, and a full channel stays below 7 s.
pub const AUDIO_SAMPLES_MAX: usize = 2_400;

/// A voice.
pub trait Tts: Send + Sync {
    /// Rate of all samples of all sessions.
    fn rate_hz(&self) -> u32;
    /// Opens the session of one reply on the current tokio runtime; it connects by itself. A failure comes as
    /// [`TtsEvent::Failed`].
    fn open(&self) -> TtsSession;
    /// Makes ready for a reply that comes soon, on the current tokio runtime: a connection costs round trips.
    fn warm(&self) {}
}

/// The voice of one reply. Dropping it, or its `events`, cancels it.
#[derive(Debug)]
pub struct TtsSession {
    /// Where phrases go, in the order in which they are to be spoken; takes [`INPUT_MAX`] before the first of them is.
    pub input: mpsc::Sender<TtsInput>,
    /// Sound, in the same order; closes after the last phrase's `PhraseDone` or after `Failed`.
    pub events: mpsc::Receiver<TtsEvent>,
}

/// What a conversation tells a voice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TtsInput {
    /// A phrase to speak.
    Phrase {
        /// The caller's name for it, given back with its sound.
        phrase: u32,
        /// The words.
        text: String,
    },
    /// No more phrases: finish those that were given. Dropping `input` means the same.
    End,
}
