//! What a dispatched job asks for: the metadata contract.
//!
//! A dispatch carries a JSON object. Each key that we know may change one setting of the agent for this job; a key that we
//! do not know is somebody else's; a value that makes no sense leaves the default and is told in a warning, for the caller
//! is already waiting. The same settings go out again as the metadata of a dispatch of our own.

use serde::Serialize;
use serde_json::{Map, Value};
use voiced_core::reply::REPLY_CHARS_MAX;

/// What a job wants different from the agent's defaults. `None` is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct JobSettings {
    /// Speech to text, e.g. `deepgram/nova-3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stt: Option<String>,
    /// Text to speech.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tts: Option<String>,
    /// Language model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub llm: Option<String>,
    /// Who the agent is and what it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// What the agent says first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greeting: Option<String>,
    /// One realtime model in place of speech to text, language model and text to speech.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realtime: Option<bool>,
    /// Which realtime model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realtime_model: Option<String>,
    /// Its voice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realtime_voice: Option<String>,
    /// Voice activity by the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vad_enabled: Option<bool>,
    /// End of turn by the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn_detection_enabled: Option<bool>,
    /// Noise cancellation before both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise_cancellation_enabled: Option<bool>,
    /// Which noise cancellation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise_cancellation_type: Option<NoiseCancellation>,
}

/// Kinds of noise cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NoiseCancellation {
    /// As the line is.
    Auto,
    /// For 8 kHz lines.
    Telephony,
    /// For wideband lines.
    Standard,
    /// None.
    None,
}

impl NoiseCancellation {
    /// Its name, as metadata and settings have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Telephony => "telephony",
            Self::Standard => "standard",
            Self::None => "none",
        }
    }
}

/// Longest prompt, in bytes: some 4,000 tokens, which is what a model may be asked to read before each answer.
pub const PROMPT_BYTES_MAX: usize = 16 * 1_024;
/// Longest greeting, in bytes: what is said in one reply.
pub const GREETING_BYTES_MAX: usize = REPLY_CHARS_MAX;
/// Longest other text, in bytes: names of models and voices.
pub const TEXT_BYTES_MAX: usize = 256;

impl JobSettings {
    /// Reads a job's metadata; the warnings name each key whose value was not taken, without repeating the value.
    pub fn parse(metadata: &str) -> (Self, Vec<String>) {
        let mut reader = Reader::new(metadata);
        let settings = Self {
            stt: reader.text("stt", TEXT_BYTES_MAX),
            tts: reader.text("tts", TEXT_BYTES_MAX),
            llm: reader.text("llm", TEXT_BYTES_MAX),
            prompt: reader.text("prompt", PROMPT_BYTES_MAX),
            greeting: reader.text("greeting", GREETING_BYTES_MAX),
            realtime: reader.switch("realtime"),
            realtime_model: reader.text("realtime_model", TEXT_BYTES_MAX),
            realtime_voice: reader.text("realtime_voice", TEXT_BYTES_MAX),
            vad_enabled: reader.switch("vad_enabled"),
            turn_detection_enabled: reader.switch("turn_detection_enabled"),
            noise_cancellation_enabled: reader.switch("noise_cancellation_enabled"),
            noise_cancellation_type: reader.noise_cancellation("noise_cancellation_type"),
        };
        (settings, reader.warnings)
    }

    /// The metadata that asks for these settings.
    pub fn to_metadata(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() // texts and switches always have a JSON form
    }
}

/// Takes one value after another and notes what it could not take.
struct Reader {
    object: Map<String, Value>,
    warnings: Vec<String>,
}

impl Reader {
    fn new(metadata: &str) -> Self {
        if metadata.trim().is_empty() {
            return Self { object: Map::new(), warnings: Vec::new() };
        }
        match serde_json::from_str(metadata) {
            Ok(Value::Object(object)) => Self { object, warnings: Vec::new() },
            _ => Self { object: Map::new(), warnings: vec!["the job's metadata is no JSON object: the defaults hold".to_owned()] },
        }
    }

    fn text(&mut self, key: &str, bytes_max: usize) -> Option<String> {
        match self.take(key)? {
            Value::String(text) if text.len() > bytes_max => self.refuse(key, &format!("is longer than {bytes_max} bytes")),
            Value::String(text) => Some(text),
            _ => self.refuse(key, "is no text"),
        }
    }

    fn switch(&mut self, key: &str) -> Option<bool> {
        match self.take(key)? {
            Value::Bool(on) => Some(on),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => self.refuse(key, "is neither true nor false"),
        }
    }

    fn noise_cancellation(&mut self, key: &str) -> Option<NoiseCancellation> {
        use NoiseCancellation::{Auto, None, Standard, Telephony};
        let name = self.text(key, TEXT_BYTES_MAX)?;
        let known = [Auto, Telephony, Standard, None].into_iter().find(|kind| kind.name().eq_ignore_ascii_case(&name));
        known.or_else(|| self.refuse(key, "is not one of auto, telephony, standard, none"))
    }

    /// The value of a key that is there; `null` and an empty text ask for the default too.
    fn take(&mut self, key: &str) -> Option<Value> {
        self.object.remove(key).filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    fn refuse<T>(&mut self, key: &str, why: &str) -> Option<T> {
        self.warnings.push(format!("{key} {why}: the default holds"));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_contract_is_read_and_written() {
        let metadata = r#"{"stt":"deepgram/nova-3","tts":"cartesia/sonic-2","llm":"openai/gpt-4o-mini","prompt":"You are Ana.",
            "greeting":"Hello!","realtime":true,"realtime_model":"m","realtime_voice":"v","vad_enabled":"false",
            "turn_detection_enabled":"TRUE","noise_cancellation_enabled":false,"noise_cancellation_type":"telephony"}"#;
        let (settings, warnings) = JobSettings::parse(metadata);
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(settings.stt.as_deref(), Some("deepgram/nova-3"));
        assert_eq!(settings.greeting.as_deref(), Some("Hello!"));
        assert_eq!((settings.realtime, settings.vad_enabled, settings.turn_detection_enabled), (Some(true), Some(false), Some(true)));
        assert_eq!(settings.noise_cancellation_type, Some(NoiseCancellation::Telephony));
        let written: Value = serde_json::from_str(&settings.to_metadata()).unwrap();
        assert_eq!(written.as_object().unwrap().len(), 12);
        assert_eq!(JobSettings::parse(&settings.to_metadata()), (settings, Vec::new()));
    }

    #[test]
    fn a_bad_value_falls_back_and_its_key_is_named() {
        let long = "x".repeat(PROMPT_BYTES_MAX + 1);
        let metadata = format!(r#"{{"stt":7,"llm":"ok","prompt":"{long}","vad_enabled":"maybe","noise_cancellation_type":"magic","tenant":[1]}}"#);
        let (settings, warnings) = JobSettings::parse(&metadata);
        assert_eq!(settings, JobSettings { llm: Some("ok".to_owned()), ..JobSettings::default() });
        let named: Vec<_> = warnings.iter().map(|warning| warning.split(' ').next().unwrap()).collect();
        assert_eq!(named, ["stt", "prompt", "vad_enabled", "noise_cancellation_type"]);
        assert!(warnings.iter().all(|warning| warning.len() < 100), "a warning repeats no value");
    }

    #[test]
    fn metadata_that_is_no_object_leaves_all_defaults() {
        for metadata in ["[]", "hello", "7", "{\"stt\":", "\u{0}"] {
            let (settings, warnings) = JobSettings::parse(metadata);
            assert_eq!((settings, warnings.len()), (JobSettings::default(), 1), "{metadata:?}");
        }
        for metadata in ["", " ", "{}", r#"{"stt":null,"greeting":""}"#] {
            assert_eq!(JobSettings::parse(metadata), (JobSettings::default(), Vec::new()), "{metadata:?}");
        }
    }
}
