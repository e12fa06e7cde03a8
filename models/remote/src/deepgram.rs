//! Deepgram listen v1: what we send and what its messages mean. The session is in `session`.

mod session;

use crate::account::{Account, DEEPGRAM, Scheme, SettingsError};
use crate::stt::{Stt, SttEncoding, SttFeed, SttSession};
use serde::Deserialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use url::Url;

/// Sent when no sound was sent for some seconds; Deepgram closes after 10 s of neither.
pub(crate) const KEEP_ALIVE: &str = r#"{"type":"KeepAlive"}"#;
/// Settle everything sent so far.
pub(crate) const FINALIZE: &str = r#"{"type":"Finalize"}"#;
/// No more sound.
pub(crate) const CLOSE_STREAM: &str = r#"{"type":"CloseStream"}"#;

/// What to ask Deepgram for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeepgramSettings {
    /// Where, and with which key.
    pub account: Account,
    /// E.g. `nova-3`.
    pub model: String,
    /// E.g. `en`; `None` leaves Deepgram's default.
    pub language: Option<String>,
    /// How our sound is encoded.
    pub encoding: SttEncoding,
}

/// Deepgram as a provider of speech to text.
#[derive(Debug)]
pub struct Deepgram {
    settings: Arc<DeepgramSettings>,
    url: Url,
    meter: Arc<SttMeter>,
}

/// Counts over all sessions of one provider.
#[derive(Debug, Default)]
pub struct SttMeter {
    reconnects: AtomicU64,
    lost_audio_ms: AtomicU64,
    bad_messages: AtomicU64,
}

impl Deepgram {
    /// Checks the settings; connects only with a session.
    pub fn new(settings: DeepgramSettings) -> Result<Self, SettingsError> {
        let url = listen_url(&settings)?;
        Ok(Self { settings: Arc::new(settings), url, meter: Arc::default() })
    }

    /// What went wrong so far, over all sessions.
    pub fn meter(&self) -> Arc<SttMeter> {
        Arc::clone(&self.meter)
    }
}

impl Stt for Deepgram {
    fn feed(&self) -> SttFeed {
        match self.settings.encoding {
            SttEncoding::Mulaw8000 => SttFeed::Line,
            SttEncoding::Linear16(_) => SttFeed::Heard,
        }
    }

    fn open(&self) -> SttSession {
        session::open(Arc::clone(&self.settings), self.url.clone(), self.meter())
    }
}

impl SttMeter {
    /// Connections that were lost and made again.
    pub fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    /// Sound that no connection ever took, in ms.
    pub fn lost_audio_ms(&self) -> u64 {
        self.lost_audio_ms.load(Ordering::Relaxed)
    }

    /// Messages that could not be read.
    pub fn bad_messages(&self) -> u64 {
        self.bad_messages.load(Ordering::Relaxed)
    }
}

/// The address of one session.
///
/// `endpointing=false`: our own end of turn decides and asks to finalise; an endpoint of Deepgram's own would leave our
/// request nothing to settle, and such a request may stay unanswered.
fn listen_url(settings: &DeepgramSettings) -> Result<Url, SettingsError> {
    let mut url = settings.account.url(DEEPGRAM, Scheme::WebSocket, "/v1/listen")?;
    let (encoding, rate_hz) = match settings.encoding {
        SttEncoding::Mulaw8000 => ("mulaw", 8_000),
        SttEncoding::Linear16(rate_hz) => ("linear16", rate_hz),
    };
    url.query_pairs_mut()
        .append_pair("model", &settings.model)
        .append_pair("encoding", encoding)
        .append_pair("sample_rate", &rate_hz.to_string())
        .append_pair("channels", "1")
        .append_pair("interim_results", "true")
        .append_pair("endpointing", "false")
        .append_pair("punctuate", "true");
    if let Some(language) = &settings.language {
        url.query_pairs_mut().append_pair("language", language);
    }
    Ok(url)
}

/// A message of Deepgram.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    /// A guess or a settled piece of text.
    Results(Results),
    /// Something that we do not need: metadata, events of its own voice activity.
    Other,
}

/// What was understood of a stretch of sound.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Results {
    /// The words, possibly none.
    pub text: String,
    /// The text will not change any more.
    pub is_final: bool,
    /// This answers our request to finalise.
    pub from_finalize: bool,
    /// Where the stretch ends, in seconds of the connection's sound.
    pub end_s: f64,
}

/// Reads a message.
pub(crate) fn decode(text: &str) -> Result<Message, serde_json::Error> {
    let wire: WireMessage = serde_json::from_str(text)?;
    if wire.kind != "Results" {
        return Ok(Message::Other);
    }
    let text = wire.channel.and_then(|channel| channel.alternatives.into_iter().next()).map(|best| best.transcript);
    Ok(Message::Results(Results {
        text: text.unwrap_or_default().trim().to_owned(),
        is_final: wire.is_final,
        from_finalize: wire.from_finalize,
        end_s: wire.start + wire.duration,
    }))
}

#[derive(Deserialize)]
struct WireMessage {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    is_final: bool,
    #[serde(default)]
    from_finalize: bool,
    #[serde(default)]
    start: f64,
    #[serde(default)]
    duration: f64,
    // other kinds of messages have an array of this name
    #[serde(default, deserialize_with = "channel_object")]
    channel: Option<Channel>,
}

#[derive(Deserialize)]
struct Channel {
    alternatives: Vec<Alternative>,
}

#[derive(Deserialize)]
struct Alternative {
    transcript: String,
}

fn channel_object<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Channel>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Object(Channel),
        Other(serde::de::IgnoredAny),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::Object(channel) => Some(channel),
        Either::Other(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn a_telephone_leg_goes_to_deepgram_as_it_is() {
        let settings = DeepgramSettings {
            account: Account::new("http://127.0.0.1:1", Secret::new("dg-key")),
            model: "nova-3".into(),
            language: Some("en".into()),
            encoding: SttEncoding::Mulaw8000,
        };
        assert_eq!(
            listen_url(&settings).unwrap().as_str(),
            "ws://127.0.0.1:1/v1/listen?model=nova-3&encoding=mulaw&sample_rate=8000&channels=1&interim_results=true\
             &endpointing=false&punctuate=true&language=en"
        );
        assert!(!format!("{:?}", Deepgram::new(settings).unwrap()).contains("dg-key"));
    }

    #[test]
    fn a_recorded_session_decodes_to_its_words() {
        let golden = include_str!("../tests/golden/deepgram.jsonl");
        let messages: Vec<_> = golden.lines().map(|line| decode(line).unwrap()).collect();
        insta::with_settings!({snapshot_path => "../tests/golden", prepend_module_to_snapshot => false}, {
            insta::assert_debug_snapshot!("deepgram", messages);
        });
        assert!(decode("{\"type\":").is_err() && decode("[1]").is_err());
    }
}
