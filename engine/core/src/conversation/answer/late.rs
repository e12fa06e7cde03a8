//! When an answer takes long: a filler before the caller wonders, the question behind it when the words came late, and the
//! end of patience with providers.

use super::super::words::normalised;
use super::super::{Action, Conversation, Phase};
use super::{Answer, DELAYED_MS_MAX};
use crate::id::TurnId;
use crate::reply::ReplyId;
use crate::time::MediaTime;

/// From the caller's last word to the filler, in ms: with the time that a voice takes, the silence stays below 2 s.
const FILLER_MS: u64 = 1_500;
/// No sign of life of the model or the voice for this long, in ms, once the caller waits: longer nobody stays on the line.
const THINKING_MS_MAX: u64 = 8_000;

impl Conversation {
    /// Says the filler, once, when the caller has waited long for the first phrase.
    pub(super) fn fill(&mut self, now: MediaTime, actions: &mut Vec<Action>) {
        let Phase::Answering { turn, spoke_at, .. } = self.phase else { return };
        let waits = self.caller.delayed || self.answer.as_ref().is_some_and(|answer| answer.asked.is_some() && answer.released_at.is_some());
        if !waits || now.since(spoke_at) < FILLER_MS || self.settings.filler.is_empty() || self.relieved || self.ending.is_some() {
            return;
        }
        if !self.released() {
            // the words to answer are still to come
            let attempt = self.next_attempt();
            self.answer = Some(Answer::new(ReplyId { turn, attempt }, Some(String::new()), now));
            self.release(now, actions);
        }
        if let Some(answer) = self.answer.as_mut().filter(|answer| !answer.closed && answer.reply.phrases() == 0) {
            let phrases = answer.reply.interject(&self.settings.filler);
            answer.synthesize(now, phrases, actions);
        }
    }

    /// Asks the model behind a filler that was said before the words came.
    pub(super) fn ask_late(&mut self, now: MediaTime, turn: TurnId, actions: &mut Vec<Action>) {
        let unasked = |answer: &Answer| answer.reply.id.turn == turn && answer.asked.as_ref().is_some_and(String::is_empty) && !answer.closed;
        if !self.answer.as_ref().is_some_and(unasked) {
            return;
        }
        let waited_ms = self.owed.as_ref().map_or(DELAYED_MS_MAX, |owed| now.since(owed.ended_at));
        let words = normalised(&self.caller.text());
        if words.is_empty() && self.caller.delayed && waited_ms < DELAYED_MS_MAX || !words.is_empty() && !self.trusted(now, waited_ms) {
            return;
        }
        if words.is_empty() {
            self.apologise(now, actions);
        } else if let Some(answer) = &mut self.answer {
            (answer.asked, answer.progress_at) = (Some(words), now);
            self.ask_model(String::new(), actions);
        }
    }

    /// Gives up on a provider that does not answer while the caller waits.
    pub(super) fn watch(&mut self, now: MediaTime, actions: &mut Vec<Action>) {
        let Some(answer) = &mut self.answer else { return };
        let Some(released_at) = answer.released_at else { return };
        if !answer.closed && now.since(answer.progress_at.max(released_at)) >= THINKING_MS_MAX {
            answer.closed = true;
            self.apologise(now, actions);
            return;
        }
        let waiting = matches!(self.phase, Phase::Answering { .. });
        if let Some(phrase_at) = answer.phrase_at
            && waiting
            && now.since(phrase_at.max(released_at)) >= THINKING_MS_MAX
        {
            self.voice_failed(now, actions);
        }
    }
}
