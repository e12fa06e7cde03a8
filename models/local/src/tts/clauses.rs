//! Cuts text into sentences and clauses, at the places where a voice pauses.
//!
//! A model writes for the eye: markdown, emoji, quotes, brackets. What has no sound is dropped; what parts the text
//! is kept as the clause's ending, because the voice was trained to hear it. Points inside a word (`3.50`, `10:30`)
//! and after an abbreviation (`Dr. Smith`) part nothing.

/// Characters of one text that are spoken, about two minutes; a phrase of a reply is far shorter.
pub const TEXT_CHARS_MAX: usize = 2_000;
/// Characters of a word: a longer one is no word, and `espeak-ng` reads it letter by letter anyway.
const WORD_CHARS_MAX: usize = 60;

/// A run of words and the mark that ends it: one of `.?!` at a sentence's end, one of `,:;` within.
#[derive(Debug, PartialEq, Eq)]
pub struct Clause {
    /// The words, parted by single spaces.
    pub text: String,
    /// The mark.
    pub end: char,
}

/// The sentences of `text`, each a list of clauses with at least one letter or digit.
pub fn sentences(text: &str) -> Vec<Vec<Clause>> {
    let mut reader = Reader::default();
    let spoken: String = text.chars().take(TEXT_CHARS_MAX).collect();
    for line in spoken.lines() {
        let line: String = line.chars().map(sounding).collect();
        let mut words = line.split_whitespace().peekable();
        while let Some(word) = words.next() {
            reader.word(word, words.peek().copied());
        }
        reader.end_clause('.');
    }
    reader.sentences
}

#[derive(Default)]
struct Reader {
    sentences: Vec<Vec<Clause>>,
    clauses: Vec<Clause>,
    words: String,
}

impl Reader {
    fn word(&mut self, word: &str, next: Option<&str>) {
        let bare = word.trim_end_matches(is_mark);
        let marks = &word[bare.len()..];
        // a dash on its own parts clauses as a comma does
        let marks = if bare == "-" { "," } else { marks };
        if bare.contains(char::is_alphanumeric) {
            if !self.words.is_empty() {
                self.words.push(' ');
            }
            self.words.extend(bare.chars().take(WORD_CHARS_MAX));
        }
        match strongest(marks) {
            Some('.') if is_abbreviation(bare, next) => {}
            Some(mark) => self.end_clause(mark),
            None => {}
        }
    }

    /// Ends the clause in hand, and with a sentence's mark the sentence.
    fn end_clause(&mut self, mark: char) {
        if !self.words.is_empty() {
            self.clauses.push(Clause { text: std::mem::take(&mut self.words), end: mark });
        }
        if ends_sentence(mark)
            && let Some(last) = self.clauses.last_mut()
        {
            last.end = mark;
            self.sentences.push(std::mem::take(&mut self.clauses));
        }
    }
}

/// A character as it is read, or a space for what has no sound.
fn sounding(c: char) -> char {
    match c {
        '’' | '‘' => '\'',
        '—' | '–' => ',',
        '…' => '.',
        '\'' | '$' | '£' | '€' | '%' | '&' | '@' | '+' | '/' | '°' | '-' => c,
        _ if c.is_alphanumeric() || is_mark(c) => c,
        _ => ' ',
    }
}

fn is_mark(c: char) -> bool {
    matches!(c, '.' | '?' | '!' | ',' | ':' | ';')
}

fn ends_sentence(mark: char) -> bool {
    matches!(mark, '.' | '?' | '!')
}

/// Of several marks in a row the one that tells most.
fn strongest(marks: &str) -> Option<char> {
    ['?', '!', '.', ';', ':', ','].into_iter().find(|&mark| marks.contains(mark))
}

/// Whether the point after `word` belongs to the word.
fn is_abbreviation(word: &str, next: Option<&str>) -> bool {
    const TITLES: [&str; 10] = ["mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "no"];
    let Some(next) = next else { return false };
    let follows_small = next.starts_with(char::is_lowercase);
    let initial = word.len() == 1 && word != "I" && word.starts_with(char::is_uppercase);
    // "no." is a number only before one
    let title = TITLES.contains(&word.to_lowercase().as_str()) && (!word.eq_ignore_ascii_case("no") || next.starts_with(|c: char| c.is_ascii_digit()));
    title || initial || (follows_small && word.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let sentence = |clauses: Vec<Clause>| clauses.iter().map(|clause| format!("{}{}", clause.text, clause.end)).collect::<Vec<_>>().join("|");
        sentences(text).into_iter().map(sentence).collect::<Vec<_>>().join(" / ")
    }

    #[test]
    fn text_parts_where_a_reader_breathes() {
        assert_eq!(read("Hello, how can I help you? Sure"), "Hello,|how can I help you? / Sure.");
        assert_eq!(read("Wait — what?! Well… yes"), "Wait,|what? / Well. / yes.");
        assert_eq!(read("- one\n- two: three"), "one. / two:|three.");
    }

    #[test]
    fn points_inside_words_and_after_titles_part_nothing() {
        assert_eq!(read("Dr. Smith paid $3.50 at 10:30 a.m. today."), "Dr Smith paid $3.50 at 10:30 a.m today.");
        assert_eq!(read("No. I can't."), "No. / I can't.");
    }

    #[test]
    fn what_has_no_sound_is_dropped() {
        assert_eq!(read("**Great** 🎉 (really) [[x]]!"), "Great really x!");
        assert_eq!(read(" \n… 🎉 —  ?!"), "");
    }

    #[test]
    fn a_long_text_is_cut() {
        let chars: usize = sentences(&"word ".repeat(10_000)).iter().flatten().map(|clause| clause.text.len()).sum();
        assert!(chars <= TEXT_CHARS_MAX);
    }
}
