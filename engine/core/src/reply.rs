//! One attempt at a reply, from the question to its last heard word.
//!
//! Tokens become phrases ([`phrase`]); each phrase is spoken and its length in ms noted, so that when the caller cuts
//! in, the words that were heard can be told from those that were not.

pub mod phrase;

use crate::id::TurnId;
use crate::leg::HeardUntil;
use phrase::Phraser;

/// Characters of a reply at most, some five minutes of speech; the rest of a runaway answer is not said.
pub const REPLY_CHARS_MAX: usize = 4_000;
/// How long a word takes, in ms, for a phrase whose sound is not complete: rather long, so that no unheard word is claimed.
const WORD_MS: u32 = 400;

/// Which reply, and which attempt at it: whatever names another pair is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyId {
    /// The turn it answers.
    pub turn: TurnId,
    /// The attempt, from 0.
    pub attempt: u32,
}

/// What a reply has said and what of it was heard.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Which one.
    pub id: ReplyId,
    phraser: Phraser,
    phrases: Vec<Phrase>,
    chars: usize,
    complete: bool,
    heard: usize,
}

#[derive(Clone, Debug)]
struct Phrase {
    text: String,
    ms: u32,
    complete: bool,
}

impl Reply {
    /// Nothing said yet.
    pub fn new(id: ReplyId) -> Self {
        Self { id, phraser: Phraser::default(), phrases: Vec::new(), chars: 0, complete: false, heard: 0 }
    }

    /// Takes a piece of text; returns the phrases to be spoken now, with their numbers.
    pub fn say(&mut self, text: &str) -> Vec<(u32, String)> {
        let room = REPLY_CHARS_MAX.saturating_sub(self.chars);
        if self.complete || room == 0 {
            return Vec::new();
        }
        let text: String = text.chars().take(room).collect();
        self.chars += text.chars().count();
        let mut cut = Vec::new();
        self.phraser.push(&text, &mut cut);
        self.number(cut)
    }

    /// A phrase of its own, before all text that is no phrase yet.
    pub fn interject(&mut self, text: &str) -> Vec<(u32, String)> {
        self.number(vec![text.to_owned()])
    }

    /// No more text; returns the last phrases to be spoken.
    pub fn complete(&mut self) -> Vec<(u32, String)> {
        let mut cut = Vec::new();
        if !self.complete {
            self.complete = true;
            self.phraser.flush(&mut cut);
        }
        self.number(cut)
    }

    /// More text comes later; returns the phrases to be spoken until then.
    pub fn pause(&mut self) -> Vec<(u32, String)> {
        let mut cut = Vec::new();
        self.phraser.flush(&mut cut);
        self.number(cut)
    }

    /// Forgets the words that are no phrase yet: the model died in the middle of them.
    pub fn break_off(&mut self) {
        self.phraser = Phraser::default();
    }

    fn number(&mut self, cut: Vec<String>) -> Vec<(u32, String)> {
        let numbered: Vec<_> = (self.phrases.len() as u32..).zip(cut).collect();
        self.phrases.extend(numbered.iter().map(|(_, text)| Phrase { text: text.clone(), ms: 0, complete: false }));
        numbered
    }

    /// All of its text is known.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Phrases so far.
    pub fn phrases(&self) -> u32 {
        self.phrases.len() as u32
    }

    /// More sound of a phrase came from the voice.
    pub fn sounded(&mut self, phrase: u32, ms: u32) {
        if let Some(phrase) = self.phrases.get_mut(phrase as usize) {
            phrase.ms = phrase.ms.saturating_add(ms);
        }
    }

    /// All sound of a phrase came from the voice.
    pub fn phrase_complete(&mut self, phrase: u32) {
        if let Some(phrase) = self.phrases.get_mut(phrase as usize) {
            phrase.complete = true;
        }
    }

    /// The caller heard a phrase, and so those before it, to the end.
    pub fn phrase_heard(&mut self, phrase: u32) {
        self.heard = self.heard.max(phrase as usize + 1).min(self.phrases.len());
    }

    /// All phrases so far were heard to the end.
    pub fn is_heard(&self) -> bool {
        self.heard == self.phrases.len()
    }

    /// Everything it has said.
    pub fn text(&self) -> String {
        self.join(self.phrases.len(), "")
    }

    /// What it has said from this phrase on.
    pub fn text_from(&self, phrase: u32) -> String {
        let texts = self.phrases.iter().skip(phrase as usize).map(|phrase| phrase.text.as_str());
        texts.collect::<Vec<_>>().join(" ")
    }

    /// The phrases known to be heard to the end.
    pub fn heard_text(&self) -> String {
        self.join(self.heard, "")
    }

    /// What was heard until here: whole phrases, then as many words of the cut one as fit its heard share.
    pub fn heard_until(&self, until: HeardUntil) -> String {
        let whole = self.heard.max((until.phrase as usize).min(self.phrases.len()));
        match self.phrases.get(until.phrase as usize) {
            Some(phrase) if until.phrase as usize >= whole => self.join(whole, &phrase.until(until.phrase_ms)),
            _ => self.join(whole, ""),
        }
    }

    fn join(&self, whole: usize, part: &str) -> String {
        let texts = self.phrases[..whole].iter().map(|phrase| phrase.text.as_str());
        texts.chain((!part.is_empty()).then_some(part)).collect::<Vec<_>>().join(" ")
    }
}

impl Phrase {
    fn until(&self, heard_ms: u32) -> String {
        let words: Vec<&str> = self.text.split_whitespace().collect();
        let spoken_ms = if self.complete { self.ms } else { self.ms.max(words.len() as u32 * WORD_MS) };
        let heard = words.len() as u64 * u64::from(heard_ms) / u64::from(spoken_ms.max(1));
        words[..words.len().min(heard as usize)].join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Reply {
        let mut reply = Reply::new(ReplyId { turn: TurnId(1), attempt: 0 });
        reply.say(text);
        reply.complete();
        reply
    }

    #[test]
    fn a_cut_phrase_counts_the_share_of_its_words_that_was_heard() {
        let mut reply = reply("One two three four. Five six seven eight.");
        for phrase in 0..2 {
            reply.sounded(phrase, 1_000);
            reply.phrase_complete(phrase);
        }
        let heard = |phrase, phrase_ms| reply.heard_until(HeardUntil { phrase, phrase_ms });
        assert_eq!(heard(0, 0), "");
        assert_eq!(heard(0, 740), "One two");
        assert_eq!(heard(1, 500), "One two three four. Five six");
        assert_eq!(heard(1, 5_000), "One two three four. Five six seven eight.");
        assert_eq!(heard(9, 100), "One two three four. Five six seven eight.");
    }

    #[test]
    fn of_a_phrase_still_being_synthesised_no_unheard_word_is_claimed() {
        let mut reply = reply("One two three four five six.");
        reply.sounded(0, 500);
        assert_eq!(reply.heard_until(HeardUntil { phrase: 0, phrase_ms: 500 }), "One");
    }

    #[test]
    fn a_runaway_answer_is_cut() {
        let reply = reply(&"many words. ".repeat(1_000));
        assert!(reply.text().chars().count() <= REPLY_CHARS_MAX);
    }
}
