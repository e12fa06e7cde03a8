//! Tools: what a model wants to know or to have done before it goes on with its answer.
//!
//! The calls wait with the answer until it is released: they have effects, so no guess may make them. Then all of a round
//! run at once, and the model is asked again with what came of them. Nothing takes a call back. When the caller cuts in
//! meanwhile, the call stays in the history as running, and its outcome is put there when it comes: the model of the next
//! turn knows both, and nothing stale is said.

use super::super::{Action, Conversation};
use super::Answer;
use crate::model::{Called, TOOL_ROUNDS_MAX, ToolCall, ToolOutcome, ToolRound};
use crate::reply::Reply;
use crate::time::MediaTime;

/// What one answer's model has called.
#[derive(Debug, Default)]
pub(super) struct Tools {
    rounds: Vec<ToolRound>,
    /// Not run yet: the answer is a guess, or the model has not finished.
    waiting: Vec<ToolCall>,
    /// Run, and their outcomes as they come.
    running: Vec<Called>,
    /// Where the text since the last round begins.
    since: u32,
}

impl Tools {
    /// The model calls these.
    pub fn called(&mut self, calls: Vec<ToolCall>) {
        self.waiting.extend(calls);
    }

    /// The model has failed before they were run: they are not run at all.
    pub fn take_back(&mut self) {
        self.waiting.clear();
    }

    /// Some are called and wait to be run.
    pub fn are_called(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The model waits for some.
    pub fn are_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// What was called before and answered.
    pub fn rounds(&self) -> &[ToolRound] {
        &self.rounds
    }

    /// What the reply has said since the last round.
    pub fn text_since(&self, reply: &Reply) -> String {
        reply.text_from(self.since)
    }

    fn into_called(self) -> impl Iterator<Item = Called> {
        self.rounds.into_iter().flat_map(|round| round.called).chain(self.running)
    }
}

impl Conversation {
    /// The model has said all it can without its tools.
    pub(super) fn tools_called(&mut self, now: MediaTime, actions: &mut Vec<Action>) {
        let Some(answer) = &mut self.answer else { return };
        if answer.tools.rounds.len() >= TOOL_ROUNDS_MAX {
            answer.closed = true;
            answer.model_failed = true;
            if answer.released_at.is_some() {
                self.apologise(now, actions);
            }
            return;
        }
        // what it has said meanwhile need not wait
        let phrases = answer.reply.pause();
        answer.synthesize(now, phrases, actions);
        if answer.released_at.is_some() {
            self.run_tools(actions);
        }
    }

    /// Runs what is called; the answer is no guess any more.
    pub(super) fn run_tools(&mut self, actions: &mut Vec<Action>) {
        let Some(answer) = &mut self.answer else { return };
        let turn = answer.reply.id.turn;
        for call in answer.tools.waiting.drain(..) {
            let number = self.tools_called;
            self.tools_called = self.tools_called.wrapping_add(1);
            actions.push(Action::CallTool { turn, number, call: call.clone() });
            answer.tools.running.push(Called { number, call, outcome: None });
        }
    }

    /// A tool has answered, or not; with the last of a round the model goes on.
    pub(in super::super) fn tool_says(&mut self, now: MediaTime, number: u32, outcome: ToolOutcome, actions: &mut Vec<Action>) {
        let of_answer = self.answer.as_mut().filter(|answer| answer.tools.running.iter().any(|called| called.number == number));
        let Some(answer) = of_answer else {
            return self.account.tool_answered(number, outcome);
        };
        for called in answer.tools.running.iter_mut().filter(|called| called.number == number) {
            called.outcome = Some(outcome.clone());
        }
        if answer.closed || answer.tools.running.iter().any(|called| called.outcome.is_none()) {
            return;
        }
        answer.progress_at = now;
        let said = answer.tools.text_since(&answer.reply);
        answer.tools.since = answer.reply.phrases();
        let called = std::mem::take(&mut answer.tools.running);
        answer.tools.rounds.push(ToolRound { said, called });
        self.ask_model(String::new(), actions);
    }

    /// The answer is over: what it has called stays known.
    pub(in super::super) fn let_go(&mut self) -> Option<Answer> {
        let mut answer = self.answer.take()?;
        for called in std::mem::take(&mut answer.tools).into_called() {
            self.account.called(called);
        }
        Some(answer)
    }
}
