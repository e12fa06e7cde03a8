//! Language models as a conversation sees them.

use serde_json::Value;
use tokio::sync::mpsc;
use voiced_core::model::{LlmEvent, LlmRequest};

/// Events that may wait for the conversation: a whole spoken reply, so that a busy conversation never slows the stream.
pub const EVENTS_MAX: usize = 256;

/// A language model that knows the agent's prompt and stages.
pub trait Llm: Send + Sync {
    /// Asks on the current tokio runtime. Dropping the receiver cancels the request. The last event is
    /// [`LlmEvent::Done`] or [`LlmEvent::Failed`].
    fn ask(&self, request: LlmRequest) -> mpsc::Receiver<LlmEvent>;
    /// Makes ready for a question that comes soon, on the current tokio runtime: a connection costs round trips.
    fn warm(&self) {}
}

/// A tool of the operator's as a model sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolDefinition {
    /// What the model calls it by.
    pub name: String,
    /// What it is good for.
    pub description: String,
    /// JSON schema of its arguments.
    pub parameters: Value,
}
