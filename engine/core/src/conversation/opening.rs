//! When the agent takes the floor by itself: the greeting, silence prompts, keys, farewells; and how a call ends.

use super::{Action, Conversation, Owed, Phase};
use crate::id::TurnId;
use crate::leg::Command;
use crate::line::Gone;
use crate::model::Speaker;
use crate::time::MediaTime;

/// Keys pressed within this time, in ms, belong together.
const KEYS_TOGETHER_MS: u64 = 2_000;
/// Keys of one entry at most; the longest card numbers have 19.
const KEYS_MAX: usize = 32;
/// The leg gives the floor at its next tick, unless the caller has it; an opening not answered within this time, in ms,
/// is void, or a farewell tried again.
const FLOOR_MS_MAX: u64 = 2_000;
/// Words that came without any speech being noticed are answered after this long, in ms.
const UNNOTICED_MS: u64 = 1_500;
/// From the decision to say farewell to the hang-up at most, in ms.
const FAREWELL_MS_MAX: u64 = 12_000;
/// The line reports its end within this time of our hang-up, in ms; a lost report must not keep the call.
const HANG_UP_MS_MAX: u64 = 1_000;
/// From the order to end a call to its end at most, in ms.
pub const ENDING_MS_MAX: u64 = FAREWELL_MS_MAX + HANG_UP_MS_MAX;

/// What the agent takes the floor for.
#[derive(Debug)]
pub(super) enum Opening {
    /// To say this, and then perhaps to hang up, with the reason.
    Say { text: String, hang_up: Option<&'static str> },
    /// To answer words that came without speech: keys.
    Answer,
}

/// The call is being ended from our side.
#[derive(Debug)]
pub(super) struct Ending {
    pub reason: &'static str,
    deadline: MediaTime,
    pub hung_up: bool,
}

impl Conversation {
    /// Asks for the floor, at once or when the reply that has it was heard.
    pub(super) fn open(&mut self, now: MediaTime, opening: Opening, actions: &mut Vec<Action>) {
        if self.relieved && self.ending.is_none() && matches!(opening, Opening::Say { .. }) {
            return;
        }
        let busy = matches!(self.phase, Phase::Answering { .. } | Phase::Speaking { .. });
        self.opening = Some(opening);
        self.floor_asked_at = None;
        if !busy {
            self.ask_for_floor(now, actions);
        }
    }

    pub(super) fn ask_for_floor(&mut self, now: MediaTime, actions: &mut Vec<Action>) {
        if self.opening.is_some() {
            self.floor_asked_at = Some(now);
            actions.push(Action::Command(Command::TakeFloor));
        }
    }

    /// The floor is ours.
    pub(super) fn opened(&mut self, now: MediaTime, turn: TurnId, actions: &mut Vec<Action>) {
        self.cut_unknown(actions);
        self.void_older(turn, actions);
        self.caller.speaking = false;
        self.phase = Phase::Answering { turn, spoke_at: now, ended_at: now };
        self.owed = Some(Owed { stage: self.account.stage.clone(), ended_at: now });
        self.floor_asked_at = None;
        match self.opening.take() {
            Some(Opening::Say { text, hang_up }) => {
                // the prompt does not answer the caller: words said before it are a turn of their own, if there are any
                if self.caller.text().is_empty() {
                    self.owed = None;
                } else {
                    self.report_owed(actions);
                }
                self.say(now, turn, &text, hang_up, actions);
            }
            Some(Opening::Answer) => {
                self.caller.settle(now);
                self.advance(now, actions);
            }
            None => self.abandon(turn, actions),
        }
    }

    /// Nobody has spoken for a while.
    pub(super) fn silence(&mut self, now: MediaTime, actions: &mut Vec<Action>) {
        // a pause without words was noise: the leg is listening again
        let listening = matches!(self.phase, Phase::Listening | Phase::Thinking { .. });
        let quiet = listening && !self.caller.speaking && self.caller.text().is_empty();
        if !quiet || self.relieved || self.ending.is_some() || self.opening.is_some() || !self.keys.is_empty() {
            return;
        }
        if let Some(text) = self.settings.silence_prompts.get(self.silences).cloned() {
            self.silences += 1;
            self.open(now, Opening::Say { text, hang_up: None }, actions);
        } else {
            let goodbye = self.settings.goodbye.clone();
            self.farewell(now, goodbye, "idle", actions);
        }
    }

    /// A key was pressed.
    pub(super) fn key(&mut self, now: MediaTime, key: char, actions: &mut Vec<Action>) {
        if key != '#' {
            self.keys.push(key);
            self.key_at = now;
        }
        if key == '#' || self.keys.len() >= KEYS_MAX {
            self.keys_complete(now, actions);
        }
    }

    fn keys_complete(&mut self, now: MediaTime, actions: &mut Vec<Action>) {
        if self.keys.is_empty() || self.ending.is_some() {
            return;
        }
        let text = self.keys.drain(..).map(String::from).collect::<Vec<_>>().join(" ");
        self.typed(now, &text, actions);
    }

    /// Words that need no ear: keys, or a message written in a room.
    pub(super) fn typed(&mut self, now: MediaTime, text: &str, actions: &mut Vec<Action>) {
        if self.ending.is_some() || text.trim().is_empty() {
            return;
        }
        // they are a barge-in; the leg gives the floor only when nobody has it
        self.fall_silent(actions);
        self.caller.types(now, text);
        self.open(now, Opening::Answer, actions);
    }

    /// Cuts the reply, prepared or being heard; the caller's words stay.
    fn fall_silent(&mut self, actions: &mut Vec<Action>) {
        if let Phase::Answering { turn, .. } | Phase::Speaking { turn } = self.phase {
            self.cut_unknown(actions);
            actions.push(Action::Command(Command::Abandon(turn)));
            self.void_older(turn.next(), actions);
            self.owed = None;
            self.phase = Phase::Listening;
        }
    }

    /// A human takes over, or hands back: the agent falls silent at once and answers again from the next turn on.
    pub(super) fn agent_may_speak(&mut self, may: bool, actions: &mut Vec<Action>) {
        if may == self.relieved {
            self.relieved = !may;
            self.silences = 0;
            if self.relieved && self.ending.is_none() {
                if matches!(self.opening, Some(Opening::Say { .. })) {
                    self.opening = None;
                    self.floor_asked_at = None;
                }
                self.fall_silent(actions);
            }
        }
    }

    /// Timeouts of keys, of words that nobody noticed, and of the floor.
    pub(super) fn tick_openings(&mut self, now: MediaTime, actions: &mut Vec<Action>) {
        if !self.keys.is_empty() && now.since(self.key_at) >= KEYS_TOGETHER_MS {
            self.keys_complete(now, actions);
        }
        if self.floor_asked_at.is_some_and(|at| now.since(at) >= FLOOR_MS_MAX) && !self.caller.speaking {
            self.floor_asked_at = None;
            if self.ending.is_some() {
                self.ask_for_floor(now, actions);
            } else {
                self.opening = None;
            }
        }
        let listening = matches!(self.phase, Phase::Listening) && !self.caller.speaking;
        if listening && self.opening.is_none() && self.ending.is_none() && !self.caller.text().is_empty() && self.caller.unchanged_ms(now) >= UNNOTICED_MS {
            self.caller.settle(now);
            self.open(now, Opening::Answer, actions);
        }
    }

    /// Says this and hangs up.
    pub(super) fn farewell(&mut self, now: MediaTime, text: String, reason: &'static str, actions: &mut Vec<Action>) {
        if self.ending.is_none() {
            self.ending = Some(Ending { reason, deadline: now + FAREWELL_MS_MAX, hung_up: false });
            self.open(now, Opening::Say { text, hang_up: Some(reason) }, actions);
        }
    }

    /// Hangs up; the end is reported when the line is gone.
    pub(super) fn hang_up(&mut self, now: MediaTime, reason: &'static str, actions: &mut Vec<Action>) {
        actions.push(Action::Command(Command::HangUp));
        let reason = self.ending.as_ref().map_or(reason, |ending| ending.reason);
        self.ending = Some(Ending { reason, deadline: now + HANG_UP_MS_MAX, hung_up: true });
    }

    pub(super) fn tick_ending(&mut self, now: MediaTime, actions: &mut Vec<Action>) {
        match self.ending {
            Some(Ending { reason, deadline, hung_up: true }) if now >= deadline => self.end(now, reason, actions),
            Some(Ending { reason, deadline, hung_up: false }) if now >= deadline => self.hang_up(now, reason, actions),
            _ => {}
        }
    }

    /// The line is gone.
    pub(super) fn gone(&mut self, now: MediaTime, gone: Gone, actions: &mut Vec<Action>) {
        let reason = match (&self.ending, gone) {
            (Some(Ending { reason, hung_up: true, .. }), _) => reason,
            (_, Gone::HungUp) => "hung_up",
            (_, Gone::Lost | Gone::Misbehaved) => "lost",
        };
        self.end(now, reason, actions);
    }

    /// Reports what was said and not reported yet, and the end.
    pub(super) fn end(&mut self, now: MediaTime, reason: &'static str, actions: &mut Vec<Action>) {
        self.cut_unknown(actions);
        let stage = self.owed.take().map_or_else(|| self.account.stage.clone(), |owed| owed.stage);
        let text = self.caller.take();
        self.account.utterance(Speaker::Caller, &text, &stage, actions);
        self.account.ended(now, reason, actions);
        actions.push(Action::End { reason });
        self.ended = true;
    }
}
