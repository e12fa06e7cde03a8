//! From IPA to the ids that a Piper voice was trained on.
//!
//! A sentence is `^ _ (phoneme _)* $`, where a phoneme is one code point of decomposed Unicode. Stress marks, spaces
//! between words and the marks that end clauses are phonemes too; what the voice does not know is left out.

use std::collections::HashMap;

/// A voice's table, as its settings have it.
pub type IdMap = HashMap<String, Vec<i64>>;

/// Phonemes of one inference, about half a minute of sound: attention costs memory by the square of this.
const PHONEMES_MAX: usize = 600;

/// The table of one voice.
pub struct PhonemeIds {
    ids: HashMap<char, Vec<i64>>,
    begin: Vec<i64>,
    pad: Vec<i64>,
    end: Vec<i64>,
}

impl PhonemeIds {
    /// Takes a voice's table; refuses one without the three frame symbols.
    pub fn new(mut map: IdMap) -> Result<Self, &'static str> {
        let mut frame = |symbol| map.remove(symbol).ok_or("phoneme_id_map lacks `^`, `_` or `$`");
        let (begin, pad, end) = (frame("^")?, frame("_")?, frame("$")?);
        let single = |key: &str| {
            let mut chars = key.chars();
            chars.next().filter(|_| chars.next().is_none())
        };
        let ids = map.into_iter().filter_map(|(key, ids)| Some((single(&key)?, ids))).collect();
        Ok(Self { ids, begin, pad, end })
    }

    /// The ids of one sentence, given its clauses' IPA and endings; a very long sentence becomes several.
    pub fn of_sentence(&self, clauses: impl Iterator<Item = (String, char)>) -> Vec<Vec<i64>> {
        let mut sentence = String::new();
        for (ipa, end) in clauses {
            if !sentence.is_empty() {
                sentence.push(' ');
            }
            push_phonemes(&ipa, &mut sentence);
            sentence.push(end);
        }
        let mut parts = vec![String::new()];
        let mut length = 0;
        for word in sentence.split_inclusive(' ') {
            let phonemes = word.chars().count();
            if length > 0 && length + phonemes > PHONEMES_MAX {
                parts.push(String::new());
                length = 0;
            }
            length += phonemes;
            if let Some(part) = parts.last_mut() {
                part.extend(word.chars().take(PHONEMES_MAX));
            }
        }
        parts.iter().map(|part| self.framed(part)).collect()
    }

    fn framed(&self, phonemes: &str) -> Vec<i64> {
        let mut framed = [&*self.begin, &*self.pad].concat();
        for ids in phonemes.chars().filter_map(|phoneme| self.ids.get(&phoneme)) {
            framed.extend_from_slice(ids);
            framed.extend_from_slice(&self.pad);
        }
        framed.extend_from_slice(&self.end);
        framed
    }
}

/// Appends IPA, decomposed, without the flags in brackets that tell of a change of language.
fn push_phonemes(ipa: &str, sentence: &mut String) {
    let mut in_flag = false;
    for c in ipa.chars() {
        match c {
            '(' => in_flag = true,
            ')' => in_flag = false,
            _ if in_flag => {}
            // the only precomposed letters of the IPA that espeak-ng writes
            'ç' => sentence.push_str("c\u{327}"),
            'ã' => sentence.push_str("a\u{303}"),
            'ẽ' => sentence.push_str("e\u{303}"),
            'ĩ' => sentence.push_str("i\u{303}"),
            'õ' => sentence.push_str("o\u{303}"),
            'ũ' => sentence.push_str("u\u{303}"),
            _ => sentence.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voice() -> PhonemeIds {
        let symbols = ["_", "^", "$", " ", ",", "?", "a", "b", "ˈ", "c", "\u{327}"];
        let map = symbols.iter().zip(0..).map(|(symbol, id)| ((*symbol).to_owned(), vec![id])).collect();
        PhonemeIds::new(map).expect("the frame symbols are there")
    }

    #[test]
    fn a_sentence_is_framed_padded_and_keeps_stress_and_marks() {
        let clauses = [("(fr)ˈa(en-us)".to_owned(), ','), ("bzç".to_owned(), '?')];
        let expected: Vec<i64> = vec![1, 0, 8, 0, 6, 0, 4, 0, 3, 0, 7, 0, 9, 0, 10, 0, 5, 0, 2];
        assert_eq!(voice().of_sentence(clauses.into_iter()), vec![expected]);
    }

    #[test]
    fn a_sentence_too_long_for_one_inference_becomes_several() {
        let parts = voice().of_sentence([("ab ".repeat(1_000), '?')].into_iter());
        assert_eq!(parts.len(), 6);
        assert!(parts.iter().all(|ids| ids.len() <= 2 * PHONEMES_MAX + 3));
    }
}
