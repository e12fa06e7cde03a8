//! What the engine asks of models: the traits that the tick calls over many calls at once, and the values that
//! speech, language and voice models exchange with a conversation.

use crate::frame::HeardFrame;
use crate::id::TurnId;
use serde::{Deserialize, Serialize};

/// Samples in one window of voice activity, 32 ms at 16 kHz.
pub const VAD_WINDOW: usize = 512;
/// Mel bands of the end-of-turn features.
pub const TURN_MELS: usize = 80;
/// Frames of 10 ms that an end-of-turn query looks back, 8 s.
pub const TURN_FRAMES: usize = 800;

/// Voice activity over all calls of one audio thread. State is kept per slot. Must not allocate after construction.
pub trait VoiceActivity: Send {
    /// Writes the probability of speech of each window to `probabilities`; `slots[i]` owns `windows[i]`.
    fn run(&mut self, slots: &[usize], windows: &[[f32; VAD_WINDOW]], probabilities: &mut [f32]);
    /// Forgets the state of a slot, for its next call.
    fn reset(&mut self, slot: usize);
}

/// The band that a line carries, which decides from how much noise on its cancellation does more good than harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Band {
    /// 300 to 3400 Hz.
    Telephone,
    /// Up to 8 kHz.
    Wide,
}

/// Noise cancellation over all calls of one audio thread, in place. Must not allocate after construction.
pub trait Denoise: Send {
    /// Cleans `frames[i]`, owned by `slots[i]`.
    fn run(&mut self, slots: &[usize], frames: &mut [HeardFrame]);
    /// Forgets the state of a slot, for its next call, whose line carries this band.
    fn reset(&mut self, slot: usize, band: Band);
}

/// The cheap half of end of turn, on the tick: features of the last 8 s of each slot. Must not allocate after construction.
pub trait TurnFeatures: Send {
    /// Takes the next 10 ms of a slot.
    fn push(&mut self, slot: usize, frame: &HeardFrame);
    /// Writes what [`TurnJudge::judge`] needs about a slot as it was so many frames ago.
    fn query(&mut self, slot: usize, frames_ago: usize, query: &mut TurnQuery);
    /// Forgets a slot's sound: for its next call, or when a new turn starts.
    fn reset(&mut self, slot: usize);
}

/// A question to the end-of-turn model, made once and reused: `features[mel * TURN_FRAMES + frame]`, real sound at the end.
pub struct TurnQuery {
    /// Normalised log-mel features, `TURN_MELS` × `TURN_FRAMES`, as the model wants them.
    pub features: Box<[f32]>,
    /// Frames of real sound; what lies before them is padding.
    pub frames: usize,
}

impl Default for TurnQuery {
    fn default() -> Self {
        Self { features: vec![0.0; TURN_MELS * TURN_FRAMES].into_boxed_slice(), frames: 0 }
    }
}

/// The slow half of end of turn, on a worker.
pub trait TurnJudge: Send {
    /// Probability in 0..=1 that the caller's turn is over.
    fn judge(&mut self, query: &TurnQuery) -> f32;
}

/// What a speech-to-text session says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SttEvent {
    /// The current guess of what follows the last `Final`; replaces the one before.
    Interim(String),
    /// A settled piece of text, to be appended to the turn.
    Final(String),
    /// Everything sent before our request to finalise is settled.
    Finalized,
    /// Another provider, or another connection to the same, hears on, beginning with the sound that was not settled; the text
    /// says why. Words take longer now, and the last guess is of their beginning only.
    Switched(String),
    /// The session is over; the text says why and names the provider.
    Failed(String),
}

/// Rounds of tool calls for one reply at most; then the model has to speak: a caller does not wait for more.
pub const TOOL_ROUNDS_MAX: usize = 4;

/// What a language model (or the offline script) answers for one turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LlmEvent {
    /// Which model of a chain answers.
    By(String),
    /// A piece of the text to speak.
    Token(String),
    /// The conversation moves to this stage.
    Stage(String),
    /// The agent wants to end the call after this reply.
    HangUp,
    /// The model needs what these tools answer before it goes on; its words so far stand, and [`LlmEvent::Done`] follows.
    Calls(Vec<ToolCall>),
    /// The reply is complete.
    Done,
    /// No (more) answer; the text says why and names the provider.
    Failed(String),
}

/// Who said a message of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Speaker {
    /// The caller (a tenant, in EMA's words).
    Caller,
    /// The agent.
    Agent,
    /// A human who tells the agent what to do; the caller does not hear it.
    Supervisor,
}

/// A tool of the operator's that a model calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Which tool.
    pub name: String,
    /// The arguments as the model wrote them: a JSON object, if it did well.
    pub arguments: String,
}

/// How a tool's call went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToolOutcome {
    /// What it answered.
    Answered(String),
    /// Why there is no answer, in words for the model.
    Failed(String),
}

/// A tool's call and how it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    /// Which call of the conversation, from 0.
    pub number: u32,
    /// What was called.
    pub call: ToolCall,
    /// `None`: it runs.
    pub outcome: Option<ToolOutcome>,
}

/// What a model said and called before it goes on with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolRound {
    /// Its words before the calls, possibly none.
    pub said: String,
    /// The calls, all answered.
    pub called: Vec<Called>,
}

/// One entry of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Words that were heard.
    Said {
        /// Who said it.
        speaker: Speaker,
        /// The words.
        text: String,
    },
    /// A tool that the agent called.
    Called(Called),
}

impl Message {
    /// Words of somebody's.
    pub fn said(speaker: Speaker, text: impl Into<String>) -> Self {
        Self::Said { speaker, text: text.into() }
    }

    /// The words, where this one has said some.
    pub fn by(&self, who: Speaker) -> Option<&str> {
        match self {
            Self::Said { speaker, text } if *speaker == who => Some(text),
            _ => None,
        }
    }
}

/// A question to a language model.
#[derive(Clone, Debug, PartialEq)]
pub struct LlmRequest {
    /// The epoch that this reply belongs to.
    pub turn: TurnId,
    /// The conversation's stage now.
    pub stage: String,
    /// The heard conversation, the caller's newest turn last.
    pub history: Vec<Message>,
    /// What the model called for this answer already; with [`TOOL_ROUNDS_MAX`] of them it may call no more.
    pub rounds: Vec<ToolRound>,
    /// What the agent has said of this answer already, when a model broke off: only what follows is asked for.
    pub begun: String,
    /// How many times this answer was asked for before: a chain of models begins with another one each time.
    pub tries: u32,
}

/// What a text-to-speech session says; phrases come in the order they were asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum TtsEvent {
    /// Which voice of a chain speaks from here on.
    By(String),
    /// Sound of a phrase: mono 16-bit at the session's rate.
    Audio {
        /// Which phrase.
        phrase: u32,
        /// The samples.
        samples: Vec<i16>,
    },
    /// The phrase is complete.
    PhraseDone(u32),
    /// The session is over; the text says why and names the provider.
    Failed(String),
}
