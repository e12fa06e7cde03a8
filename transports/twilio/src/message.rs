//! The stream's messages: JSON text to values and back, no socket.
//!
//! Twilio writes its counters as JSON strings and its media format as numbers; both spellings are taken everywhere.
//! Unknown fields are ignored and unknown events are told apart from broken ones, so that a new message of Twilio's
//! is no offence. Media in the form that Twilio gives it is read by a parser of its own, everything else by serde.

mod quick;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// From Twilio.
#[derive(Debug, PartialEq)]
pub(crate) enum Message<'a> {
    Connected,
    Start(Start),
    Media(Media<'a>),
    Dtmf(char),
    Mark(Cow<'a, str>),
    Stop,
    Unknown,
}

/// What a stream says of itself.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Start {
    #[serde(default)]
    pub(crate) stream_sid: String,
    #[serde(default)]
    pub(crate) account_sid: String,
    pub(crate) call_sid: String,
    #[serde(default)]
    pub(crate) custom_parameters: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) media_format: Format,
}

/// Always mu-law at 8 kHz, mono; anything else would be heard as noise.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Format {
    pub(crate) encoding: String,
    pub(crate) sample_rate: Count,
    pub(crate) channels: Count,
}

impl Default for Format {
    fn default() -> Self {
        Self { encoding: "audio/x-mulaw".to_owned(), sample_rate: Count(8_000), channels: Count(1) }
    }
}

/// A piece of sound, still in base64.
#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct Media<'a> {
    /// `inbound` is the caller.
    #[serde(borrow, default = "inbound")]
    pub(crate) track: Cow<'a, str>,
    /// Counts media from 1.
    pub(crate) chunk: Option<Count>,
    /// Since the stream's start, in ms.
    pub(crate) timestamp: Option<Count>,
    #[serde(borrow)]
    pub(crate) payload: Cow<'a, str>,
}

/// A whole number, written as number or as string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u64);

/// Why a message is bad.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadMessage {
    #[error("not a JSON object of Twilio's: {0}")]
    Json(String),
    #[error("`{0}` without its fields")]
    Empty(&'static str),
    #[error("of another stream")]
    OtherStream,
    #[error("not a digit of a keypad")]
    Digit,
    #[error("payload is not base64")]
    Payload,
    #[error("a binary frame")]
    Binary,
}

/// Reads a message. With `stream_sid`, messages that name another stream are bad.
pub(crate) fn parse<'a>(text: &'a str, stream_sid: Option<&str>) -> Result<Message<'a>, BadMessage> {
    match quick::media(text) {
        Some((named, _)) if stream_sid.is_some_and(|expected| expected != named) => Err(BadMessage::OtherStream),
        Some((_, media)) => Ok(Message::Media(media)),
        None => parse_whole(text, stream_sid),
    }
}

/// The same, of any message.
pub(crate) fn parse_whole<'a>(text: &'a str, stream_sid: Option<&str>) -> Result<Message<'a>, BadMessage> {
    let wire: Wire<'a> = serde_json::from_str(text).map_err(|error| BadMessage::Json(error.to_string()))?;
    if let (Some(expected), Some(named)) = (stream_sid, &wire.stream_sid)
        && expected != named
    {
        return Err(BadMessage::OtherStream);
    }
    match wire.event.as_ref() {
        "connected" => Ok(Message::Connected),
        "start" => wire.start.map(|start| Message::Start(start.named(wire.stream_sid))).ok_or(BadMessage::Empty("start")),
        "media" => wire.media.map(Message::Media).ok_or(BadMessage::Empty("media")),
        "mark" => wire.mark.map(|mark| Message::Mark(mark.name)).ok_or(BadMessage::Empty("mark")),
        "dtmf" => wire.dtmf.ok_or(BadMessage::Empty("dtmf")).and_then(|dtmf| key(&dtmf.digit)).map(Message::Dtmf),
        "stop" => Ok(Message::Stop),
        _ => Ok(Message::Unknown),
    }
}

impl Start {
    /// `streamSid` stands both outside and inside of `start`.
    fn named(mut self, outside: Option<Cow<'_, str>>) -> Self {
        if self.stream_sid.is_empty() {
            self.stream_sid = outside.unwrap_or_default().into_owned();
        }
        self
    }
}

impl Media<'_> {
    /// Decodes the sound into `sound`, which is cleared first.
    pub(crate) fn decode(&self, sound: &mut Vec<u8>) -> Result<(), BadMessage> {
        sound.clear();
        STANDARD.decode_vec(self.payload.as_bytes(), sound).map_err(|_| BadMessage::Payload)
    }
}

/// Writes sound to be queued. `stream_sid` must need no escape.
pub(crate) fn media(stream_sid: &str, sound: &[u8]) -> String {
    let mut text = String::with_capacity(80 + stream_sid.len() + sound.len().div_ceil(3) * 4);
    let _ = write!(text, r#"{{"event":"media","streamSid":"{stream_sid}","media":{{"payload":""#);
    STANDARD.encode_string(sound, &mut text);
    text.push_str(r#""}}"#);
    text
}

/// Writes a mark; its name is its number.
pub(crate) fn mark(stream_sid: &str, number: u32) -> String {
    format!(r#"{{"event":"mark","streamSid":"{stream_sid}","mark":{{"name":"{number}"}}}}"#)
}

/// Writes a clear.
pub(crate) fn clear(stream_sid: &str) -> String {
    format!(r#"{{"event":"clear","streamSid":"{stream_sid}"}}"#)
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, rename = "streamSid")]
    stream_sid: Option<Cow<'a, str>>,
    start: Option<Start>,
    #[serde(borrow)]
    media: Option<Media<'a>>,
    #[serde(borrow)]
    dtmf: Option<Dtmf<'a>>,
    #[serde(borrow)]
    mark: Option<Mark<'a>>,
}

#[derive(Deserialize)]
struct Dtmf<'a> {
    #[serde(borrow)]
    digit: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Mark<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

fn inbound() -> Cow<'static, str> {
    Cow::Borrowed("inbound")
}

fn key(digit: &str) -> Result<char, BadMessage> {
    let mut chars = digit.chars();
    match (chars.next(), chars.next()) {
        (Some(key @ ('0'..='9' | '*' | '#' | 'A'..='D')), None) => Ok(key),
        _ => Err(BadMessage::Digit),
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }
}

struct CountVisitor;

impl Visitor<'_> for CountVisitor {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number or a string of digits")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Count, E> {
        Ok(Count(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Count, E> {
        value.parse().map(Count).map_err(|_| E::invalid_value(de::Unexpected::Str(value), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_message_of_twilios_documentation_is_understood() {
        let wire = [
            r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#,
            r#"{"event":"start","sequenceNumber":"1","streamSid":"MZ1","start":{"streamSid":"MZ1","accountSid":"AC1","callSid":"CA1","tracks":["inbound"],"customParameters":{"tenant":"acme"},"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}"#,
            r#"{"event":"media","sequenceNumber":"2","streamSid":"MZ1","media":{"track":"inbound","chunk":"1","timestamp":"5","payload":"\/\/8="}}"#,
            r#"{"event":"media","sequenceNumber":3,"streamSid":"MZ1","media":{"track":"inbound","chunk":2,"timestamp":25,"payload":"//8="}}"#,
            r#"{"event":"dtmf","streamSid":"MZ1","sequenceNumber":"5","dtmf":{"track":"inbound_track","digit":"*"}}"#,
            r#"{"event":"mark","sequenceNumber":"4","streamSid":"MZ1","mark":{"name":"17"}}"#,
            r#"{"event":"stop","sequenceNumber":"5","streamSid":"MZ1","stop":{"accountSid":"AC1","callSid":"CA1"}}"#,
            r#"{"event":"someday","streamSid":"MZ1"}"#,
        ];
        let read: Vec<_> = wire.iter().map(|text| parse(text, Some("MZ1")).expect(text)).collect();
        insta::assert_debug_snapshot!(read);
    }

    #[test]
    fn twilios_media_is_read_quickly_and_whatever_is_odd_about_it_slowly() {
        let plain = [
            r#"{"event":"media","sequenceNumber":"2","media":{"track":"inbound","chunk":"1","timestamp":"5","payload":"//8="},"streamSid":"MZ1"}"#,
            r#"{"event":"media","sequenceNumber":"2","streamSid":"MZ1","media":{"track":"inbound","chunk":"1","timestamp":"5","payload":"//8="}}"#,
            r#" { "streamSid": "MZ1", "media": {"payload": "//8=", "timestamp": "5", "chunk": "01", "track": "inbound"}, "event": "media" } "#,
        ];
        let media = Media { track: "inbound".into(), chunk: Some(Count(1)), timestamp: Some(Count(5)), payload: "//8=".into() };
        for text in plain {
            assert_eq!(quick::media(text), Some(("MZ1", Media { track: "inbound".into(), payload: "//8=".into(), ..media })), "{text}");
            assert_eq!(parse_whole(text, Some("MZ1")), parse(text, Some("MZ1")), "{text}");
        }
        for (from, to) in [
            (r#""//8=""#, r#""\/\/8=""#),
            (r#""1""#, "1"),
            (r#""1""#, r#""+1""#),
            (r#""1""#, r#""18446744073709551615""#),
            (r#""chunk""#, r#""chunks""#),
            (r#""media":"#, r#""event":"media","media":"#),
            (r#""track""#, r#""payload":"","track""#),
            ("}}", "}},"),
            ("//8=", "//\u{1}8="),
            (r#""MZ1","#, ""),
            (":{", ":{,"),
            ("inbound", "inb\"ound"),
        ] {
            let odd = plain[1].replace(from, to);
            assert_eq!(quick::media(&odd), None, "{odd}");
        }
    }

    const PLAIN: &str = r#"{"event":"media","sequenceNumber":"2","media":{"track":"inbound","chunk":"1","timestamp":"5","payload":"//8="},"streamSid":"MZ1"}"#;

    proptest! {
        #[test]
        fn the_quick_parser_says_what_the_whole_one_says(
            changes in proptest::collection::vec((0..PLAIN.len(), 0..3_usize, 0..PLAIN.len(), 0..30_usize, "[ -~\u{0}\u{1f}\u{e9}]{0,3}"), 0..4),
        ) {
            let mut text = PLAIN.to_owned();
            for (at, cut, from, len, new) in changes {
                let start = text.floor_char_boundary(at);
                let end = text.floor_char_boundary(start + cut).max(start);
                // a piece of the message comes twice, mostly in the wrong place, or something else comes in
                let piece = PLAIN.get(from..from + len).filter(|_| cut > 0).unwrap_or(&new).to_owned();
                text.replace_range(start..end, &piece);
            }
            prop_assert_eq!(parse(&text, Some("MZ1")), parse_whole(&text, Some("MZ1")), "{}", text);
        }
    }

    #[test]
    fn a_bad_message_says_why() {
        let wire = [
            "",
            "[]",
            r#"{"event":7}"#,
            r#"{"event":"start","start":{"accountSid":"AC1"}}"#,
            r#"{"event":"media"}"#,
            r#"{"event":"media","streamSid":"MZ2","media":{"payload":"//8="}}"#,
            r#"{"event":"media","media":{"payload":"//8=","chunk":"-1"}}"#,
            r#"{"event":"dtmf","dtmf":{"digit":"12"}}"#,
        ];
        for text in wire {
            assert!(parse(text, Some("MZ1")).is_err(), "{text}");
        }
        let Ok(Message::Media(media)) = parse(r#"{"event":"media","media":{"payload":"%%"}}"#, None) else { panic!() };
        assert_eq!(media.decode(&mut Vec::new()), Err(BadMessage::Payload));
    }

    #[test]
    fn what_is_written_is_what_twilio_documents() {
        assert_eq!(media("MZ1", &[0xFF, 0xFF]), r#"{"event":"media","streamSid":"MZ1","media":{"payload":"//8="}}"#);
        assert_eq!(mark("MZ1", 17), r#"{"event":"mark","streamSid":"MZ1","mark":{"name":"17"}}"#);
        assert_eq!(clear("MZ1"), r#"{"event":"clear","streamSid":"MZ1"}"#);
    }
}
