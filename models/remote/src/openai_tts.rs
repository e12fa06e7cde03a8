//! `OpenAI` text to speech over HTTP: one request a phrase, answered by headerless 16-bit sound at 24 kHz. The session
//! is in `session`.

mod session;

use crate::account::{Account, OPENAI, SettingsError};
use crate::http::Http;
use crate::tts::{Tts, TtsSession};
use serde_json::{Value, json};
use std::sync::Arc;

/// Rate of `response_format: pcm`.
const RATE_HZ: u32 = 24_000;

/// What voice to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenAiTtsSettings {
    /// Where, and with which key.
    pub account: Account,
    /// E.g. `gpt-4o-mini-tts`.
    pub model: String,
    /// E.g. `alloy`.
    pub voice: String,
}

/// `OpenAI`, or a compatible server, as a voice.
#[derive(Debug)]
pub struct OpenAiTts {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: OpenAiTtsSettings,
    http: Http,
}

impl OpenAiTts {
    /// Checks the settings; connects only with a phrase.
    pub fn new(settings: OpenAiTtsSettings) -> Result<Self, SettingsError> {
        let http = Http::new(OPENAI, &settings.account, "/audio/speech")?;
        Ok(Self { shared: Arc::new(Shared { settings, http }) })
    }
}

impl Tts for OpenAiTts {
    fn rate_hz(&self) -> u32 {
        RATE_HZ
    }

    fn open(&self) -> TtsSession {
        session::open(Arc::clone(&self.shared))
    }

    fn warm(&self) {
        self.shared.http.warm();
    }
}

/// The body of one phrase's request.
pub(crate) fn request_body(settings: &OpenAiTtsSettings, text: &str) -> Value {
    json!({"model": settings.model, "voice": settings.voice, "input": text, "response_format": "pcm"})
}

/// Whether an answer of this kind can be bare sound; an error page with status 200 cannot.
pub(crate) fn may_be_sound(content_type: &str) -> bool {
    content_type.is_empty() || content_type.starts_with("audio/") || content_type == "application/octet-stream"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn a_phrase_is_asked_for_as_bare_sound() {
        let account = Account::new("http://127.0.0.1:1/v1", Secret::new("sk-key"));
        let settings = OpenAiTtsSettings { account, model: "tts-1".into(), voice: "alloy".into() };
        let asked = json!({"input": "Hello.", "model": "tts-1", "response_format": "pcm", "voice": "alloy"});
        assert_eq!(request_body(&settings, "Hello."), asked);
        assert!(may_be_sound("audio/pcm") && may_be_sound("") && !may_be_sound("application/json"));
        assert!(!format!("{:?}", OpenAiTts::new(settings).unwrap()).contains("sk-key"));
    }
}
