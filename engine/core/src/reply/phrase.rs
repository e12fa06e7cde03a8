//! Tokens → phrases.
//!
//! A voice needs whole phrases, a language model gives bits of words. Tokens are gathered until a boundary is certain:
//! a mark with a space behind it, so that "3.50" and "10:30" stay whole, and not after an abbreviation. The first
//! phrase ends at the first boundary after a few words, so that sound starts early; later ones at sentences, or at
//! clauses once they are long. A clause ends a phrase only when some words follow it, for two sounds never join as well as
//! one: "What is your address, please?" stays whole. What cannot be said aloud (markdown, emojis) is taken out of each phrase.

/// Words before a clause may end the first phrase: fewer sound chopped, more start late.
const FIRST_WORDS_MIN: usize = 3;
/// Words before a sentence may end a phrase: a lone "Yes." goes with what follows.
const SENTENCE_WORDS_MIN: usize = 2;
/// Words before a clause may end a later phrase: shorter ones cost prosody and gain no time.
const CLAUSE_WORDS_MIN: usize = 8;
/// Words that must follow a clause before the next mark: fewer are no phrase of their own. Waiting for them costs the first
/// sound what a language model takes for three words.
const TAIL_WORDS_MIN: usize = 3;
/// Characters of a phrase at most; a text without marks is cut at the last space before it.
pub const PHRASE_CHARS_MAX: usize = 200;

const ABBREVIATIONS: [&str; 24] = [
    "dr", "mr", "mrs", "ms", "prof", "st", "sr", "jr", "vs", "etc", "e.g", "i.e", "approx", "apt", "ave", "rd", "blvd", "dept", "ext", "a.m", "p.m", "inc",
    "ltd", "tel",
];

/// Cuts a growing text into phrases.
#[derive(Clone, Debug, Default)]
pub struct Phraser {
    pending: String,
    any: bool,
}

impl Phraser {
    /// Takes the next piece of text and appends the phrases that are now certain.
    pub fn push(&mut self, token: &str, phrases: &mut Vec<String>) {
        self.pending.push_str(token);
        while let Some(end) = self.boundary() {
            let rest = self.pending.split_off(end);
            self.emit(phrases);
            self.pending = rest;
        }
    }

    /// The text is complete: appends what is left.
    pub fn flush(&mut self, phrases: &mut Vec<String>) {
        self.emit(phrases);
    }

    fn emit(&mut self, phrases: &mut Vec<String>) {
        let phrase = speakable(&std::mem::take(&mut self.pending));
        if !phrase.is_empty() {
            self.any = true;
            phrases.push(phrase);
        }
    }

    /// Byte position just after the first certain boundary.
    fn boundary(&self) -> Option<usize> {
        let text = self.pending.as_str();
        let mut words = 0;
        let mut in_word = false;
        let mut last_space = None;
        // the end of the last clause, and the words up to there
        let mut clause: Option<(usize, usize)> = None;
        for (chars, (at, c)) in text.char_indices().enumerate() {
            if c.is_whitespace() {
                last_space = Some(at);
            }
            // apostrophes, commas and points inside a word or number do not start another word
            if c.is_alphanumeric() {
                words += usize::from(!in_word);
                in_word = true;
            } else if c.is_whitespace() || matches!(c, '—' | '…') {
                in_word = false;
            }
            if let Some((end, before)) = clause
                && words >= before + TAIL_WORDS_MIN
            {
                return Some(end);
            }
            let after = at + c.len_utf8();
            match mark_at(text, at, c) {
                Some(mark) if words < self.words_min(mark) => {}
                Some(Mark::Clause) => clause = Some((after, words)),
                Some(Mark::Sentence | Mark::Line) => return Some(after),
                None => {}
            }
            if chars + 1 >= PHRASE_CHARS_MAX {
                return clause.map(|(end, _)| end).or(last_space).or(Some(after));
            }
        }
        None
    }

    fn words_min(&self, mark: Mark) -> usize {
        match (self.any, mark) {
            (_, Mark::Line) => 1,
            (_, Mark::Sentence) => SENTENCE_WORDS_MIN,
            (false, Mark::Clause) => FIRST_WORDS_MIN,
            (true, Mark::Clause) => CLAUSE_WORDS_MIN,
        }
    }
}

#[derive(Clone, Copy)]
enum Mark {
    Sentence,
    Clause,
    Line,
}

/// What the character at `at` certainly ends, if anything; a mark at the very end of the text is not certain yet.
fn mark_at(text: &str, at: usize, c: char) -> Option<Mark> {
    let before = &text[..at];
    let behind = &text[at + c.len_utf8()..];
    match c {
        '\n' => Some(Mark::Line),
        '。' | '！' | '？' => Some(Mark::Sentence),
        '"' | '”' | ')' | '\'' | '’' if behind.starts_with(char::is_whitespace) => match before.chars().next_back()? {
            '.' | '!' | '?' | '…' => Some(Mark::Sentence),
            _ => None,
        },
        _ if !behind.starts_with(char::is_whitespace) => None,
        '!' | '?' | '…' => Some(Mark::Sentence),
        '.' => full_stop(before, behind).then_some(Mark::Sentence),
        ',' | ';' | ':' | '—' | '–' => {
            let number = before.ends_with(|b: char| b.is_ascii_digit());
            // "555, 1234": whether a number goes on is seen by its next character only
            let next = behind.trim_start().chars().next();
            let open = number && next.is_none_or(|n| n.is_ascii_digit());
            (!open).then_some(Mark::Clause)
        }
        _ => None,
    }
}

/// Whether a point after `before` ends a sentence.
fn full_stop(before: &str, behind: &str) -> bool {
    let word = before.rsplit(|c: char| c.is_whitespace() || c == '(').next().unwrap_or("");
    let lower = word.to_lowercase();
    if lower == "no" {
        // "No. 5" is a number, "No. I" a sentence
        return behind.trim_start().chars().next().is_some_and(|c| !c.is_ascii_digit());
    }
    let initial = word.chars().count() == 1 && word.chars().all(char::is_uppercase) && word != "I";
    // the number of a list's item belongs to the item
    let item = before.trim().chars().all(|c| c.is_ascii_digit());
    !initial && !item && !ABBREVIATIONS.contains(&lower.as_str())
}

/// A text as it can be said: without markdown and emojis, one line; empty when no word is left.
pub fn speakable(text: &str) -> String {
    let text = without_links(text);
    let mut clean = String::with_capacity(text.len());
    for line in text.lines() {
        let line = line.trim();
        let line = ["- ", "* ", "+ ", "• ", "> "].iter().find_map(|mark| line.strip_prefix(mark)).unwrap_or(line);
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            let silent = match c {
                '*' | '`' | '~' | '|' => true,
                '#' => !chars.peek().is_some_and(char::is_ascii_digit),
                '_' => clean.chars().next_back().is_none_or(|b| !b.is_alphanumeric()) || chars.peek().is_none_or(|n| !n.is_alphanumeric()),
                _ => is_emoji(c) || (c.is_control() && c != '\t'),
            };
            if !silent {
                clean.push(c);
            }
        }
        clean.push(' ');
    }
    let words: Vec<&str> = clean.split_whitespace().collect();
    if clean.chars().any(char::is_alphanumeric) { words.join(" ") } else { String::new() }
}

/// `[text](address)` → `text`.
fn without_links(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, (label, behind))) = rest.split_once('[').and_then(|(before, tail)| Some((before, tail.split_once("](")?))) {
        let Some((_, tail)) = behind.split_once(')') else { break };
        out.push_str(before);
        out.push_str(label);
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn is_emoji(c: char) -> bool {
    matches!(u32::from(c), 0x1F000..=0x1FAFF | 0x2600..=0x27BF | 0x2B00..=0x2BFF | 0xFE00..=0xFE0F | 0x200D | 0x20E3 | 0xE0020..=0xE007F)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str, token_chars: usize) -> Vec<String> {
        let (mut phraser, mut phrases) = (Phraser::default(), Vec::new());
        let chars: Vec<char> = text.chars().collect();
        for token in chars.chunks(token_chars) {
            phraser.push(&token.iter().collect::<String>(), &mut phrases);
        }
        phraser.flush(&mut phrases);
        phrases
    }

    #[test]
    fn the_first_phrase_ends_early_and_later_ones_at_sentences() {
        let text = "Thanks for calling, I can help with that. Where is the leak, in the kitchen? Tell me please.";
        let phrases = ["Thanks for calling,", "I can help with that.", "Where is the leak, in the kitchen?", "Tell me please."];
        assert_eq!(cut(text, 1), phrases);
    }

    #[test]
    fn a_clause_is_cut_off_only_when_enough_follows() {
        assert_eq!(cut("What is your address, please? Thank you, sir.", 1), ["What is your address, please?", "Thank you, sir."]);
        assert_eq!(cut("What is your address, please", 1), ["What is your address, please"]);
        assert_eq!(cut("All right then, sir, I will send someone.", 1), ["All right then, sir,", "I will send someone."]);
    }

    #[test]
    fn a_long_sentence_gives_its_first_clause_before_it_ends() {
        let (mut phraser, mut phrases) = (Phraser::default(), Vec::new());
        phraser.push("I am sorry to hear that, and we", &mut phrases);
        assert!(phrases.is_empty());
        phraser.push(" w", &mut phrases);
        assert_eq!(phrases, ["I am sorry to hear that,"]);
    }

    #[test]
    fn phrases_do_not_depend_on_how_tokens_fall() {
        let text = "It is 3.50 at 10:30, said Dr. Jones, who (no. 5, approx. 1,000 ml, please) knew it, too. No. I mean yes! \"Really?\" she asked.\n- one item\n- two";
        let whole = cut(text, 1000);
        for token_chars in 1..12 {
            assert_eq!(cut(text, token_chars), whole, "{token_chars} characters a token");
        }
    }

    #[test]
    fn numbers_times_and_abbreviations_stay_whole() {
        let phrases = cut("That costs about 3.50 with Dr. Smith at 10:30 a.m. on no. 12 St. James road. The number is 555, 1234.", 2);
        assert_eq!(phrases, ["That costs about 3.50 with Dr. Smith at 10:30 a.m. on no. 12 St. James road.", "The number is 555, 1234."]);
    }

    #[test]
    fn what_cannot_be_said_is_left_out() {
        let text = "## **Sure** thing! 😀 See [our page](https://x.example/a_b) or `call`.\n- first_name #5\n- _two_ 👍🏽\n🎉";
        assert_eq!(cut(text, 3).join(" "), "Sure thing! See our page or call. first_name #5 two");
    }

    #[test]
    fn a_text_without_marks_is_cut_between_words() {
        let text = "word ".repeat(200);
        let phrases = cut(&text, 7);
        assert!(phrases.iter().all(|phrase| phrase.chars().count() <= PHRASE_CHARS_MAX));
        assert_eq!(phrases.join(" "), text.trim());
        assert_eq!(cut(&"x".repeat(500), 9).concat(), "x".repeat(500));
    }
}
