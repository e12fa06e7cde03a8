//! The brain of a call on the rim: words in, words out, and the account of both.
//!
//! ```text
//! Listening ──pause──▶ Thinking ──turn over──▶ Answering ──first sound──▶ Speaking ──heard, cut──▶ Listening
//!     ▲                   │                        │
//!     └──caller goes on───┴────────────────────────┘
//! ```
//!
//! While *thinking* the reply is prepared and kept back ([`Action::Release`] lets it go); when the caller goes on it is
//! thrown away and the caller's words stay. The caller's turn is reported once the reply is heard, since only then can
//! it not grow any more; the agent's when it was heard to the end or cut, with the heard words only. Every input is
//! answered by actions and nothing else: no clock, no task, no provider is known here.

mod account;
mod answer;
mod caller;
mod exchange;
mod opening;
mod words;

pub use exchange::{Action, Input, Settings, Spoken, TurnTiming};
pub use opening::ENDING_MS_MAX;

use crate::id::TurnId;
use crate::leg::{Command, LegEvent, TranscriptHint};
use crate::model::SttEvent;
use crate::reply::ReplyId;
use crate::time::MediaTime;
use account::Account;
use answer::Answer;
use caller::Caller;
use opening::{Ending, Opening};

/// Words that come this long after a hold was let go may still make it an interruption, in ms: transcripts are slow.
const UNHELD_WORDS_MS: u64 = 1_000;

/// A conversation between a caller and the agent, from the greeting to the goodbye.
#[derive(Debug)]
pub struct Conversation {
    settings: Settings,
    account: Account,
    caller: Caller,
    phase: Phase,
    answer: Option<Answer>,
    owed: Option<Owed>,
    held: bool,
    unheld_at: Option<MediaTime>,
    hint: Option<TranscriptHint>,
    opening: Option<Opening>,
    floor_asked_at: Option<MediaTime>,
    keys: Vec<char>,
    key_at: MediaTime,
    silences: usize,
    /// Tools called so far.
    tools_called: u32,
    voice_failures: u32,
    ending: Option<Ending>,
    ended: bool,
    /// A human speaks in the agent's place.
    relieved: bool,
}

/// Who has the floor, and what for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// The caller has the floor, speaking or not.
    Listening,
    /// The caller paused: perhaps the turn is over.
    Thinking { turn: TurnId, spoke_at: MediaTime },
    /// The turn is over, nothing of the reply was heard yet.
    Answering { turn: TurnId, spoke_at: MediaTime, ended_at: MediaTime },
    /// The reply is being heard.
    Speaking { turn: TurnId },
}

/// A turn of the caller that has ended and is not reported yet; its words are still with [`Caller`].
#[derive(Debug)]
struct Owed {
    stage: String,
    ended_at: MediaTime,
}

impl Conversation {
    /// A conversation that waits for [`Input::Started`].
    pub fn new(settings: Settings) -> Self {
        let account = Account::new(settings.first_stage.clone());
        Self {
            settings,
            account,
            caller: Caller::default(),
            phase: Phase::Listening,
            answer: None,
            owed: None,
            held: false,
            unheld_at: None,
            hint: None,
            opening: None,
            floor_asked_at: None,
            keys: Vec::new(),
            key_at: MediaTime::default(),
            silences: 0,
            tools_called: 0,
            voice_failures: 0,
            ending: None,
            ended: false,
            relieved: false,
        }
    }

    /// The stage now.
    pub fn stage(&self) -> &str {
        &self.account.stage
    }

    /// Takes one input at `now`, on the leg's clock, and appends what is to be done about it.
    pub fn apply(&mut self, now: MediaTime, input: Input, actions: &mut Vec<Action>) {
        if self.ended {
            return;
        }
        let hung_up = self.ending.as_ref().is_some_and(|ending| ending.hung_up);
        match input {
            Input::Gone(gone) => self.gone(now, gone, actions),
            Input::Idle => {
                actions.push(Action::Command(Command::HangUp));
                self.end(now, "idle", actions);
            }
            Input::Tick => {
                self.tick_ending(now, actions);
                if !hung_up && !self.ended {
                    self.tick_unheld(now);
                    self.advance(now, actions);
                    self.tick_openings(now, actions);
                }
            }
            _ if hung_up => {}
            Input::Started => {
                if let Some(text) = self.settings.greeting.clone() {
                    self.open(now, Opening::Say { text, hang_up: None }, actions);
                }
            }
            Input::Leg(event) => self.leg(now, event, actions),
            Input::Stt(SttEvent::Failed(_)) => {
                // an agent that cannot hear must not ask
                self.farewell(now, self.settings.goodbye.clone(), "agent_hung_up", actions);
            }
            Input::Stt(event) => {
                if self.caller.hear(now, &event) {
                    self.tell_leg(actions);
                    self.advance(now, actions);
                }
            }
            Input::Llm { turn, attempt, event } => self.model_says(now, ReplyId { turn, attempt }, event, actions),
            Input::Tts { turn, attempt, event } => self.voice_says(now, ReplyId { turn, attempt }, &event, actions),
            Input::Tool { number, outcome } => self.tool_says(now, number, outcome, actions),
            Input::Typed(text) => self.typed(now, &text, actions),
            Input::Whispered(text) => self.account.whispered(&text),
            Input::AgentMaySpeak(may) => self.agent_may_speak(may, actions),
            Input::MaxDuration => self.farewell(now, self.settings.goodbye.clone(), "max_duration", actions),
            Input::Drain => self.farewell(now, self.settings.goodbye.clone(), "drained", actions),
        }
    }

    fn leg(&mut self, now: MediaTime, event: LegEvent, actions: &mut Vec<Action>) {
        match event {
            LegEvent::SpeechStarted { .. } => self.caller_speaks(actions),
            LegEvent::Paused { turn, at } => self.paused(now, turn, at, actions),
            LegEvent::Resumed { turn, .. } => {
                self.cut_unknown(actions);
                self.caller_goes_on(turn, actions);
            }
            LegEvent::TurnEnded { turn, by_agent: true, .. } => self.opened(now, turn, actions),
            LegEvent::TurnEnded { turn, at, wait_ms, .. } => {
                let spoke_at = MediaTime(at.ms().saturating_sub(u64::from(wait_ms)));
                self.turn_ended(now, turn, spoke_at, actions);
            }
            LegEvent::ReplyStarted { turn, at } => self.reply_started(now, turn, at, actions),
            LegEvent::PhraseHeard { turn, phrase } => {
                if let Some(answer) = self.answer.as_mut().filter(|answer| answer.reply.id.turn == turn) {
                    answer.phrase_heard(now, phrase);
                }
            }
            LegEvent::Held { .. } => {
                self.caller_speaks(actions);
                self.held = true;
                self.unheld_at = None;
            }
            LegEvent::Unheld { .. } => self.unheld(now, actions),
            LegEvent::Interrupted { turn, cut, heard, .. } => {
                if let (Phase::Speaking { turn: spoken }, Some(answer)) = (self.phase, &self.answer)
                    && spoken == cut
                {
                    let heard = answer.reply.heard_until(heard);
                    self.report_reply(&heard, actions);
                }
                self.caller_goes_on(turn, actions);
                self.interrupted_farewell(now, actions);
            }
            LegEvent::ReplyHeard { turn, .. } => self.reply_heard(now, turn, actions),
            LegEvent::Dtmf(key) => self.key(now, key, actions),
            LegEvent::Silence { .. } => self.silence(now, actions),
        }
    }

    fn caller_speaks(&mut self, actions: &mut Vec<Action>) {
        // words over the agent are a turn of their own: the one before must be out of the way
        if matches!(self.phase, Phase::Speaking { .. }) {
            self.report_owed(actions);
        }
        if matches!(self.phase, Phase::Thinking { .. }) {
            // the pause was held for noise; this is another beginning
            self.answer = None;
            self.phase = Phase::Listening;
        }
        self.caller.speaks();
        self.tell_leg_again(actions);
    }

    fn paused(&mut self, now: MediaTime, turn: TurnId, at: MediaTime, actions: &mut Vec<Action>) {
        self.cut_unknown(actions);
        self.void_older(turn, actions);
        self.owed = None;
        self.caller.speaking = false;
        self.phase = Phase::Thinking { turn, spoke_at: at };
        self.finalise(actions);
        self.tell_leg_again(actions);
        self.advance(now, actions);
    }

    /// The caller has the floor again; the words so far stay.
    fn caller_goes_on(&mut self, turn: TurnId, actions: &mut Vec<Action>) {
        self.owed = None;
        self.void_older(turn, actions);
        self.phase = Phase::Listening;
        self.caller.speaks();
        self.tell_leg_again(actions);
    }

    fn turn_ended(&mut self, now: MediaTime, turn: TurnId, spoke_at: MediaTime, actions: &mut Vec<Action>) {
        self.cut_unknown(actions);
        if self.ending.is_none() {
            // a prompt is no longer wanted, and keys are in the caller's words
            self.opening = None;
            self.floor_asked_at = None;
        }
        let foreseen = matches!(self.phase, Phase::Thinking { turn: foreseen, .. } if foreseen == turn);
        self.caller.speaking = false;
        if !foreseen {
            self.void_older(turn, actions);
            self.finalise(actions);
        }
        let spoke_at = match self.phase {
            Phase::Thinking { spoke_at, .. } if foreseen => spoke_at,
            _ => spoke_at,
        };
        self.phase = Phase::Answering { turn, spoke_at, ended_at: now };
        self.owed = Some(Owed { stage: self.account.stage.clone(), ended_at: now });
        self.advance(now, actions);
    }

    /// It was no interruption, as far as the words went until now: those that still come may show the contrary.
    fn unheld(&mut self, now: MediaTime, actions: &mut Vec<Action>) {
        self.held = false;
        self.unheld_at = Some(now);
        self.caller.speaking = false;
        self.finalise(actions);
    }

    /// It was no interruption for good: its words belong to nobody's turn.
    fn tick_unheld(&mut self, now: MediaTime) {
        if self.unheld_at.is_some_and(|at| now.since(at) >= UNHELD_WORDS_MS) {
            self.unheld_at = None;
            if !self.held && matches!(self.phase, Phase::Speaking { .. }) {
                self.caller.take();
            }
        }
    }

    fn reply_heard(&mut self, now: MediaTime, turn: TurnId, actions: &mut Vec<Action>) {
        let Some(answer) = self.answer.as_ref().filter(|answer| answer.reply.id.turn == turn) else { return };
        // a reply whose sound never started was not heard, whatever its text
        let heard = matches!(self.phase, Phase::Speaking { .. });
        let (text, hang_up) = (if heard { answer.reply.text() } else { String::new() }, answer.hang_up);
        self.report_reply(&text, actions);
        self.phase = Phase::Listening;
        self.held = false;
        self.unheld_at = None;
        self.voice_failures = 0;
        if !self.caller.speaking && !matches!(self.opening, Some(Opening::Answer)) {
            // stray words under the agent's speech, too weak to hold it: most likely its own echo
            self.caller.take();
        }
        match hang_up {
            Some(reason) => self.hang_up(now, reason, actions),
            None => self.ask_for_floor(now, actions),
        }
    }

    fn interrupted_farewell(&mut self, now: MediaTime, actions: &mut Vec<Action>) {
        match &self.ending {
            // somebody is there after all
            Some(ending) if ending.reason == "idle" => self.ending = None,
            Some(_) if self.opening.is_some() => self.ask_for_floor(now, actions),
            Some(ending) => {
                let reason = ending.reason;
                self.hang_up(now, reason, actions);
            }
            None => {}
        }
    }

    /// A reply ended without word of how much of it was heard: only whole phrases count.
    fn cut_unknown(&mut self, actions: &mut Vec<Action>) {
        if let (Phase::Speaking { .. }, Some(answer)) = (self.phase, &self.answer) {
            let heard = answer.reply.heard_text();
            self.report_reply(&heard, actions);
        }
    }

    fn void_older(&mut self, turn: TurnId, actions: &mut Vec<Action>) {
        self.let_go();
        self.held = false;
        self.unheld_at = None;
        actions.push(Action::CancelBefore(turn));
    }

    fn finalise(&mut self, actions: &mut Vec<Action>) {
        self.caller.finalise();
        actions.push(Action::Finalize);
    }

    /// The leg may have begun to count anew: words that came before its event must not be lost.
    fn tell_leg_again(&mut self, actions: &mut Vec<Action>) {
        self.hint = None;
        if !self.caller.text().is_empty() {
            self.tell_leg(actions);
        }
    }

    /// Tells the leg what the transcript says, while that may decide a turn or an interruption.
    fn tell_leg(&mut self, actions: &mut Vec<Action>) {
        let open = match self.phase {
            Phase::Listening | Phase::Thinking { .. } => true,
            Phase::Answering { .. } => false,
            Phase::Speaking { .. } => self.held || self.unheld_at.is_some(),
        };
        let hint = self.caller.hint();
        if open && self.hint != Some(hint) {
            self.hint = Some(hint);
            actions.push(Action::Command(Command::Hint(hint)));
        }
    }
}
