//! `local/script`: a small deterministic dialogue engine, configured by data.
//!
//! A script is a list of stages: what to say on entering, what to collect from the answer, where to go next. It keeps
//! no state: each time it replays the caller's heard messages from the first stage, which fills the slots, and answers
//! the newest one. So an answer that is thrown away because the caller went on leaves no trace.

mod answers;
mod repairs;
mod validate;

pub use validate::ScriptError;

use crate::model::{LlmEvent, Message, Speaker};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Unfit answers in a row after which a stage takes what it gets and goes on: nobody likes to be asked a fourth time.
const REPROMPTS_MAX: u32 = 2;

/// A dialogue: stages in order; the first one is where a call begins.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The stages, at least one.
    pub stages: Vec<Stage>,
}

/// One step of a dialogue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// The stage's name, as it appears in events.
    pub name: String,
    /// What the agent says on entering; `{slot}` stands for what was collected under that name.
    pub say: String,
    /// Slot that the caller's answer fills.
    #[serde(default)]
    pub collect: Option<String>,
    /// What kind of answer is wanted.
    #[serde(default)]
    pub kind: Kind,
    /// Words in the answer that lead to another stage than `next`; with `kind` `yes_no` the words are `yes` and `no`.
    #[serde(default)]
    pub accept: BTreeMap<String, String>,
    /// Where to go when no word of `accept` is in the answer; none: ask again until one is.
    #[serde(default)]
    pub next: Option<String>,
    /// Said when the answer does not fit; default: `say` again.
    #[serde(default)]
    pub reprompt: Option<String>,
    /// The agent hangs up after saying this.
    #[serde(default)]
    pub end: bool,
}

/// Kinds of answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Any words.
    #[default]
    Text,
    /// A number and at least one word more.
    Address,
    /// A number, in digits or words.
    Number,
    /// Yes or no.
    YesNo,
}

impl Script {
    /// What to say first.
    pub fn greeting(&self) -> Option<&str> {
        self.stages.first().map(|stage| stage.say.as_str())
    }

    /// The name of the first stage.
    pub fn first_stage(&self) -> &str {
        self.stages.first().map_or("", |stage| stage.name.as_str())
    }

    /// Answers the caller's newest message in `stage`: a pure function of the heard history.
    pub fn answer(&self, stage: &str, history: &[Message]) -> Vec<LlmEvent> {
        let mut replay = Replay { script: self, at: 0, unfit: 0, slots: BTreeMap::new() };
        let mut said = history.iter().filter_map(|message| message.by(Speaker::Caller)).peekable();
        let mut fits = false;
        while let Some(words) = said.next() {
            // the account of the call knows better than the replay where we are, should they ever differ
            if said.peek().is_none()
                && let Some(at) = self.position(stage)
                && at != replay.at
            {
                replay.at = at;
                replay.unfit = 0;
            }
            fits = replay.hear(words);
        }
        replay.reply(stage, fits)
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.stages.iter().position(|stage| stage.name == name)
    }
}

/// Where the caller's messages have led.
struct Replay<'a> {
    script: &'a Script,
    at: usize,
    unfit: u32,
    slots: BTreeMap<&'a str, String>,
}

impl Replay<'_> {
    /// Takes one message of the caller; false when it does not fit and must be asked for again.
    fn hear(&mut self, text: &str) -> bool {
        let Some(stage) = self.script.stages.get(self.at) else { return true };
        let value = answers::value(stage.kind, text);
        if value.is_none() && self.unfit < REPROMPTS_MAX {
            self.unfit += 1;
            return false;
        }
        let target = answers::chosen(stage.kind, &stage.accept, text).or(stage.next.as_deref());
        if stage.end {
            return true;
        }
        let Some(next) = target.and_then(|name| self.script.position(name)) else {
            self.unfit += 1;
            return false;
        };
        if let Some(slot) = stage.collect.as_deref() {
            self.slots.insert(slot, value.unwrap_or_else(|| answers::plain(text)));
        }
        self.unfit = 0;
        self.at = next;
        true
    }

    fn reply(&self, stage_before: &str, fits: bool) -> Vec<LlmEvent> {
        let Some(stage) = self.script.stages.get(self.at) else { return vec![LlmEvent::Done] };
        let mut events = Vec::new();
        if stage.name != stage_before {
            events.push(LlmEvent::Stage(stage.name.clone()));
        }
        let words = if fits { &stage.say } else { stage.reprompt.as_ref().unwrap_or(&stage.say) };
        events.push(LlmEvent::Token(self.filled(words)));
        if stage.end {
            events.push(LlmEvent::HangUp);
        }
        events.push(LlmEvent::Done);
        events
    }

    /// Puts the collected values in; one that was never given leaves its place empty.
    fn filled(&self, words: &str) -> String {
        let mut text = words.to_owned();
        for slot in slots_of(words) {
            text = text.replace(&format!("{{{slot}}}"), self.slots.get(slot).map_or("", String::as_str));
        }
        text
    }
}

/// The slots that a text mentions.
fn slots_of(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|tail| tail.split_once('}').map(|(slot, _)| slot))
}

#[cfg(test)]
mod tests;
