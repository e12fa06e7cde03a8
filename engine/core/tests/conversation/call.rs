//! The call that the tests feed, and what they look for in its actions.

use voiced_core::conversation::{Action, Conversation, Input, Settings};
use voiced_core::event::{CallEventKind, EventSpeaker};
use voiced_core::id::TurnId;
use voiced_core::leg::{Command, LegEvent};
use voiced_core::model::{LlmEvent, Speaker, SttEvent};
use voiced_core::time::MediaTime;

pub struct Call {
    pub conversation: Conversation,
    pub now: u64,
    pub all: Vec<Action>,
}

impl Call {
    pub fn new() -> Self {
        let settings = Settings {
            greeting: Some("Hello there, how can I help?".into()),
            first_stage: "welcome".into(),
            silence_prompts: vec!["Are you still there?".into()],
            apology: "Sorry, something went wrong here.".into(),
            goodbye: "Goodbye then.".into(),
            fillers: vec!["One moment.".into(), "Still here.".into()],
        };
        Self { conversation: Conversation::new(settings), now: 0, all: Vec::new() }
    }

    /// A call whose greeting (turn 1) was heard.
    pub fn greeted() -> Self {
        let mut call = Self::new();
        call.give(Input::Started);
        call.floor(1);
        call.leg(LegEvent::ReplyStarted { turn: TurnId(1), at: MediaTime(100) });
        call.leg(LegEvent::ReplyHeard { turn: TurnId(1), at: MediaTime(900) });
        call
    }

    pub fn give(&mut self, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        self.conversation.apply(MediaTime(self.now), input, &mut actions);
        self.all.extend(actions.iter().cloned());
        actions
    }

    pub fn leg(&mut self, event: LegEvent) -> Vec<Action> {
        self.give(Input::Leg(event))
    }

    pub fn stt(&mut self, event: SttEvent) -> Vec<Action> {
        self.give(Input::Stt(event))
    }

    pub fn interim(&mut self, text: &str) -> Vec<Action> {
        self.stt(SttEvent::Interim(text.into()))
    }

    pub fn llm(&mut self, turn: u32, attempt: u32, event: LlmEvent) -> Vec<Action> {
        self.give(Input::Llm { turn: TurnId(turn), attempt, event })
    }

    pub fn token(&mut self, turn: u32, attempt: u32, text: &str) -> Vec<Action> {
        self.llm(turn, attempt, LlmEvent::Token(text.into()))
    }

    pub fn wait(&mut self, ms: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        for _ in 0..ms / 100 {
            self.now += 100;
            actions.extend(self.give(Input::Tick));
        }
        actions
    }

    pub fn at(&self) -> MediaTime {
        MediaTime(self.now)
    }

    pub fn floor(&mut self, turn: u32) -> Vec<Action> {
        let at = self.at();
        self.leg(LegEvent::TurnEnded { turn: TurnId(turn), at, wait_ms: 0, probability: f32::NAN, by_agent: true })
    }

    pub fn speaks(&mut self) -> Vec<Action> {
        let at = self.at();
        self.leg(LegEvent::SpeechStarted { turn: TurnId(0), at })
    }

    pub fn pauses(&mut self, turn: u32) -> Vec<Action> {
        let at = self.at();
        self.leg(LegEvent::Paused { turn: TurnId(turn), at })
    }

    pub fn resumes(&mut self, turn: u32) -> Vec<Action> {
        let at = self.at();
        self.leg(LegEvent::Resumed { turn: TurnId(turn), at })
    }

    pub fn turn_ends(&mut self, turn: u32) -> Vec<Action> {
        let at = self.at();
        self.leg(LegEvent::TurnEnded { turn: TurnId(turn), at, wait_ms: 240, probability: 0.9, by_agent: false })
    }

    pub fn settles(&mut self, text: &str) -> Vec<Action> {
        let mut actions = self.stt(SttEvent::Final(text.into()));
        actions.extend(self.stt(SttEvent::Finalized));
        actions
    }

    /// The caller says this and the turn ends, settled.
    pub fn says(&mut self, turn: u32, text: &str) -> Vec<Action> {
        self.speaks();
        let mut actions = self.pauses(turn);
        actions.extend(self.settles(text));
        actions.extend(self.turn_ends(turn));
        actions
    }

    pub fn reply_starts(&mut self, turn: u32) -> Vec<Action> {
        let at = self.at();
        self.leg(LegEvent::ReplyStarted { turn: TurnId(turn), at })
    }

    pub fn hears(&mut self, turn: u32, phrase: u32) {
        self.leg(LegEvent::PhraseHeard { turn: TurnId(turn), phrase });
    }

    pub fn reply_heard(&mut self, turn: u32) -> Vec<Action> {
        let at = self.at();
        self.leg(LegEvent::ReplyHeard { turn: TurnId(turn), at })
    }

    /// The reported conversation, one line each.
    pub fn transcript(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for action in &self.all {
            match action {
                Action::Report(CallEventKind::Utterance { speaker, text, turn_index, stage }) => {
                    assert_eq!(*turn_index as usize, lines.len(), "utterances are counted in order");
                    let who = if *speaker == EventSpeaker::Tenant { "caller" } else { "agent" };
                    lines.push(format!("{who}@{stage}: {text}"));
                }
                Action::Report(CallEventKind::CallEnded { total_turns, final_stage, reason, .. }) => {
                    assert_eq!(*total_turns as usize, lines.len());
                    lines.push(format!("ended@{final_stage}: {reason}"));
                }
                _ => {}
            }
        }
        lines
    }
}

pub fn asked(actions: &[Action]) -> Vec<(u32, u32, String)> {
    let ask = |action: &Action| match action {
        Action::Ask { attempt, request } => {
            Some((request.turn.0, *attempt, request.history.iter().rev().find_map(|message| message.by(Speaker::Caller)).expect("words").to_owned()))
        }
        _ => None,
    };
    actions.iter().filter_map(ask).collect()
}

pub fn spoken(actions: &[Action]) -> Vec<String> {
    actions.iter().filter_map(|action| if let Action::Synthesize { text, .. } = action { Some(text.clone()) } else { None }).collect()
}

pub fn released(actions: &[Action]) -> Vec<(u32, u32)> {
    actions.iter().filter_map(|a| if let Action::Release { turn, attempt } = a { Some((turn.0, *attempt)) } else { None }).collect()
}

pub fn takes_floor(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Command(Command::TakeFloor)))
}

pub fn hangs_up(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Command(Command::HangUp)))
}

pub fn abandons(actions: &[Action], turn: u32) -> bool {
    actions.iter().any(|action| matches!(action, Action::Command(Command::Abandon(t)) if t.0 == turn))
}

pub const HELLO: &str = "agent@welcome: Hello there, how can I help?";
