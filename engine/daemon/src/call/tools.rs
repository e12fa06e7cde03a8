//! Tools on their way: each call in a task of its own, which neither the reply's end nor the call's takes back, since what
//! it does may be half done. Its outcome comes back as an input, if somebody is left to take it.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use voiced_core::conversation::Input;
use voiced_core::id::TurnId;
use voiced_core::model::ToolCall;
use voiced_events::deliver::unix_ms;
use voiced_models_remote::tool::{ToolContext, ToolReport};

use super::CallContext;
use crate::replies::Said;

/// Tools of one call that run at once: two rounds of a model's most, should a caller cut in on slow ones again and again.
const RUNNING_MAX: usize = 16;

/// Calls tools for one call.
pub struct ToolRunner {
    places: Arc<Semaphore>,
    said: mpsc::Sender<Said>,
    began_unix_ms: u64,
}

impl ToolRunner {
    /// What comes of the calls goes to `said`.
    pub fn new(said: mpsc::Sender<Said>) -> Self {
        Self { places: Arc::new(Semaphore::new(RUNNING_MAX)), said, began_unix_ms: unix_ms() }
    }

    /// Makes a call.
    pub fn call(&self, context: &CallContext, turn: TurnId, number: u32, call: ToolCall) {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let (agent, metrics, said) = (Arc::clone(&context.agent), Arc::clone(&context.metrics), self.said.clone());
        let session_id = context.session_id.clone();
        let idempotency_key = format!("{session_id}-{}-{number}", self.began_unix_ms);
        let for_tool = ToolContext { session_id, call_sid: context.call_sid.clone(), turn, idempotency_key };
        tokio::spawn(async move {
            let report = match &place {
                Ok(_) => agent.tools.call(&call, &for_tool).await,
                Err(_) => ToolReport::failed("too_many", "too many tools run for this caller already"),
            };
            metrics.tool(&call.name, report.label);
            tracing::info!(session = for_tool.session_id, turn = turn.0, number, tool = call.name, outcome = report.label, "tool called");
            // a call that has ended needs no outcome
            let _ = said.send(Said::Conversation(Input::Tool { number, outcome: report.outcome })).await;
        });
    }
}
