//! The account of a call: what was said and heard, in which stage, in which order.

use super::exchange::Action;
use crate::event::{CallEventKind, EventSpeaker};
use crate::model::{Message, Speaker};
use crate::time::MediaTime;

/// Messages of the history at most, an hour of lively talk; the oldest are forgotten first.
const HISTORY_MESSAGES_MAX: usize = 256;

/// Characters of a supervisor's message at most: a minute of speech.
const WHISPER_CHARS_MAX: usize = 1_000;
/// Bytes of a message from which on nothing more is merged into it.
const MESSAGE_BYTES_MERGED_MAX: usize = 8_192;

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

    fn remember(&mut self, speaker: Speaker, text: &str) {
        push(&mut self.history, speaker, text);
        if self.history.len() > HISTORY_MESSAGES_MAX {
            self.history.remove(0);
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

/// What a caller says in two goes, with nothing heard between, is one message: it has had no answer yet.
fn push(history: &mut Vec<Message>, speaker: Speaker, text: &str) {
    match history.last_mut() {
        Some(last) if last.speaker == speaker && last.text.len() < MESSAGE_BYTES_MERGED_MAX => {
            last.text.push(' ');
            last.text.push_str(text);
        }
        _ => history.push(Message { speaker, text: text.to_owned() }),
    }
}
