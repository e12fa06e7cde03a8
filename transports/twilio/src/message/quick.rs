//! A media message as Twilio writes it, read without building anything.
//!
//! Fifty of them come each second, and all look alike: text without escapes, numbers as digits in quotes. Whatever looks
//! otherwise in any way (another field, a field twice or not at all, an escape) is left to the whole parser, so this one
//! never has to judge; where it answers, the whole parser would say the same.

use super::{Count, Media};
use std::borrow::Cow;

/// The message's stream and its sound; `None` when the whole parser should look at it.
pub(super) fn media(text: &str) -> Option<(&str, Media<'_>)> {
    let mut reader = Reader { text, at: 0 };
    let (mut is_media, mut stream_sid, mut media) = (false, None, None);
    reader.object(|reader, name| match name {
        "event" if !is_media => {
            is_media = reader.string()? == "media";
            is_media.then_some(())
        }
        "sequenceNumber" => reader.string().map(drop),
        "streamSid" => first(&mut stream_sid, reader.string()?),
        "media" => first(&mut media, fields(reader)?),
        _ => None,
    })?;
    reader.skip_space();
    if !is_media || reader.at != text.len() {
        return None;
    }
    Some((stream_sid?, media?))
}

fn fields<'a>(reader: &mut Reader<'a>) -> Option<Media<'a>> {
    let (mut track, mut chunk, mut timestamp, mut payload) = (None, None, None, None);
    reader.object(|reader, name| match name {
        "track" => first(&mut track, reader.string()?),
        "chunk" => first(&mut chunk, digits(reader.string()?)?),
        "timestamp" => first(&mut timestamp, digits(reader.string()?)?),
        "payload" => first(&mut payload, reader.string()?),
        _ => None,
    })?;
    Some(Media { track: Cow::Borrowed(track?), chunk: Some(chunk?), timestamp: Some(timestamp?), payload: Cow::Borrowed(payload?) })
}

/// Sets what was not set before.
fn first<T>(field: &mut Option<T>, value: T) -> Option<()> {
    field.replace(value).is_none().then_some(())
}

fn digits(text: &str) -> Option<Count> {
    if text.is_empty() || text.len() > DIGITS_MAX {
        return None;
    }
    let add = |sum: u64, byte: u8| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0'));
    text.bytes().try_fold(0, add).map(Count)
}

/// Digits that fit 64 bits whatever they are.
const DIGITS_MAX: usize = 19;

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// An object with a field at least; `field` reads the value of each.
    fn object(&mut self, mut field: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        loop {
            let name = self.string()?;
            self.expect(b':')?;
            field(self, name)?;
            match self.next()? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    /// A text without escapes.
    fn string(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let rest = &self.text[self.at..];
        let len = plain_len(rest.as_bytes());
        let text = rest.get(..len)?;
        self.at += len;
        self.expect_here(b'"')?;
        Some(text)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// The next byte that is no space.
    fn next(&mut self) -> Option<u8> {
        self.skip_space();
        let byte = *self.text.as_bytes().get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn expect_here(&mut self, byte: u8) -> Option<()> {
        let is_here = self.text.as_bytes().get(self.at) == Some(&byte);
        self.at += 1;
        is_here.then_some(())
    }

    fn skip_space(&mut self) {
        while matches!(self.text.as_bytes().get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }
}

/// How far a text goes without a quote, an escape or a control character.
fn plain_len(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let ends = ends(u64::from_le_bytes(*word));
        if ends != 0 {
            return at * 8 + ends.trailing_zeros() as usize / 8;
        }
    }
    bytes.len() - rest.len() + rest.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..b' ')).count()
}

/// Sets the highest bit of the first of 8 bytes that ends a text, and perhaps of later ones: where a byte is less than what
/// is taken from it, the subtraction borrows into that bit.
fn ends(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let less = |word: u64, than: u8| word.wrapping_sub(EACH * than as u64) & !word;
    (less(word ^ (EACH * b'"' as u64), 1) | less(word ^ (EACH * b'\\' as u64), 1) | less(word, b' ')) & (EACH << 7)
}
