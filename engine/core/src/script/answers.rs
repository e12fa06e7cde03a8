//! What a caller's answer says, by the kind of answer that is wanted.

use super::Kind;
use std::collections::BTreeMap;

const YES: [&str; 16] =
    ["yes", "yeah", "yep", "yup", "sure", "correct", "right", "please", "ok", "okay", "exactly", "absolutely", "fine", "good", "affirmative", "aye"];
const NO: [&str; 9] = ["no", "nope", "nah", "not", "wrong", "incorrect", "don't", "dont", "never"];
const NUMBERS: [&str; 30] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
    "thirty",
    "forty",
    "fifty",
    "sixty",
    "seventy",
    "eighty",
    "ninety",
    "hundred",
    "thousand",
];
/// Words that come before the answer proper.
const LEAD_INS: [&str; 22] = [
    "my address is",
    "the address is",
    "address is",
    "i live at",
    "i live on",
    "i am at",
    "i'm at",
    "we are at",
    "we're at",
    "you can come to",
    "it is",
    "it's",
    "that is",
    "that's",
    "yes",
    "sure",
    "okay",
    "um",
    "uh",
    "well",
    "so",
    "at",
];

/// The value of an answer of this kind, `None` when it does not fit.
pub(super) fn value(kind: Kind, text: &str) -> Option<String> {
    let words = words(text);
    match kind {
        Kind::Text => (!words.is_empty()).then(|| plain(text)),
        Kind::Address => (words.len() >= 2 && words.iter().any(|word| is_number(word))).then(|| without_lead_in(&plain(text))),
        Kind::Number => {
            let digits: String = words.iter().filter(|word| has_digit(word)).flat_map(|word| word.chars()).filter(char::is_ascii_digit).collect();
            let spelled: Vec<&str> = words.iter().map(String::as_str).filter(|word| is_number(word)).collect();
            if digits.is_empty() { (!spelled.is_empty()).then(|| spelled.join(" ")) } else { Some(digits) }
        }
        Kind::YesNo => yes_or_no(&words).map(str::to_owned),
    }
}

/// Which stage a word of `accept` leads to; of several words the one said first decides.
pub(super) fn chosen<'a>(kind: Kind, accept: &'a BTreeMap<String, String>, text: &str) -> Option<&'a str> {
    let words = words(text);
    if kind == Kind::YesNo {
        return accept.get(yes_or_no(&words)?).map(String::as_str);
    }
    let said = format!(" {} ", words.join(" "));
    let place = |key: &str| said.find(&format!(" {} ", self::words(key).join(" ")));
    accept.iter().filter_map(|(key, stage)| Some((place(key)?, stage))).min_by_key(|(at, _)| *at).map(|(_, stage)| stage.as_str())
}

/// The text without the mark at its end.
pub(super) fn plain(text: &str) -> String {
    text.trim().trim_end_matches(['.', ',', '!', '?', ';', ' ']).to_owned()
}

/// A "no" anywhere wins: "no, that's not right" and "yes, no, wait" must not send anybody.
fn yes_or_no(words: &[String]) -> Option<&'static str> {
    let any = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    if any(&NO) { Some("no") } else { any(&YES).then_some("yes") }
}

fn without_lead_in(text: &str) -> String {
    let mut rest = text;
    // each lead-in is taken at most once, so the loop is as long as the list
    for _ in 0..LEAD_INS.len() {
        let stripped = LEAD_INS.iter().find_map(|lead_in| {
            let tail = rest.get(lead_in.len()..)?;
            let same = rest.get(..lead_in.len())?.eq_ignore_ascii_case(lead_in);
            (same && tail.starts_with([' ', ','])).then(|| tail.trim_start_matches([' ', ',']))
        });
        match stripped {
            Some(tail) if !tail.is_empty() => rest = tail,
            _ => break,
        }
    }
    rest.to_owned()
}

fn is_number(word: &str) -> bool {
    has_digit(word) || word.split('-').any(|part| NUMBERS.contains(&part))
}

fn has_digit(word: &str) -> bool {
    word.contains(|c: char| c.is_ascii_digit())
}

fn words(text: &str) -> Vec<String> {
    let bare = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase().replace('’', "'");
    text.split_whitespace().map(bare).filter(|word| !word.is_empty()).collect()
}
