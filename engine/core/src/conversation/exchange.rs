//! What goes into a conversation and what comes out of it.

use crate::event::CallEventKind;
use crate::id::TurnId;
use crate::leg::{Command, LegEvent};
use crate::line::Gone;
use crate::model::{LlmEvent, LlmRequest, SttEvent, ToolCall, ToolOutcome};
use serde::{Deserialize, Serialize};

/// What the agent says by itself, fixed for a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Said as soon as the call is up; `None`: the caller speaks first.
    pub greeting: Option<String>,
    /// Stage in which the call begins.
    pub first_stage: String,
    /// Said at one silence after another; at the silence after the last one the agent says goodbye and hangs up.
    pub silence_prompts: Vec<String>,
    /// Said when a provider has failed for good.
    pub apology: String,
    /// Said one after the other when an answer takes long, before the caller wonders.
    pub fillers: Vec<String>,
    /// Said before the agent hangs up by itself.
    pub goodbye: String,
}

/// What the rim tells about the sound of a reply; the sound itself does not pass through the conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spoken {
    /// Which voice of a chain speaks from here on.
    By(String),
    /// So much more sound of a phrase has come.
    Audio {
        /// Which phrase.
        phrase: u32,
        /// Length of this piece, in ms.
        ms: u32,
    },
    /// The phrase is complete.
    PhraseDone(u32),
    /// No (more) sound of this reply; the text says why and names the provider.
    Failed(String),
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// The leg was admitted: the call is up.
    Started,
    /// From the leg.
    Leg(LegEvent),
    /// From speech to text.
    Stt(SttEvent),
    /// From the language model that was asked by [`Action::Ask`] of this turn and attempt.
    Llm {
        /// Which reply.
        turn: TurnId,
        /// Which attempt at it.
        attempt: u32,
        /// What it says.
        event: LlmEvent,
    },
    /// From the voice that was asked by [`Action::Synthesize`] of this turn and attempt.
    Tts {
        /// Which reply.
        turn: TurnId,
        /// Which attempt at it.
        attempt: u32,
        /// What it says.
        event: Spoken,
    },
    /// From the tool that was called by [`Action::CallTool`] of this number; comes for each, whatever has happened since.
    Tool {
        /// Which call.
        number: u32,
        /// How it went.
        outcome: ToolOutcome,
    },
    /// The caller wrote instead of speaking: a turn of its own.
    Typed(String),
    /// A supervisor tells the agent something that the caller does not hear.
    Whispered(String),
    /// A human takes the agent's place (`false`) or gives it back (`true`): without it the agent only listens.
    AgentMaySpeak(bool),
    /// The line is gone.
    Gone(Gone),
    /// The call has lasted as long as it may.
    MaxDuration,
    /// The line has been dead for too long.
    Idle,
    /// The daemon stops and cannot wait longer.
    Drain,
    /// About every 100 ms: timeouts are looked at.
    Tick,
}

/// One thing to do, in order.
#[derive(Clone, Debug)]
pub enum Action {
    /// Tell the leg.
    Command(Command),
    /// Ask speech to text to settle what it has heard.
    Finalize,
    /// Ask the language model; a session of an older attempt at the same turn (LLM, TTS, sound kept back) is void.
    Ask {
        /// Attempt at this turn's reply, from 0.
        attempt: u32,
        /// The question; `request.turn` names the reply.
        request: LlmRequest,
    },
    /// Drop every LLM and TTS session and all kept sound of turns older than this.
    CancelBefore(TurnId),
    /// Speak a phrase; its sound is kept back until [`Action::Release`] of the same turn and attempt.
    Synthesize {
        /// Which reply.
        turn: TurnId,
        /// Which attempt at it.
        attempt: u32,
        /// Phrase within the reply, from 0.
        phrase: u32,
        /// What to say.
        text: String,
    },
    /// The reply has this many phrases and no more: close the TTS session, and after the last sound send the leg
    /// [`crate::leg::ChunkEnd::Reply`].
    EndReply {
        /// Which reply.
        turn: TurnId,
        /// Which attempt at it.
        attempt: u32,
        /// How many phrases it has.
        phrases: u32,
    },
    /// The turn is over: what was kept back of this reply, and all that follows of it, goes to the leg.
    Release {
        /// Which reply.
        turn: TurnId,
        /// Which attempt at it.
        attempt: u32,
    },
    /// Call a tool, beside the others: the caller's turn is over. It has effects, so nothing takes it back.
    CallTool {
        /// Whose reply waits for it.
        turn: TurnId,
        /// Which call of the conversation, from 0.
        number: u32,
        /// What to call.
        call: ToolCall,
    },
    /// Tell the outside world.
    Report(CallEventKind),
    /// How long each step of an answered turn took.
    Timing(TurnTiming),
    /// The call is over: everything was reported, release what it holds.
    End {
        /// Why, in the words of [`CallEventKind::CallEnded`].
        reason: &'static str,
    },
}

impl Action {
    /// The decision in words, for the record of a call; what tells the leg of the transcript is none.
    pub fn decision(&self) -> Option<String> {
        Some(match self {
            Self::Command(Command::Hint(_)) | Self::Timing(_) => return None,
            Self::Command(command) => format!("{command:?}"),
            Self::Finalize => "asks for a settled text".into(),
            Self::Ask { attempt, request } if request.tries == 0 => format!("asks the model, turn {} attempt {attempt}", request.turn.0),
            Self::Ask { attempt, request } => format!("asks the model to go on, turn {} attempt {attempt}, behind {:?}", request.turn.0, request.begun),
            Self::CancelBefore(turn) => format!("drops replies before turn {}", turn.0),
            Self::Synthesize { turn, attempt, phrase, text } => format!("speaks turn {} attempt {attempt} phrase {phrase}: {text}", turn.0),
            Self::EndReply { turn, attempt, phrases } => format!("turn {} attempt {attempt} has {phrases} phrases", turn.0),
            Self::Release { turn, attempt } => format!("lets turn {} attempt {attempt} be heard", turn.0),
            Self::CallTool { turn, number, call } => format!("calls {} for turn {}, number {number}: {}", call.name, turn.0, call.arguments),
            Self::Report(CallEventKind::CallInitiated { .. }) => "reports the call's begin".into(),
            Self::Report(CallEventKind::Utterance { speaker, text, stage, .. }) => format!("reports {speaker:?} at {stage}: {text}"),
            Self::Report(CallEventKind::CallEnded { final_stage, reason, .. }) => format!("reports the call's end at {final_stage}: {reason}"),
            Self::End { reason } => format!("ends the call: {reason}"),
        })
    }
}

/// Steps of one answered turn, each in ms since the caller's last speech frame; `None`: it did not come to that. A
/// step that came before the caller paused for the last time counts as 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TurnTiming {
    /// Which turn.
    pub turn: TurnId,
    /// The leg decided that the turn is over.
    pub ended_ms: Option<u32>,
    /// The transcript was settled.
    pub transcript_ms: Option<u32>,
    /// The language model's first token.
    pub llm_ms: Option<u32>,
    /// The first phrase went to the voice.
    pub phrase_ms: Option<u32>,
    /// The voice's first sound.
    pub tts_ms: Option<u32>,
    /// The first sound was handed to the line.
    pub reply_ms: Option<u32>,
}
