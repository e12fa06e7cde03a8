//! Thinking ahead: the reply is asked for while the end of the turn is still open, and released when it is certain.
//!
//! At a pause the language model is asked with the words so far; when they change it is asked again as another
//! attempt, which voids the one before. Nothing leaves before the turn has ended *and* the words are trusted: settled
//! by the provider, or complete and stable, or waited for long enough. A model that breaks off is asked again for what
//! follows its last whole phrase; a provider that fails for good or is silent for too long (`late`) costs the reply, not the
//! call: the agent apologises (`failed`). A model may call tools before it goes on (`tools`).

mod failed;
mod late;
mod tools;

use super::words::normalised;
use super::{Action, Conversation, Owed, Phase, Spoken, TurnTiming};
use crate::id::TurnId;
use crate::leg::TextEnding;
use crate::model::{LlmEvent, LlmRequest, Speaker};
use crate::reply::{Reply, ReplyId};
use crate::time::MediaTime;
use tools::Tools;

/// Interim words unchanged for this long, in ms, are stable: interims come every 50 to 200 ms.
const STABLE_MS: u64 = 150;
/// After the turn's end a settled transcript is waited for this long, in ms: providers settle within 300 ms or so.
pub(super) const SETTLE_MS: u64 = 600;
/// After the turn's end any word at all is waited for this long, in ms: a slow provider, or a noise and no words.
const NO_WORDS_MS: u64 = 2_000;
/// Attempts made as soon as words change: the last words of a turn come some 200 ms after it, and waiting until they
/// are stable would cost every reply that time.
const EAGER_ATTEMPTS_MAX: u32 = 3;
/// Attempts while the turn's end is open: a provider that changes its mind all the time must not cost more.
const SPECULATIVE_ATTEMPTS_MAX: u32 = 5;
/// After the turn's end any word is waited for this long, in ms, when another provider hears the turn anew.
const DELAYED_MS_MAX: u64 = 8_000;
/// Times that a model which broke off is asked to go on.
const CONTINUATIONS_MAX: u32 = 2;

/// A reply in preparation or being heard.
#[derive(Debug)]
pub(super) struct Answer {
    pub reply: Reply,
    /// The caller's words it answers, normalised; `None`: the agent speaks by itself.
    asked: Option<String>,
    /// The stage it moves to, once it is heard.
    stage: Option<String>,
    /// The stage it moved away from.
    stage_before: Option<String>,
    /// Hang up after it, for this reason.
    pub hang_up: Option<&'static str>,
    /// Nothing more comes from the model.
    closed: bool,
    model_failed: bool,
    voice_failed: bool,
    /// Times that the model was asked again because it broke off.
    continued: u32,
    /// What it has called.
    tools: Tools,
    /// Fillers said.
    fillers: usize,
    /// When the latest phrase was heard to its end.
    heard_at: Option<MediaTime>,
    progress_at: MediaTime,
    released_at: Option<MediaTime>,
    token_at: Option<MediaTime>,
    phrase_at: Option<MediaTime>,
    sound_at: Option<MediaTime>,
}

impl Answer {
    fn new(id: ReplyId, asked: Option<String>, now: MediaTime) -> Self {
        Self {
            reply: Reply::new(id),
            asked,
            stage: None,
            stage_before: None,
            hang_up: None,
            closed: false,
            model_failed: false,
            voice_failed: false,
            continued: 0,
            tools: Tools::default(),
            fillers: 0,
            heard_at: None,
            progress_at: now,
            released_at: None,
            token_at: None,
            phrase_at: None,
            sound_at: None,
        }
    }

    fn synthesize(&mut self, now: MediaTime, phrases: Vec<(u32, String)>, actions: &mut Vec<Action>) {
        let ReplyId { turn, attempt } = self.reply.id;
        for (phrase, text) in phrases {
            self.phrase_at.get_or_insert(now);
            actions.push(Action::Synthesize { turn, attempt, phrase, text });
        }
    }

    /// A phrase was heard to its end.
    pub fn phrase_heard(&mut self, now: MediaTime, phrase: u32) {
        self.reply.phrase_heard(phrase);
        self.heard_at = Some(now);
    }

    /// Says the rest and ends the reply.
    fn close(&mut self, now: MediaTime, actions: &mut Vec<Action>) {
        self.closed = true;
        let rest = self.reply.complete();
        self.synthesize(now, rest, actions);
        let ReplyId { turn, attempt } = self.reply.id;
        if self.reply.phrases() > 0 {
            actions.push(Action::EndReply { turn, attempt, phrases: self.reply.phrases() });
        }
    }

    fn timing(&self, spoke_at: MediaTime, ended_at: MediaTime, settled_at: Option<MediaTime>, now: MediaTime) -> TurnTiming {
        let ms = |at: MediaTime| at.since(spoke_at).min(u64::from(u32::MAX)) as u32;
        TurnTiming {
            turn: self.reply.id.turn,
            ended_ms: Some(ms(ended_at)),
            transcript_ms: settled_at.map(ms),
            llm_ms: self.token_at.map(ms),
            phrase_ms: self.phrase_at.map(ms),
            tts_ms: self.sound_at.map(ms),
            reply_ms: Some(ms(now)),
        }
    }
}

impl Conversation {
    /// Goes on with the reply as far as what is known now allows.
    pub(super) fn advance(&mut self, now: MediaTime, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Listening => {}
            Phase::Thinking { turn, .. } => self.think_ahead(now, turn, actions),
            Phase::Answering { turn, .. } if !self.released() => {
                self.commit(now, turn, actions);
                self.fill(now, actions);
            }
            Phase::Answering { turn, .. } | Phase::Speaking { turn } => {
                self.fill(now, actions);
                self.ask_late(now, turn, actions);
                self.watch(now, actions);
                self.report_owed_in_time(now, actions);
            }
        }
    }

    fn released(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.released_at.is_some())
    }

    fn think_ahead(&mut self, now: MediaTime, turn: TurnId, actions: &mut Vec<Action>) {
        let words = normalised(&self.caller.text());
        if words.is_empty() || self.relieved {
            return;
        }
        let again = match &self.answer {
            None => true,
            Some(answer) => {
                let attempts = answer.reply.id.attempt + 1;
                let stable = self.caller.settled_at().is_some() || self.caller.unchanged_ms(now) >= STABLE_MS;
                let worth = attempts < EAGER_ATTEMPTS_MAX || (stable && attempts < SPECULATIVE_ATTEMPTS_MAX);
                answer.asked.as_ref() != Some(&words) && worth
            }
        };
        if again {
            self.ask(now, turn, words, actions);
        }
    }

    fn commit(&mut self, now: MediaTime, turn: TurnId, actions: &mut Vec<Action>) {
        let waited_ms = self.owed.as_ref().map_or(SETTLE_MS, |owed| now.since(owed.ended_at));
        let settled = self.caller.settled_at().is_some();
        let words = normalised(&self.caller.text());
        if words.is_empty() {
            let patience_ms = if self.caller.delayed { DELAYED_MS_MAX } else { NO_WORDS_MS };
            if settled || waited_ms >= patience_ms {
                self.abandon(turn, actions);
            }
            return;
        }
        if !self.trusted(now, waited_ms) {
            self.think_ahead(now, turn, actions);
            return;
        }
        if self.relieved {
            // a human answers; the words are reported and remembered
            self.report_owed(actions);
            self.abandon(turn, actions);
            return;
        }
        if self.answer.as_ref().is_none_or(|answer| answer.asked.as_ref() != Some(&words)) {
            self.ask(now, turn, words, actions);
        }
        self.release(now, actions);
    }

    /// The words will not change any more, or were waited for long enough.
    fn trusted(&self, now: MediaTime, waited_ms: u64) -> bool {
        let stable = self.caller.hint().ending == TextEnding::Complete && self.caller.unchanged_ms(now) >= STABLE_MS;
        // what another provider has heard so far is the beginning only
        self.caller.settled_at().is_some() || (!self.caller.delayed && (stable || waited_ms >= SETTLE_MS)) || waited_ms >= DELAYED_MS_MAX
    }

    fn ask(&mut self, now: MediaTime, turn: TurnId, words: String, actions: &mut Vec<Action>) {
        let attempt = self.next_attempt();
        self.answer = Some(Answer::new(ReplyId { turn, attempt }, Some(words), now));
        self.ask_model(String::new(), actions);
    }

    fn next_attempt(&self) -> u32 {
        self.answer.as_ref().map_or(0, |answer| answer.reply.id.attempt + 1)
    }

    /// Asks for the answer that was begun, or what follows of it.
    fn ask_model(&self, begun: String, actions: &mut Vec<Action>) {
        let Some(answer) = &self.answer else { return };
        let ReplyId { turn, attempt } = answer.reply.id;
        let stage = answer.stage.as_ref().unwrap_or(&self.account.stage).clone();
        let (history, rounds) = (self.account.history_with(&self.caller.text()), answer.tools.rounds().to_vec());
        actions.push(Action::Ask { attempt, request: LlmRequest { turn, stage, history, rounds, begun, tries: answer.continued } });
    }

    /// The agent says something by itself on the floor it has just taken.
    pub(super) fn say(&mut self, now: MediaTime, turn: TurnId, text: &str, hang_up: Option<&'static str>, actions: &mut Vec<Action>) {
        let mut answer = Answer::new(ReplyId { turn, attempt: 0 }, None, now);
        answer.hang_up = hang_up;
        let phrases = answer.reply.say(text);
        answer.synthesize(now, phrases, actions);
        answer.close(now, actions);
        self.answer = Some(answer);
        self.release(now, actions);
    }

    fn release(&mut self, now: MediaTime, actions: &mut Vec<Action>) {
        let Some(answer) = &mut self.answer else { return };
        answer.released_at = Some(now);
        let ReplyId { turn, attempt } = answer.reply.id;
        actions.push(Action::Release { turn, attempt });
        if answer.voice_failed {
            self.voice_failed(now, actions);
        } else if answer.model_failed {
            self.apologise(now, actions);
        } else if answer.closed && answer.reply.phrases() == 0 {
            self.nothing_to_say(now, turn, actions);
        } else {
            self.run_tools(actions);
        }
    }

    /// The language model says something.
    pub(super) fn model_says(&mut self, now: MediaTime, id: ReplyId, event: LlmEvent, actions: &mut Vec<Action>) {
        let speaking = matches!(self.phase, Phase::Speaking { .. });
        let Some(answer) = self.answer.as_mut().filter(|answer| answer.reply.id == id && !answer.closed) else { return };
        answer.progress_at = now;
        match event {
            LlmEvent::By(_) => {}
            LlmEvent::Token(text) => {
                answer.token_at.get_or_insert(now);
                let phrases = answer.reply.say(&text);
                answer.synthesize(now, phrases, actions);
            }
            LlmEvent::Stage(stage) => {
                answer.stage = Some(stage);
                if speaking {
                    self.enter_stage();
                }
            }
            LlmEvent::HangUp => answer.hang_up = Some("agent_hung_up"),
            LlmEvent::Calls(calls) => answer.tools.called(calls),
            LlmEvent::Done if answer.tools.are_called() => self.tools_called(now, actions),
            LlmEvent::Done => {
                answer.close(now, actions);
                if answer.released_at.is_some() && answer.reply.phrases() == 0 {
                    self.nothing_to_say(now, id.turn, actions);
                }
            }
            // what it has said is kept, and the phrase in which it broke off is asked for again
            LlmEvent::Failed(_) if answer.token_at.is_some() && answer.continued < CONTINUATIONS_MAX => {
                answer.continued += 1;
                answer.tools.take_back();
                answer.reply.break_off();
                let begun = answer.tools.text_since(&answer.reply);
                self.ask_model(begun, actions);
            }
            LlmEvent::Failed(_) => {
                answer.closed = true;
                answer.model_failed = true;
                answer.tools.take_back();
                if answer.released_at.is_some() {
                    self.apologise(now, actions);
                }
            }
        }
    }

    /// The voice says something.
    pub(super) fn voice_says(&mut self, now: MediaTime, id: ReplyId, event: &Spoken, actions: &mut Vec<Action>) {
        let Some(answer) = self.answer.as_mut().filter(|answer| answer.reply.id == id) else { return };
        match *event {
            Spoken::By(_) => {}
            Spoken::Audio { phrase, ms } => {
                answer.sound_at.get_or_insert(now);
                answer.reply.sounded(phrase, ms);
            }
            Spoken::PhraseDone(phrase) => answer.reply.phrase_complete(phrase),
            Spoken::Failed(_) => {
                answer.voice_failed = true;
                if answer.released_at.is_some() {
                    self.voice_failed(now, actions);
                }
            }
        }
    }

    /// The first sound of the reply is on the line: from here on the turn has happened.
    pub(super) fn reply_started(&mut self, now: MediaTime, turn: TurnId, at: MediaTime, actions: &mut Vec<Action>) {
        let Phase::Answering { turn: expected, spoke_at, ended_at } = self.phase else { return };
        let Some(answer) = self.answer.as_ref().filter(|answer| answer.reply.id.turn == turn && expected == turn) else { return };
        if answer.asked.is_some() {
            actions.push(Action::Timing(answer.timing(spoke_at, ended_at, self.caller.settled_at(), at)));
        }
        self.phase = Phase::Speaking { turn };
        self.enter_stage();
        self.report_owed_in_time(now, actions);
    }

    fn enter_stage(&mut self) {
        if let Some(answer) = &mut self.answer
            && let Some(stage) = answer.stage.take()
        {
            let before = std::mem::replace(&mut self.account.stage, stage);
            answer.stage_before.get_or_insert(before);
        }
    }

    /// The reply is over: reports what of it was heard. When that is nothing, its stage was not entered either.
    pub(super) fn report_reply(&mut self, heard: &str, actions: &mut Vec<Action>) {
        self.report_owed(actions);
        let answer = self.let_go();
        let stage = self.account.stage.clone();
        self.account.utterance(Speaker::Agent, heard, &stage, actions);
        if let Some(answer) = answer
            && let Some(before) = answer.stage_before
            && heard.is_empty()
        {
            self.account.stage = before;
        }
    }

    /// Reports the caller's turn unless a better transcript may still come.
    fn report_owed_in_time(&mut self, now: MediaTime, actions: &mut Vec<Action>) {
        let due = |owed: &Owed| !self.caller.delayed && (self.caller.settled_at().is_some() || now.since(owed.ended_at) >= SETTLE_MS);
        if matches!(self.phase, Phase::Speaking { .. }) && self.owed.as_ref().is_some_and(due) {
            self.report_owed(actions);
        }
    }

    /// Reports the caller's turn, if one has ended and was not reported yet.
    pub(super) fn report_owed(&mut self, actions: &mut Vec<Action>) {
        if let Some(owed) = self.owed.take() {
            let text = self.caller.take();
            if !text.is_empty() {
                self.silences = 0;
            }
            self.account.utterance(Speaker::Caller, &text, &owed.stage, actions);
        }
    }
}
