//! The account of a call: what was said and heard, in which stage, in which order.

use super::exchange::Action;
use crate::event::{CallEventKind, EventSpeaker};
use crate::model::{Called, Message, Speaker, ToolOutcome};
use crate::time::MediaTime;

/// Messages of the history at most, an hour of lively talk; the oldest are forgotten first.
const HISTORY_MESSAGES_MAX: usize = 256;

/// Characters of a supervisor's message at most: a minute of speech.
const WHISPER_CHARS_MAX: usize = 1_000;
/// Bytes of a message from which on nothing more is merged into it.
const MESSAGE_BYTES_MERGED_MAX: usize = 8_192;
/// Bytes of tools' answers in the history at most; the oldest are forgotten first: a model has to read all of them each turn.
const TOOL_BYTES_MAX: usize = 64 * 1024;

/// The heard history, the stage and the count of utterances.
#[derive(Debug)]
pub(super) struct Account {
    pub stage: String,
    history: Vec<Message>,
    utterances: u32,
}

impl Account {
    pub fn new(first_stage: String) -> Self {
        Self { stage: first_stage, history: Vec::new(), utterances: 0 }
    }

    /// Reports words that were said and heard; no words, no utterance.
    pub fn utterance(&mut self, speaker: Speaker, text: &str, stage: &str, actions: &mut Vec<Action>) {
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        actions.push(Action::Report(CallEventKind::Utterance {
            speaker: match speaker {
                Speaker::Caller => EventSpeaker::Tenant,
                Speaker::Agent => EventSpeaker::Agent,
                Speaker::Supervisor => return,
            },
            text: text.to_owned(),
            turn_index: self.utterances,
            stage: stage.to_owned(),
        }));
        self.utterances = self.utterances.saturating_add(1);
        self.remember(speaker, text);
    }

    /// Keeps what a supervisor tells the agent: nobody else hears it, so it is no utterance.
    pub fn whispered(&mut self, text: &str) {
        let text: String = text.trim().chars().take(WHISPER_CHARS_MAX).collect();
        if !text.is_empty() {
            self.remember(Speaker::Supervisor, &text);
        }
    }

    /// Keeps a tool's call of a reply that is over, answered or not.
    pub fn called(&mut self, called: Called) {
        self.history.push(Message::Called(called));
        self.forget();
    }

    /// A tool answers whose reply is over: the model of the next turn is to know it.
    pub fn tool_answered(&mut self, number: u32, outcome: ToolOutcome) {
        let running = self.history.iter_mut().find_map(|message| match message {
            Message::Called(called) if called.number == number && called.outcome.is_none() => Some(called),
            _ => None,
        });
        if let Some(called) = running {
            called.outcome = Some(outcome);
            self.forget();
        }
    }

    fn remember(&mut self, speaker: Speaker, text: &str) {
        push(&mut self.history, speaker, text);
        self.forget();
    }

    fn forget(&mut self) {
        if self.history.len() > HISTORY_MESSAGES_MAX {
            self.history.remove(0);
        }
        while self.history.iter().map(tool_bytes).sum::<usize>() > TOOL_BYTES_MAX
            && let Some(oldest) = self.history.iter().position(|message| matches!(message, Message::Called(_)))
        {
            self.history.remove(oldest);
        }
    }

    /// The history with the caller's newest words, not reported yet, last.
    pub fn history_with(&self, caller: &str) -> Vec<Message> {
        let mut history = self.history.clone();
        if !caller.is_empty() {
            push(&mut history, Speaker::Caller, caller);
        }
        history
    }

    pub fn ended(&self, now: MediaTime, reason: &str, actions: &mut Vec<Action>) {
        actions.push(Action::Report(CallEventKind::CallEnded {
            duration_seconds: now.ms() as f64 / 1_000.0,
            total_turns: self.utterances,
            final_stage: self.stage.clone(),
            reason: reason.to_owned(),
        }));
    }
}

fn tool_bytes(message: &Message) -> usize {
    match message {
        Message::Called(Called { call, outcome, .. }) => {
            let answer = outcome.as_ref().map_or(0, |(ToolOutcome::Answered(text) | ToolOutcome::Failed(text))| text.len());
            call.arguments.len() + answer
        }
        Message::Said { .. } => 0,
    }
}

/// What a caller says in two goes, with nothing heard between, is one message: it has had no answer yet.
fn push(history: &mut Vec<Message>, who: Speaker, more: &str) {
    match history.last_mut() {
        Some(Message::Said { speaker, text }) if *speaker == who && text.len() < MESSAGE_BYTES_MERGED_MAX => {
            text.push(' ');
            text.push_str(more);
        }
        _ => history.push(Message::said(who, more)),
    }
}
