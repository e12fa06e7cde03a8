//! When there is no answer to be had, or no words in it: the apology, and the floor back to the caller.

use super::super::opening::Opening;
use super::super::{Action, Conversation, Phase};
use crate::id::TurnId;
use crate::leg::Command;
use crate::time::MediaTime;

/// Failures of the voice in a row after which there is no way to talk.
const VOICE_FAILURES_MAX: u32 = 2;

impl Conversation {
    /// The model has failed: what it has said stands, an apology is put behind it.
    pub(super) fn apologise(&mut self, now: MediaTime, actions: &mut Vec<Action>) {
        let Some(answer) = &mut self.answer else { return };
        answer.reply.break_off();
        let phrases = answer.reply.say(&self.settings.apology);
        answer.synthesize(now, phrases, actions);
        answer.close(now, actions);
        let turn = answer.reply.id.turn;
        if answer.reply.phrases() == 0 {
            self.nothing_to_say(now, turn, actions);
        }
    }

    /// The voice has failed: the apology needs a new session, so it is a turn of its own.
    pub(super) fn voice_failed(&mut self, now: MediaTime, actions: &mut Vec<Action>) {
        let Some(answer) = &self.answer else { return };
        let turn = answer.reply.id.turn;
        let heard = answer.reply.heard_text();
        self.report_reply(&heard, actions);
        actions.push(Action::Command(Command::Abandon(turn)));
        actions.push(Action::CancelBefore(turn.next()));
        self.phase = Phase::Listening;
        self.voice_failures += 1;
        if self.ending.is_some() || self.voice_failures >= VOICE_FAILURES_MAX {
            self.hang_up(now, "agent_hung_up", actions);
        } else {
            let text = self.settings.apology.clone();
            self.open(now, Opening::Say { text, hang_up: None }, actions);
        }
    }

    /// The reply has no words: the floor goes back to the caller.
    pub(super) fn nothing_to_say(&mut self, now: MediaTime, turn: TurnId, actions: &mut Vec<Action>) {
        self.report_owed(actions);
        self.enter_stage();
        let hang_up = self.answer.as_ref().and_then(|answer| answer.hang_up);
        self.abandon(turn, actions);
        if let Some(reason) = hang_up {
            self.hang_up(now, reason, actions);
        }
    }

    pub(in super::super) fn abandon(&mut self, turn: TurnId, actions: &mut Vec<Action>) {
        self.let_go();
        self.owed = None;
        self.caller.take();
        self.phase = Phase::Listening;
        actions.push(Action::Command(Command::Abandon(turn)));
        actions.push(Action::CancelBefore(turn.next()));
    }
}
