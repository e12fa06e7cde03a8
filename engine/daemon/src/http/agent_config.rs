//! How a session's agent differs from the configured one: the metadata that its job carries, checked before it costs
//! anything, where the job itself would fall back with a warning that no client sees.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use voiced_config::Agent;
use voiced_livekit::job::{GREETING_BYTES_MAX, PROMPT_BYTES_MAX, TEXT_BYTES_MAX};
use voiced_models_remote::descriptor::{Descriptor, Role};

use super::refusal::Refusal;

/// What is left out is as the host is configured; unknown keys are ignored.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct AgentConfig {
    /// `provider/model[:language]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    stt: Option<String>,
    /// `provider/model[:voice]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    tts: Option<String>,
    /// `provider/model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    llm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    greeting: Option<String>,
    /// One speech-to-speech model instead of the three.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "flag")]
    realtime: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    realtime_model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    realtime_voice: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "flag")]
    vad_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "flag")]
    turn_detection_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "flag")]
    noise_cancellation_enabled: Option<bool>,
    /// `auto`, `telephony`, `standard` or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    noise_cancellation_type: Option<String>,
}

/// What a session's agent is made of.
#[derive(Serialize, ToSchema)]
pub struct AgentSummary {
    stt: String,
    tts: String,
    llm: String,
    realtime: bool,
}

impl AgentConfig {
    /// Names the first field that no agent can be made of.
    pub fn check(&self) -> Result<(), Refusal> {
        for (role, text) in [(Role::Stt, &self.stt), (Role::Tts, &self.tts), (Role::Llm, &self.llm)] {
            if let Some(text) = text {
                short(role.field(), text, TEXT_BYTES_MAX)?;
                Descriptor::chain(role, text).map_err(|error| Refusal::field(&field(role.field()), error.to_string()))?;
            }
        }
        if let Some(model) = &self.realtime_model {
            Descriptor::parse(Role::Realtime, model).map_err(|error| Refusal::field(&field("realtime_model"), error.to_string()))?;
        }
        let texts = [
            ("prompt", &self.prompt, PROMPT_BYTES_MAX),
            ("greeting", &self.greeting, GREETING_BYTES_MAX),
            ("realtime_model", &self.realtime_model, TEXT_BYTES_MAX),
            ("realtime_voice", &self.realtime_voice, TEXT_BYTES_MAX),
        ];
        for (key, text, bytes_max) in texts {
            text.as_deref().map_or(Ok(()), |text| short(key, text, bytes_max))?;
        }
        match self.noise_cancellation_type.as_deref() {
            None | Some("auto" | "telephony" | "standard" | "none") => Ok(()),
            Some(_) => Err(Refusal::field(&field("noise_cancellation_type"), "must be one of auto, telephony, standard, none")),
        }
    }

    /// As a job's metadata.
    pub fn metadata(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() // texts and flags always fit JSON
    }

    /// With what is left out as the host is configured.
    pub fn summary(&self, profile: &Agent) -> AgentSummary {
        let or = |own: &Option<String>, configured: &String| own.as_ref().unwrap_or(configured).clone();
        AgentSummary {
            stt: or(&self.stt, &profile.stt),
            tts: or(&self.tts, &profile.tts),
            llm: or(&self.llm, &profile.llm),
            realtime: self.realtime.unwrap_or(profile.realtime),
        }
    }
}

fn short(key: &str, text: &str, bytes_max: usize) -> Result<(), Refusal> {
    if text.len() <= bytes_max { Ok(()) } else { Err(Refusal::field(&field(key), format!("is longer than {bytes_max} bytes"))) }
}

fn field(key: &str) -> String {
    format!("agentConfig.{key}")
}

/// Forms in web pages send `"true"` and `"false"` as often as true and false.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Flag {
        Is(Option<bool>),
        Says(String),
        #[allow(dead_code)] // takes what is neither, so that the reason below is told
        Neither(serde_json::Value),
    }
    match Flag::deserialize(deserializer)? {
        Flag::Is(flag) => Ok(flag),
        Flag::Says(text) if text == "true" => Ok(Some(true)),
        Flag::Says(text) if text == "false" => Ok(Some(false)),
        _ => Err(D::Error::custom("must be true or false")),
    }
}
