//! Who has the floor, as states and the moves between them.

use thiserror::Error;

/// Who has the floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The caller, who says nothing yet.
    Listening,
    /// The caller, speaking.
    CallerSpeaking,
    /// The caller paused; the reply is prepared on a guess and nothing of it is heard.
    Pausing,
    /// The agent, whose reply is not audible yet.
    Thinking,
    /// The agent, audible.
    AgentSpeaking,
    /// Nobody surely: the caller spoke over the agent, whose reply is held.
    Held,
    /// The call is over.
    Ended,
}

impl State {
    /// All of them, in the order of a turn.
    pub const ALL: [Self; 7] = [Self::Listening, Self::CallerSpeaking, Self::Pausing, Self::Thinking, Self::AgentSpeaking, Self::Held, Self::Ended];

    /// Where a move leads from here.
    pub fn after(self, step: Move) -> Result<Self, WrongMove> {
        use State::{AgentSpeaking, CallerSpeaking, Ended, Held, Listening, Pausing, Thinking};
        match (self, step) {
            (Listening | Pausing | Thinking, Move::CallerSpeaks) | (Held, Move::Interrupt) => Ok(CallerSpeaking),
            (CallerSpeaking, Move::CallerPauses) | (Listening, Move::WordsCome) => Ok(Pausing),
            (Pausing, Move::TurnEnds) | (Listening, Move::AgentTakesFloor) => Ok(Thinking),
            (Thinking, Move::ReplyHeardFirst) | (Held, Move::LetGo) => Ok(AgentSpeaking),
            (AgentSpeaking, Move::CallerSpeaksOver) => Ok(Held),
            (Pausing, Move::WasNoise) | (Thinking | AgentSpeaking | Held, Move::ReplyHeardOut | Move::ReplyAbandoned) => Ok(Listening),
            (Listening | CallerSpeaking | Pausing | Thinking | AgentSpeaking | Held, Move::HangUp) => Ok(Ended),
            _ => Err(WrongMove { state: self, step }),
        }
    }

    /// The agent can be heard, or has just been held.
    pub fn is_agent_audible(self) -> bool {
        matches!(self, Self::AgentSpeaking | Self::Held)
    }

    /// There is a reply whose speech may be buffered: a guess's, or one that has the floor.
    pub fn has_reply(self) -> bool {
        matches!(self, Self::Pausing | Self::Thinking | Self::AgentSpeaking | Self::Held)
    }
}

/// What moves the floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// The caller began to speak, or went on.
    CallerSpeaks,
    /// The caller fell silent.
    CallerPauses,
    /// The pause was the turn's end.
    TurnEnds,
    /// There was no word before the pause.
    WasNoise,
    /// There were words after all.
    WordsCome,
    /// The agent opens the floor itself.
    AgentTakesFloor,
    /// The reply's first sound went out.
    ReplyHeardFirst,
    /// The caller spoke long enough over the agent to hold it.
    CallerSpeaksOver,
    /// It was a backchannel or a noise.
    LetGo,
    /// It was an interruption.
    Interrupt,
    /// The reply's last sound was played.
    ReplyHeardOut,
    /// The reply is void although nobody interrupted it.
    ReplyAbandoned,
    /// The call ends.
    HangUp,
}

impl Move {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::CallerSpeaks,
        Self::CallerPauses,
        Self::TurnEnds,
        Self::WasNoise,
        Self::WordsCome,
        Self::AgentTakesFloor,
        Self::ReplyHeardFirst,
        Self::CallerSpeaksOver,
        Self::LetGo,
        Self::Interrupt,
        Self::ReplyHeardOut,
        Self::ReplyAbandoned,
        Self::HangUp,
    ];
}

/// A move that its state does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{step:?} is no move from {state:?}")]
pub struct WrongMove {
    /// Where it was tried.
    pub state: State,
    /// What was tried.
    pub step: Move,
}
