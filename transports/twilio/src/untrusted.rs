//! What anyone may send, without a socket: the entrances for fuzzing. Nothing here panics or grows beyond its input,
//! whatever the bytes are.

use crate::message::{self, Message};
use crate::settings::TwilioSettings;
use crate::stream::frame::{Frames, Received};
use crate::stream::sound::Splitter;
use crate::token::Tokens;
use crate::{signature, twiml, webhook};
use axum::http::{HeaderMap, HeaderValue};
use std::collections::BTreeMap;
use url::form_urlencoded;
use voiced_core::packet::Packet;
use voiced_secret::Secret;

/// A message of a stream; its sound is decoded too. The parser for media says what the whole one says.
pub fn message(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut sound = Vec::new();
    let parsed = message::parse(text, Some("MZ1"));
    assert_eq!(parsed, message::parse_whole(text, Some("MZ1")));
    if let Ok(Message::Media(media)) = parsed
        && media.decode(&mut sound).is_ok()
    {
        assert!(sound.len() <= bytes.len());
    }
}

/// A client's bytes behind the upgrade, as far as the packets that its media become.
pub fn stream(bytes: &[u8]) {
    let (mut line, mut sound_len) = (Line::default(), 0);
    let used = line.hear(&mut bytes.to_vec(), |packet| sound_len += packet.payload().len());
    assert!(used <= bytes.len() && sound_len <= used);
}

/// A line without its socket: what a packet costs, from bytes to packet.
#[derive(Debug)]
pub struct Line {
    frames: Frames,
    splitter: Splitter,
    sound: Vec<u8>,
}

/// Longest message of a line, in bytes; the default.
const MESSAGE_BYTES_MAX: usize = 64 * 1_024;

impl Default for Line {
    fn default() -> Self {
        Self { frames: Frames::new(MESSAGE_BYTES_MAX), splitter: Splitter::default(), sound: Vec::new() }
    }
}

impl Line {
    /// Hands on the packets in these bytes, which are unmasked where they lie, up to what is no WebSocket; the bytes that
    /// whole messages took.
    pub fn hear(&mut self, bytes: &mut [u8], mut hand_on: impl FnMut(Packet)) -> usize {
        let mut used = 0;
        while let Ok(Some((len, received))) = self.frames.take(&mut bytes[used..]) {
            if let Received::Text(text) = received
                && let Ok(Message::Media(media)) = message::parse(text, None)
                && media.decode(&mut self.sound).is_ok()
            {
                self.splitter.split(media.chunk, media.timestamp, &self.sound, &mut hand_on);
            }
            used += len;
        }
        used
    }
}

/// The signature of a request, one line each: signature, settings of the signature, path with query, form.
pub fn signature(bytes: &[u8]) {
    let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
    let mut next = || parts.next().unwrap_or_default();
    let (signature, named, path, form) = (next(), next(), next(), next());
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-twilio-signature", signature), ("x-twilio-webhooks-signature-settings", named)] {
        if let Ok(value) = HeaderValue::from_bytes(value)
            && !value.is_empty()
        {
            headers.insert(name, value);
        }
    }
    let settings = settings();
    let fields = form_urlencoded::parse(form).into_owned().collect();
    let path = String::from_utf8_lossy(path);
    let urls = [settings.public_url(&path), settings.stream_url(&path), path.into_owned()];
    let believed = urls.iter().any(|url| signature::verify(&settings, &headers, url, &fields).is_ok());
    assert!(!believed, "a signature was guessed");
}

/// A webhook's query and form, one line each, as far as the TwiML that answers a believed one.
pub fn form(bytes: &[u8]) {
    let (query, form) = bytes.split_at(bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0));
    let fields = form_urlencoded::parse(form).into_owned().collect();
    let parameters = webhook::parameters(&fields, &String::from_utf8_lossy(query));
    let document = twiml::connect("wss://voice.example.test/twilio/stream/CA1", &parameters);
    // two tags of a parameter, and those around all: nothing of a caller's opens another
    assert_eq!(document.matches('<').count(), 7 + parameters.len(), "{document}");
}

/// The parameters of a stream's start, its token among them: a line is a name, `=` and a value.
pub fn token(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let parameters: BTreeMap<_, _> = text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert!(Tokens::new(&settings()).redeem(0, "CA1", &parameters).is_err(), "a token was guessed");
}

fn settings() -> TwilioSettings {
    let key = Some(Secret::new("0123456789abcdef0123456789abcdef"));
    let webhook_url = url::Url::parse("https://voice.example.test").expect("a URL");
    TwilioSettings { auth_token: key.clone(), shared_key: key, ..TwilioSettings::new(webhook_url) }
}
