//! When an answer takes long: fillers before the caller wonders, the question behind them when the words came late, and the
//! end of patience with providers.

use super::super::words::normalised;
use super::super::{Action, Conversation, Phase};
use super::{Answer, DELAYED_MS_MAX};
use crate::id::TurnId;
use crate::reply::ReplyId;
use crate::time::MediaTime;

/// From the last word, the caller's or the agent's, to a filler, in ms: with the time that a voice takes, the silence stays
/// below 2 s.
const FILLER_MS: u64 = 1_500;
/// From one filler to the next once all were said, in ms: only tools take so long, and the last one said again and again would
/// sound like a broken record.
const REFILL_MS: u64 = 5_000;
/// Tools answer or fail by their own limit, a minute at most; none that stays silent for so long, in ms, does.
const TOOLS_MS_MAX: u64 = 65_000;
/// No sign of life of the model or the voice for this long, in ms, once the caller waits: longer nobody stays on the line.
const THINKING_MS_MAX: u64 = 8_000;

impl Conversation {
    /// Says the next filler when the caller has waited long in silence.
    pub(super) fn fill(&mut self, now: MediaTime, actions: &mut Vec<Action>) {
        let waits = self.caller.delayed || self.answer.as_ref().is_some_and(|answer| answer.asked.is_some() && answer.released_at.is_some());
        let (Some(quiet_since), Some(turn)) = (self.quiet_since(), self.turn_answered()) else { return };
        let said = self.answer.as_ref().map_or(0, |answer| answer.fillers);
        let tools = self.answer.as_ref().is_some_and(|answer| answer.tools.are_running());
        let (filler, patience_ms) = match (self.settings.fillers.get(said), self.settings.fillers.last()) {
            (Some(next), _) => (next, FILLER_MS),
            (None, Some(last)) if tools => (last, REFILL_MS),
            (None, _) => return,
        };
        let may = !self.relieved && !self.held && self.ending.is_none();
        if !waits || !may || now.since(quiet_since) < patience_ms {
            return;
        }
        let filler = filler.clone();
        if !self.released() {
            // the words to answer are still to come
            let attempt = self.next_attempt();
            self.answer = Some(Answer::new(ReplyId { turn, attempt }, Some(String::new()), now));
            self.release(now, actions);
        }
        if let Some(answer) = self.answer.as_mut().filter(|answer| !answer.closed) {
            answer.fillers += 1;
            let phrases = answer.reply.interject(&filler);
            answer.synthesize(now, phrases, actions);
        }
    }

    /// Since when the caller, who waits for the agent, hears nothing.
    fn quiet_since(&self) -> Option<MediaTime> {
        let answer = self.answer.as_ref();
        match self.phase {
            Phase::Answering { spoke_at, .. } => answer.is_none_or(|answer| answer.reply.phrases() == 0 || answer.released_at.is_none()).then_some(spoke_at),
            Phase::Speaking { .. } => answer.filter(|answer| !answer.closed && answer.reply.is_heard())?.heard_at,
            Phase::Listening | Phase::Thinking { .. } => None,
        }
    }

    fn turn_answered(&self) -> Option<TurnId> {
        match self.phase {
            Phase::Answering { turn, .. } | Phase::Speaking { turn } => Some(turn),
            Phase::Listening | Phase::Thinking { .. } => None,
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
        let patience_ms = if answer.tools.are_running() { TOOLS_MS_MAX } else { THINKING_MS_MAX };
        if !answer.closed && now.since(answer.progress_at.max(released_at)) >= patience_ms {
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
