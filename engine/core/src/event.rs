//! What the outside world learns of a call.

use serde::{Deserialize, Serialize};

/// One fact about a call, in the order of `CallEvent::sequence` per call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallEvent {
    /// `phone-{CallSid}` or another session name.
    pub session_id: String,
    /// Twilio's CallSid, where there is one.
    pub call_sid: Option<String>,
    /// Wall clock of the fact, ms since the Unix epoch, taken at the rim.
    pub at_unix_ms: u64,
    /// Counts the call's events from 0.
    pub sequence: u32,
    /// The fact.
    pub kind: CallEventKind,
}

/// The facts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CallEventKind {
    /// The call was taken.
    CallInitiated {
        /// Numbers, direction, transport: text values.
        metadata: std::collections::BTreeMap<String, String>,
        /// Wall clock of the start, ms since the Unix epoch.
        started_at_unix_ms: u64,
    },
    /// Words that were heard.
    Utterance {
        /// `tenant` or `agent` on the wire.
        speaker: EventSpeaker,
        /// Only what was heard.
        text: String,
        /// Counts the call's utterances from 0.
        turn_index: u32,
        /// Stage of the conversation when it was said.
        stage: String,
    },
    /// The call is over.
    CallEnded {
        /// Whole call, s.
        duration_seconds: f64,
        /// Utterances of both sides.
        total_turns: u32,
        /// Stage at the end.
        final_stage: String,
        /// Why: `hung_up`, `agent_hung_up`, `lost`, `idle`, `max_duration`, `refused`, `crashed`, `drained`.
        reason: String,
    },
}

/// Who spoke, in the words of the EMA API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventSpeaker {
    /// The caller.
    Tenant,
    /// The agent.
    Agent,
}
