//! What the words of a transcript say about a turn: compared without case and marks, backchannel, completeness.

use crate::leg::{TextEnding, TranscriptHint};

/// Words that only say "I am listening"; alone they do not interrupt the agent.
const BACKCHANNEL: [&str; 28] = [
    "mhm", "mm", "mmm", "mmhm", "hm", "hmm", "uh", "huh", "uhhuh", "aha", "ah", "oh", "ok", "okay", "right", "yeah", "yep", "yup", "sure", "good", "great",
    "cool", "fine", "alright", "see", "i", "got", "it",
];
/// Backchannel is short; a longer row of such words says something.
const BACKCHANNEL_WORDS_MAX: usize = 4;

/// Words after which nobody stops: conjunctions, prepositions, articles, pronouns, fillers.
const TRAILING: [&str; 58] = [
    "and", "or", "but", "so", "because", "cause", "if", "when", "that", "which", "who", "then", "than", "as", "with", "for", "to", "of", "in", "on", "at",
    "from", "by", "the", "a", "an", "my", "our", "your", "is", "are", "was", "its", "um", "uh", "uhm", "er", "erm", "hm", "like", "well", "also", "i", "im",
    "he", "she", "they", "we", "their", "very", "into", "upon", "between", "during", "until", "whose", "every", "lets",
];

const NUMBER_WORDS: [&str; 12] = ["zero", "oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "double"];

/// The words of a text without case and punctuation, one space between: what two transcripts are compared by.
pub(super) fn normalised(text: &str) -> String {
    words(text).join(" ")
}

fn words(text: &str) -> Vec<String> {
    let bare = |word: &str| word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    text.split(|c: char| c.is_whitespace() || matches!(c, '-' | '—' | '…' | '/')).map(bare).filter(|word| !word.is_empty()).collect()
}

/// What this text says about the turn.
pub(super) fn hint(text: &str, settled: bool) -> TranscriptHint {
    let words = words(text);
    let backchannel = !words.is_empty() && words.len() <= BACKCHANNEL_WORDS_MAX && words.iter().all(|word| BACKCHANNEL.contains(&word.as_str()));
    TranscriptHint { words: words.len().min(usize::from(u16::MAX)) as u16, backchannel, ending: ending(text, &words), settled }
}

fn ending(text: &str, words: &[String]) -> TextEnding {
    let Some(last) = words.last() else { return TextEnding::Unmarked };
    let text = text.trim_end();
    let open = text.ends_with(['…', ',', ';', ':', '-', '—']) || text.ends_with("...");
    if open || TRAILING.contains(&last.as_str()) || open_number(words) {
        return TextEnding::Open;
    }
    if text.ends_with(['.', '!', '?', '。', '！', '？']) { TextEnding::Complete } else { TextEnding::Unmarked }
}

/// The text ends in a short row of digits, as when a telephone number is being dictated.
fn open_number(words: &[String]) -> bool {
    let digits =
        |word: &String| -> usize { if word.chars().all(|c| c.is_ascii_digit()) { word.len() } else { usize::from(NUMBER_WORDS.contains(&word.as_str())) } };
    let row: Vec<usize> = words.iter().rev().map(digits).take_while(|&count| count > 0).collect();
    // one group alone ("at 12.", "the two.") is an answer; several groups that are no whole number yet are not
    row.len() >= 2 && row.iter().sum::<usize>() < WHOLE_NUMBER_DIGITS
}

/// Digits from which on a dictated number may be whole: the shortest national telephone numbers.
const WHOLE_NUMBER_DIGITS: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backchannel_is_told_from_speech() {
        for text in ["Mhm.", "Okay, right", "uh-huh", "Yeah, I see."] {
            assert!(hint(text, false).backchannel, "{text}");
        }
        for text in ["", "No.", "Okay, stop that", "yes yes yeah right okay sure"] {
            assert!(!hint(text, false).backchannel, "{text}");
        }
    }

    #[test]
    fn a_text_is_complete_with_a_mark_and_without_a_loose_end() {
        for text in ["My sink leaks.", "Is it 12?", "It is 5 5 5 1 2 3 4.", "Flat two.", "It has been a while."] {
            assert_eq!(hint(text, false).ending, TextEnding::Complete, "{text}");
        }
        for text in ["My sink and.", "my sink and", "Well, um.", "It's 5 5 5.", "one two three.", "I think...", "My sink,", "and then she", "into"] {
            assert_eq!(hint(text, false).ending, TextEnding::Open, "{text}");
        }
        for text in ["", "my sink leaks", "yes"] {
            assert_eq!(hint(text, false).ending, TextEnding::Unmarked, "{text}");
        }
    }

    #[test]
    fn words_are_compared_without_case_and_marks() {
        assert_eq!(normalised("It's a LEAK, right?"), normalised("its a leak right"));
        assert_ne!(normalised("a leak"), normalised("a leek"));
    }
}
