//! What people in a room see of a call: who says what, as it is said, and what the agent is doing.
//!
//! The caller's words are shown as they are guessed, each guess in place of the one before, until the turn is reported.
//! The agent's words are shown phrase by phrase as each begins to be heard, so that nobody reads what is cut off later.

use std::collections::BTreeMap;

use voiced_core::event::EventSpeaker;
use voiced_core::id::TurnId;
use voiced_core::leg::LegEvent;
use voiced_core::model::SttEvent;

use crate::call::Observed;

/// One thing to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caption {
    /// What the agent is doing, in LiveKit's words: `listening`, `thinking`, `speaking`.
    State(&'static str),
    /// The caller's words of a turn so far; `last`: they stay as they are.
    Caller { segment: u32, text: String, last: bool },
    /// More words of the agent's reply.
    Agent { segment: u32, text: String },
    /// The agent's reply is over.
    AgentDone { segment: u32 },
}

/// Follows one call.
#[derive(Debug, Default)]
pub struct Captions {
    turns: u32,
    finals: String,
    /// Phrases that were not shown yet, of all replies under way.
    phrases: BTreeMap<(TurnId, u32), String>,
    replies: u32,
    /// The reply being heard and its phrase that is due.
    heard: Option<(TurnId, u32)>,
}

impl Captions {
    /// What is to be shown now that this has happened.
    pub fn observe(&mut self, observed: &Observed) -> Vec<Caption> {
        match observed {
            Observed::Transcript(SttEvent::Interim(text)) => self.caller(text),
            Observed::Transcript(SttEvent::Final(text)) => {
                let caption = self.caller(text);
                self.finals = joined(&self.finals, text);
                caption
            }
            Observed::Phrase { turn, phrase, text } => {
                self.phrases.insert((*turn, *phrase), text.clone());
                self.due()
            }
            Observed::Said { speaker: EventSpeaker::Tenant, text } => {
                let caption = Caption::Caller { segment: self.turns, text: text.clone(), last: true };
                self.turns += 1;
                self.finals.clear();
                vec![caption]
            }
            Observed::Said { speaker: EventSpeaker::Agent, .. } => self.agent_done(),
            Observed::Leg(event) => self.leg(event),
            Observed::Transcript(_) | Observed::Timing(_) => Vec::new(),
        }
    }

    fn leg(&mut self, event: &LegEvent) -> Vec<Caption> {
        match *event {
            LegEvent::TurnEnded { by_agent: false, .. } => vec![Caption::State("thinking")],
            LegEvent::ReplyStarted { turn, .. } => {
                self.phrases.retain(|&(of, _), _| of >= turn);
                self.heard = Some((turn, 0));
                let mut captions = vec![Caption::State("speaking")];
                captions.extend(self.due());
                captions
            }
            LegEvent::PhraseHeard { turn, phrase } if self.heard.is_some_and(|(of, _)| of == turn) => {
                self.heard = Some((turn, phrase + 1));
                self.due()
            }
            LegEvent::ReplyHeard { .. } | LegEvent::Interrupted { .. } | LegEvent::Silence { .. } => vec![Caption::State("listening")],
            _ => Vec::new(),
        }
    }

    fn caller(&self, text: &str) -> Vec<Caption> {
        let text = joined(&self.finals, text);
        if text.is_empty() { Vec::new() } else { vec![Caption::Caller { segment: self.turns, text, last: false }] }
    }

    /// The phrase that is being heard, once its words are known.
    fn due(&mut self) -> Vec<Caption> {
        let text = self.heard.and_then(|due| self.phrases.remove(&due));
        text.map(|text| Caption::Agent { segment: self.replies, text }).into_iter().collect()
    }

    fn agent_done(&mut self) -> Vec<Caption> {
        self.heard = None;
        self.replies += 1;
        vec![Caption::AgentDone { segment: self.replies - 1 }]
    }
}

fn joined(before: &str, more: &str) -> String {
    let more = more.trim();
    if before.is_empty() || more.is_empty() { format!("{before}{more}") } else { format!("{before} {more}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use voiced_core::time::MediaTime;

    fn leg(captions: &mut Captions, event: LegEvent) -> Vec<Caption> {
        captions.observe(&Observed::Leg(event))
    }

    #[test]
    fn the_callers_guessed_words_give_way_to_the_reported_ones() {
        let mut captions = Captions::default();
        let caller = |segment, text: &str, last| vec![Caption::Caller { segment, text: text.into(), last }];
        assert_eq!(captions.observe(&Observed::Transcript(SttEvent::Interim("my sing".into()))), caller(0, "my sing", false));
        assert_eq!(captions.observe(&Observed::Transcript(SttEvent::Final("My sink".into()))), caller(0, "My sink", false));
        assert_eq!(captions.observe(&Observed::Transcript(SttEvent::Interim("leaks".into()))), caller(0, "My sink leaks", false));
        let said = Observed::Said { speaker: EventSpeaker::Tenant, text: "My sink leaks.".into() };
        assert_eq!(captions.observe(&said), caller(0, "My sink leaks.", true));
        assert_eq!(captions.observe(&Observed::Transcript(SttEvent::Interim("yes".into()))), caller(1, "yes", false));
    }

    #[test]
    fn the_agents_words_appear_as_they_are_heard_and_never_those_of_a_void_reply() {
        let mut captions = Captions::default();
        for (turn, phrase, text) in [(1, 0, "Never heard."), (2, 0, "I am sorry."), (2, 1, "Where is it?")] {
            assert!(captions.observe(&Observed::Phrase { turn: TurnId(turn), phrase, text: text.into() }).is_empty());
        }
        let at = MediaTime(0);
        let said = |text: &str| Caption::Agent { segment: 0, text: text.into() };
        assert_eq!(leg(&mut captions, LegEvent::ReplyStarted { turn: TurnId(2), at }), [Caption::State("speaking"), said("I am sorry.")]);
        assert_eq!(leg(&mut captions, LegEvent::PhraseHeard { turn: TurnId(2), phrase: 0 }), [said("Where is it?")]);
        assert_eq!(captions.observe(&Observed::Said { speaker: EventSpeaker::Agent, text: "I am sorry.".into() }), [Caption::AgentDone { segment: 0 }]);
        assert_eq!(leg(&mut captions, LegEvent::ReplyHeard { turn: TurnId(2), at }), [Caption::State("listening")]);
    }
}
