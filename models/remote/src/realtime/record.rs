//! The provider's record of the conversation, kept to what was heard.
//!
//! The model's own answers and the caller's sound are in it by themselves. Before each question it is brought to our history:
//! of the last answer goes what the caller did not hear, all of it when it was only prepared; and what was said without the
//! model (a greeting, an apology, another model's answer), written or whispered comes in. A new connection's record is empty
//! and gets all of the history as text.

use super::{RealtimeSound, wire};
use serde_json::Value;
use std::collections::VecDeque;
use voiced_core::model::{Message, Speaker};

/// Transcripts by which the caller's own words are known in the history: those of a few turns.
const TRANSCRIPTS_MAX: usize = 32;
/// The place before all items.
const BEGIN: &str = "root";

pub(super) struct Record {
    sound: RealtimeSound,
    /// The history that it was last brought to: how many messages of it are not to change, and the last of these.
    base: Option<(usize, Words)>,
    /// The item behind which words belong that were said before the caller's newest.
    place: Option<String>,
    /// The newest item.
    newest: Option<String>,
    /// What the caller said to the model, and what it was given of it as text, without marks and case.
    known: VecDeque<Vec<String>>,
    /// The last answer.
    answer: Vec<Item>,
    items: u64,
}

/// Somebody's words in our history. What tools of the operator's answered is not among them: a realtime model has none.
#[derive(Clone)]
struct Words {
    speaker: Speaker,
    text: String,
}

/// A part of an answer.
struct Item {
    id: String,
    text: String,
    sound_bytes: usize,
}

impl Record {
    pub fn new(sound: RealtimeSound) -> Self {
        Self { sound, base: None, place: None, newest: None, known: VecDeque::new(), answer: Vec::new(), items: 0 }
    }

    /// A new connection has none of it.
    pub fn clear(&mut self) {
        *self = Self { items: self.items, ..Self::new(self.sound) };
    }

    /// The caller's sound became an item.
    pub fn caller_item(&mut self, item: &str) {
        self.newest = Some(item.to_owned());
    }

    /// What the caller said to the model, or what is known of it so far.
    pub fn caller_said(&mut self, text: &str) {
        if self.known.len() == TRANSCRIPTS_MAX {
            self.known.pop_front();
        }
        self.known.push_back(words(text).collect());
    }

    /// The answer has an item.
    pub fn answer_item(&mut self, item: &str) {
        self.answer.push(Item { id: item.to_owned(), text: String::new(), sound_bytes: 0 });
        self.newest = Some(item.to_owned());
    }

    /// An item of the answer has more text and sound.
    pub fn answer_grows(&mut self, item: &str, text: &str, sound_bytes: usize) {
        if let Some(item) = self.answer.iter_mut().rev().find(|known| known.id == item) {
            item.text.push_str(text);
            item.sound_bytes += sound_bytes;
        }
    }

    /// A name for an item of ours.
    pub fn item_id(&mut self) -> String {
        self.items += 1;
        format!("voiced_{}", self.items)
    }

    /// Brings the record to this history, whose last message is what the caller says now.
    pub fn bring_to(&mut self, history: &[Message], out: &mut Vec<Value>) {
        let said = |message: &Message| match message {
            Message::Said { speaker, text } => Some(Words { speaker: *speaker, text: text.clone() }),
            Message::Called(_) => None,
        };
        let history: Vec<Words> = history.iter().filter_map(said).collect();
        let new = self.new_in(&history);
        let said: Vec<String> = new.iter().filter(|message| message.speaker == Speaker::Agent).flat_map(|message| words(&message.text)).collect();
        let (heard_at, heard) = self.heard(&said);
        self.take_back(heard, out);
        let before = new.len().saturating_sub(1);
        let mut agent_words = 0;
        for (index, message) in new.iter().enumerate() {
            let (role, text) = match message.speaker {
                Speaker::Agent => {
                    let from = agent_words;
                    agent_words += words(&message.text).count();
                    ("assistant", without(&message.text, |word| (heard_at..heard_at + heard).contains(&(from + word))))
                }
                Speaker::Caller => ("user", self.not_known(&message.text)),
                Speaker::Supervisor => ("system", crate::tools::whispered(&message.text)),
            };
            if !text.is_empty() {
                let id = self.item_id();
                let place = (index < before).then(|| self.place.clone().unwrap_or_else(|| BEGIN.to_owned()));
                out.push(wire::words(&id, place.as_deref(), role, &text));
                if index >= before || self.newest == self.place {
                    self.newest = Some(id.clone());
                }
                if index < before {
                    self.place = Some(id);
                }
            }
        }
        self.place = self.newest.clone().or_else(|| self.place.clone());
        let pending = usize::from(history.last().is_some_and(|last| last.speaker == Speaker::Caller));
        let base = history.len() - pending;
        self.base = base.checked_sub(1).map(|last| (base, history[last].clone()));
    }

    /// What the history has that the record was not brought to.
    fn new_in(&self, history: &[Words]) -> Vec<Words> {
        let Some((len, last)) = &self.base else { return history.to_vec() };
        let goes_on = |message: &Words| message.speaker == last.speaker && message.text.starts_with(&last.text);
        let at = if history.get(len - 1).is_some_and(goes_on) { Some(len - 1) } else { history.iter().rposition(goes_on) };
        let Some(at) = at else { return history.to_vec() };
        let more = Words { speaker: last.speaker, text: history[at].text[last.text.len()..].trim().to_owned() };
        let more = (!more.text.is_empty()).then_some(more);
        more.into_iter().chain(history[at + 1..].iter().cloned()).collect()
    }

    /// Where in the agent's words the answer is, and how many of its words.
    fn heard(&self, said: &[String]) -> (usize, usize) {
        let answer: Vec<String> = self.answer.iter().flat_map(|item| words(&item.text)).collect();
        let common = |at: usize| said[at..].iter().zip(&answer).take_while(|(said, word)| said == word).count();
        let best = (0..said.len()).map(|at| (at, common(at))).max_by_key(|&(at, common)| (common, std::cmp::Reverse(at)));
        best.unwrap_or((0, 0))
    }

    /// Of the last answer only so many words were heard.
    fn take_back(&mut self, heard: usize, out: &mut Vec<Value>) {
        let answer = std::mem::take(&mut self.answer);
        let has_words = answer.iter().any(|item| words(&item.text).next().is_some());
        let mut left = heard;
        let mut newest = None;
        for item in &answer {
            let all = words(&item.text).count();
            if has_words && left == 0 && (all > 0 || heard == 0) {
                out.push(wire::delete(&item.id));
                if self.newest.as_ref() == Some(&item.id) {
                    self.newest = newest.clone().or_else(|| self.place.clone());
                }
                continue;
            }
            if left < all {
                let chars: usize = item.text.split_whitespace().take(left).map(|word| word.chars().count() + 1).sum();
                let sound_ms = item.sound_bytes / self.sound.bytes_per_ms();
                out.push(wire::truncate(&item.id, (sound_ms * chars / (item.text.chars().count() + 1).max(1)).min(sound_ms) as u64));
            }
            left = left.saturating_sub(all);
            newest = Some(item.id.clone());
        }
        if !answer.is_empty() && newest.is_some() {
            self.place = newest;
        }
    }

    /// What of the caller's words the model has neither heard nor read: text that was written, keys.
    fn not_known(&mut self, text: &str) -> String {
        let said: Vec<String> = words(text).collect();
        let mut is_known = vec![false; said.len()];
        for known in self.known.iter().filter(|known| !known.is_empty() && known.len() <= said.len()) {
            let found = |at: &usize| said[*at..at + known.len()] == known[..] && !is_known[*at];
            if let Some(at) = (0..=said.len() - known.len()).find(found) {
                is_known[at..at + known.len()].fill(true);
            }
        }
        let left: Vec<&String> = said.iter().zip(&is_known).filter(|(_, known)| !**known).map(|(word, _)| word).collect();
        // a transcript that changed later is known too, if not word by word
        let of_known = left.iter().filter(|word| self.known.iter().flatten().any(|known| known == **word)).count();
        if of_known * 2 > left.len() || left.is_empty() {
            return String::new();
        }
        let text = without(text, |word| is_known[word]);
        self.caller_said(&text);
        text
    }
}

/// The words of a text, without marks and case.
fn words(text: &str) -> impl Iterator<Item = String> {
    let bare = |word: &str| word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    text.split_whitespace().map(bare).filter(|word| !word.is_empty())
}

/// A text without those of its words.
fn without(text: &str, leave_out: impl Fn(usize) -> bool) -> String {
    let mut number = 0;
    let mut left = Vec::new();
    for word in text.split_whitespace() {
        let counts = word.chars().any(char::is_alphanumeric);
        if !(counts && leave_out(number)) && (counts || !left.is_empty()) {
            left.push(word);
        }
        number += usize::from(counts);
    }
    left.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(messages: &[(Speaker, &str)]) -> Vec<Message> {
        messages.iter().map(|(speaker, text)| Message::said(*speaker, *text)).collect()
    }

    const AGENT: Speaker = Speaker::Agent;
    const CALLER: Speaker = Speaker::Caller;

    /// A record of a call whose first answer, of 1 s, has come.
    fn answered(answer: &str) -> Record {
        let mut record = Record::new(RealtimeSound::Mulaw);
        record.caller_item("c1");
        record.caller_said("My sink leaks.");
        let mut out = Vec::new();
        record.bring_to(&history(&[(AGENT, "Hello."), (CALLER, "My sink leaks.")]), &mut out);
        assert_eq!(out, [wire::words("voiced_1", Some("root"), "assistant", "Hello.")], "the caller's own words are there as sound");
        record.answer_item("a1");
        record.answer_grows("a1", answer, 8_000);
        record
    }

    fn then(record: &mut Record, messages: &[(Speaker, &str)]) -> Vec<Value> {
        let begin = [(AGENT, "Hello.")];
        let mut out = Vec::new();
        record.bring_to(&history(&[&begin[..], messages].concat()), &mut out);
        out
    }

    #[test]
    fn what_was_heard_stays_and_the_rest_goes() {
        let answer = "One two three four five.";
        for (heard, expected) in [("One two three four five.", vec![]), ("One two", vec![wire::truncate("a1", 320)])] {
            let mut record = answered(answer);
            record.caller_item("c2");
            record.caller_said("And now?");
            assert_eq!(then(&mut record, &[(CALLER, "My sink leaks."), (AGENT, heard), (CALLER, "And now?")]), expected, "{heard}");
        }
    }

    #[test]
    fn an_answer_that_was_only_prepared_leaves_no_trace() {
        let mut record = answered("One two three.");
        record.answer_item("tool");
        record.caller_item("c2");
        record.caller_said("And now?");
        assert_eq!(then(&mut record, &[(CALLER, "My sink leaks. And now?")]), [wire::delete("a1"), wire::delete("tool")]);
    }

    #[test]
    fn what_was_said_without_the_model_or_written_comes_in_at_its_place() {
        let mut record = answered("One two.");
        let messages = [(CALLER, "My sink leaks."), (AGENT, "One moment. One two. Still there?"), (Speaker::Supervisor, "Be brief."), (CALLER, "12 Oak")];
        let expected = [
            wire::words("voiced_2", Some("a1"), "assistant", "One moment. Still there?"),
            wire::words("voiced_3", Some("voiced_2"), "system", "Your supervisor tells you, unheard by the caller: Be brief."),
            wire::words("voiced_4", None, "user", "12 Oak"),
        ];
        assert_eq!(then(&mut record, &messages), expected);
        assert_eq!(then(&mut record, &messages), [] as [Value; 0], "once");
    }

    #[test]
    fn the_same_words_again_are_another_answer() {
        let mut record = answered("Thank you.");
        record.caller_said("Five.");
        assert_eq!(then(&mut record, &[(CALLER, "My sink leaks."), (AGENT, "Thank you."), (CALLER, "Five.")]), [] as [Value; 0]);
        record.answer_item("a2");
        record.answer_grows("a2", "Thank you.", 8_000);
        record.caller_said("Six.");
        let messages = [(CALLER, "My sink leaks."), (AGENT, "Thank you."), (CALLER, "Five. Six.")];
        assert_eq!(then(&mut record, &messages), [wire::delete("a2")]);
    }

    #[test]
    fn a_new_connection_is_told_all_of_it() {
        let mut record = answered("One two.");
        record.clear();
        record.caller_item("c9");
        record.caller_said("And now?");
        let expected =
            [("voiced_2", "root", "assistant", "Hello."), ("voiced_3", "voiced_2", "user", "My sink leaks."), ("voiced_4", "voiced_3", "assistant", "One")];
        let told = then(&mut record, &[(CALLER, "My sink leaks."), (AGENT, "One"), (CALLER, "And now?")]);
        assert_eq!(told, expected.map(|(id, place, role, text)| wire::words(id, Some(place), role, text)));
    }
}
