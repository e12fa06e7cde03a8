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
    let ends = |byte: u8| byte == b'"' || byte == b'\\' || byte < b' ';
    let (words, _) = bytes.as_chunks::<16>();
    // without a way out within a word, so that it is one comparison of 16 bytes
    let plain = words.iter().take_while(|word| !word.iter().fold(false, |found, byte| found | ends(*byte))).count() * 16;
    plain + bytes[plain..].iter().take_while(|byte| !ends(**byte)).count()
}
