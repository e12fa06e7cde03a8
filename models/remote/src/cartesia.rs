//! Cartesia text to speech over WebSocket: what we send and what its messages mean. The session is in `session`.
//!
//! Each phrase is a context of its own, so that the end of its sound is known exactly. That costs the melody across
//! phrases, which a shared context would keep, and buys a transcript of what was heard that is right to the phrase.

mod session;

use crate::account::{Account, CARTESIA, Scheme, SettingsError};
use crate::pool::Pool;
use crate::tts::{Tts, TtsSession};
use crate::ws::Socket;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use url::Url;

/// The version of the protocol that this file speaks.
const VERSION: &str = "2025-04-16";
/// Rates at which Cartesia speaks.
const RATES_HZ: [u32; 6] = [8_000, 16_000, 22_050, 24_000, 44_100, 48_000];

/// What voice to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CartesiaSettings {
    /// Where, and with which key.
    pub account: Account,
    /// E.g. `sonic-3`.
    pub model: String,
    /// Id of the voice.
    pub voice: String,
    /// E.g. `en`; `None` leaves Cartesia's default.
    pub language: Option<String>,
    /// Rate of the sound: 8000 for a telephone leg, 24000 for others.
    pub rate_hz: u32,
}

/// Cartesia as a voice.
#[derive(Debug)]
pub struct Cartesia {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: CartesiaSettings,
    url: Url,
    pool: Pool,
}

impl Cartesia {
    /// Checks the settings; connects only with a session.
    pub fn new(settings: CartesiaSettings) -> Result<Self, SettingsError> {
        if !RATES_HZ.contains(&settings.rate_hz) {
            let problem = "none of 8000, 16000, 22050, 24000, 44100, 48000";
            return Err(SettingsError::Unusable { provider: CARTESIA.name, setting: "rate_hz", problem });
        }
        let url = settings.account.url(CARTESIA, Scheme::WebSocket, "/tts/websocket")?;
        Ok(Self { shared: Arc::new(Shared { settings, url, pool: Pool::default() }) })
    }
}

impl Tts for Cartesia {
    fn rate_hz(&self) -> u32 {
        self.shared.settings.rate_hz
    }

    fn open(&self) -> TtsSession {
        session::open(Arc::clone(&self.shared))
    }

    fn warm(&self) {
        let shared = Arc::clone(&self.shared);
        if shared.pool.has_one() {
            return;
        }
        tokio::spawn(async move {
            let Shared { settings, url, pool } = &*shared;
            // the reply that needs it will say what is wrong
            if let Ok(socket) = Socket::connect(CARTESIA, &settings.account, url, &headers(&settings.account)).await {
                pool.keep(socket);
            }
        });
    }
}

/// Headers of the upgrade.
pub(crate) fn headers(account: &Account) -> Vec<(&'static str, String)> {
    let key = account.api_key.expose();
    let key = (!key.is_empty()).then(|| ("authorization", format!("Bearer {key}")));
    key.into_iter().chain([("cartesia-version", VERSION.to_owned())]).collect()
}

/// Asks for one phrase as one whole context.
pub(crate) fn generation_request(settings: &CartesiaSettings, context: &str, text: &str) -> Value {
    let mut request = json!({
        "context_id": context,
        "model_id": settings.model,
        "transcript": text,
        "voice": {"mode": "id", "id": settings.voice},
        "output_format": {"container": "raw", "encoding": "pcm_s16le", "sample_rate": settings.rate_hz},
        "continue": false,
        "max_buffer_delay_ms": 0,
    });
    if let Some(language) = &settings.language {
        request["language"] = json!(language);
    }
    request
}

/// Takes a context back.
pub(crate) fn cancel_request(context: &str) -> Value {
    json!({"context_id": context, "cancel": true})
}

/// A message of Cartesia.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Sound of a context.
    Audio {
        /// Which context.
        context: String,
        /// Its sound, 16-bit little-endian.
        bytes: Vec<u8>,
    },
    /// A context is complete.
    Done {
        /// Which context.
        context: String,
    },
    /// Something went wrong, with one context or with all.
    Error {
        /// Which context, when it is about one.
        context: Option<String>,
        /// HTTP-like, 0 when not told.
        status: u16,
        /// Cartesia's own words.
        words: String,
    },
    /// Something that we did not ask for.
    Other,
}

/// Why a message could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// Reads a message.
pub(crate) fn decode(text: &str) -> Result<Message, Unreadable> {
    let wire: WireMessage = serde_json::from_str(text).map_err(|_| Unreadable)?;
    Ok(match wire.kind.as_str() {
        "chunk" => {
            Message::Audio { context: wire.context_id.ok_or(Unreadable)?, bytes: STANDARD.decode(wire.data.ok_or(Unreadable)?).map_err(|_| Unreadable)? }
        }
        "done" => Message::Done { context: wire.context_id.ok_or(Unreadable)? },
        "error" => {
            let words = [wire.message, wire.error, wire.title].into_iter().flatten().next().unwrap_or_default();
            Message::Error { context: wire.context_id, status: wire.status_code, words: crate::failure::words(&words) }
        }
        _ => Message::Other,
    })
}

#[derive(Deserialize)]
struct WireMessage {
    #[serde(rename = "type")]
    kind: String,
    context_id: Option<String>,
    data: Option<String>,
    #[serde(default)]
    status_code: u16,
    message: Option<String>,
    error: Option<String>,
    title: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn settings() -> CartesiaSettings {
        CartesiaSettings {
            account: Account::new("http://127.0.0.1:1", Secret::new("sk_car")),
            model: "sonic-3".into(),
            voice: "voice-id".into(),
            language: Some("en".into()),
            rate_hz: 8_000,
        }
    }

    #[test]
    fn a_phrase_is_a_whole_context_at_the_legs_rate() {
        let request = generation_request(&settings(), "c1", "Hello.");
        insta::with_settings!({snapshot_path => "../tests/golden", prepend_module_to_snapshot => false, sort_maps => true}, {
            insta::assert_json_snapshot!("cartesia_request", request);
        });
        assert_eq!(cancel_request("c1"), json!({"cancel": true, "context_id": "c1"}));
    }

    #[test]
    fn a_recorded_session_decodes_to_sound_and_ends() {
        let golden = include_str!("../tests/golden/cartesia.jsonl");
        let messages: Vec<_> = golden.lines().map(|line| decode(line).unwrap()).collect();
        insta::with_settings!({snapshot_path => "../tests/golden", prepend_module_to_snapshot => false}, {
            insta::assert_debug_snapshot!("cartesia", messages);
        });
        let broken = [r#"{"type":"chunk","context_id":"c","data":"%%"}"#, r#"{"type":"done"}"#, "[]", ""];
        assert!(broken.iter().all(|text| decode(text) == Err(Unreadable)));
    }

    #[test]
    fn an_impossible_rate_is_refused_and_no_key_is_printed() {
        assert!(!format!("{:?}", Cartesia::new(settings()).unwrap()).contains("sk_car"));
        let wrong = Cartesia::new(CartesiaSettings { rate_hz: 11_025, ..settings() }).unwrap_err();
        assert_eq!(wrong.to_string(), "cartesia: rate_hz is none of 8000, 16000, 22050, 24000, 44100, 48000");
    }
}
