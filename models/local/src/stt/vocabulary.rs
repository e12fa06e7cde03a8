//! From tokens back to text: each line of `vocabulary.txt` is one token of byte-level BPE, in which every byte is
//! written as one printable character; a token's bytes joined with its neighbours' are UTF-8.

use std::collections::HashMap;

/// What each token stands for.
pub struct Vocabulary {
    tokens: Vec<Vec<u8>>,
    /// Names of special tokens such as `<|endoftext|>`, which stand for no text.
    special: HashMap<String, usize>,
}

impl Vocabulary {
    /// Reads one token per line.
    pub fn parse(file: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(file).map_err(|error| error.to_string())?;
        let bytes = byte_of_character();
        let mut special = HashMap::new();
        let mut tokens = Vec::new();
        for line in text.lines() {
            let is_special = line.starts_with("<|") && line.ends_with("|>") && line.len() > 4;
            if is_special {
                special.insert(line.to_owned(), tokens.len());
                tokens.push(Vec::new());
            } else {
                tokens.push(line.chars().filter_map(|character| bytes.get(&character).copied()).collect());
            }
        }
        Ok(Self { tokens, special })
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The token of a special name.
    pub fn special(&self, name: &str) -> Result<usize, String> {
        self.special.get(name).copied().ok_or_else(|| format!("the vocabulary has no {name}"))
    }

    /// The text of tokens, without the space that Whisper starts with; empty when there is no letter or digit in it.
    pub fn text(&self, tokens: &[usize]) -> String {
        let bytes: Vec<u8> = tokens.iter().filter_map(|&token| self.tokens.get(token)).flatten().copied().collect();
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        // "." and "..." are what the model writes of noise
        if text.chars().any(char::is_alphanumeric) { text } else { String::new() }
    }
}

/// GPT-2's alphabet: a byte that prints stands for itself, the others in order for the characters from U+0100 on.
fn byte_of_character() -> HashMap<char, u8> {
    let mut next = 0x100;
    (0..=u8::MAX)
        .map(|byte| {
            let character = match byte {
                b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
                _ => {
                    next += 1;
                    char::from_u32(next - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
                }
            };
            (character, byte)
        })
        .collect()
}
