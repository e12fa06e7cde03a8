//! The shape of the settings; units and reasons stand in `default.toml`.
#![allow(missing_docs)] // each key is documented in default.toml, once

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use voiced_secret::Secret;

/// All settings.
#[derive(Clone, Debug, Deserialize)]
pub struct Settings {
    pub server: Server,
    pub http: Http,
    pub livekit: Livekit,
    pub telephony: Telephony,
    pub twilio: Twilio,
    pub ema: Ema,
    pub events: Events,
    pub traces: Traces,
    pub agent: Agent,
    pub turn: Turn,
    pub engine: Engine,
    pub providers: Providers,
    pub storage: Storage,
    pub script: toml::Table,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Server {
    pub bind: String,
    pub port: u16,
    pub webhook_url: String,
    pub drain_s: u64,
    pub api_key: Secret,
    pub metrics_bind: String,
    pub connections_max: usize,
    pub connections_per_source_max: usize,
    pub trusted_proxies: Vec<String>,
    pub header_timeout_s: u64,
    pub keep_alive_s: u64,
    pub header_bytes_max: usize,
    pub body_timeout_s: u64,
    pub core_dumps: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Http {
    pub api_keys: Vec<Secret>,
    pub jwt_secret: Secret,
    pub jwt_audience: String,
    pub cors_origins: Vec<String>,
    pub rooms_per_minute: usize,
    pub rooms_per_minute_per_source: usize,
    pub room_url: String,
    pub production: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Livekit {
    pub url: String,
    pub api_key: String,
    pub api_secret: Secret,
    pub webhook_api_key: String,
    pub webhook_api_secret: Secret,
    pub agent_name: String,
    pub jobs_max: usize,
    pub media_threads: usize,
    pub hear: Hear,
    pub bridge_enabled: bool,
    pub bridge_room_prefix: String,
    pub recording_dir: String,
    pub recording_retention_days: u32,
    pub egress_path: String,
    pub egress_bucket: String,
    pub egress_region: String,
    pub egress_endpoint: String,
    pub egress_access_key: String,
    pub egress_secret: Secret,
}

impl Livekit {
    /// The variables that are needed to reach a `LiveKit` server and are not set.
    pub fn missing(&self) -> Vec<&'static str> {
        let needed = [("LIVEKIT_URL", self.url.is_empty()), ("LIVEKIT_API_KEY", self.api_key.is_empty()), ("LIVEKIT_API_SECRET", self.api_secret.is_empty())];
        needed.into_iter().filter(|(_, is_missing)| *is_missing).map(|(name, _)| name).collect()
    }
}

/// Whom the agent hears in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hear {
    Linked,
    All,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Telephony {
    pub enabled: bool,
    pub sip_identity_prefix: String,
    pub dispatch_on_any_participant_join: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Twilio {
    pub account_sid: String,
    pub auth_token: Secret,
    pub shared_key: Secret,
    pub phone_number: String,
    pub token_ttl_s: u64,
    pub idle_timeout_s: u64,
    pub max_duration_s: u64,
    pub bad_messages_max: u32,
    pub drain_redirect_url: String,
    pub messages_per_s_max: u32,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Ema {
    pub api_url: String,
    pub webhook_secret: Secret,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Events {
    pub file: String,
    pub attempts_max: u32,
    pub backlog_max: usize,
    pub per_second_max: u32,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Traces {
    pub endpoint: String,
    pub headers: Secret,
    pub sample: f64,
    pub words: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Agent {
    #[serde(deserialize_with = "chain")]
    pub stt: String,
    #[serde(deserialize_with = "chain")]
    pub llm: String,
    #[serde(deserialize_with = "chain")]
    pub tts: String,
    pub prompt: String,
    pub greeting: String,
    pub vad_enabled: bool,
    pub turn_detection_enabled: bool,
    pub noise_cancellation_enabled: bool,
    pub noise_cancellation_type: String,
    pub silence_prompts: Vec<String>,
    pub goodbye: String,
    pub apology: String,
    pub fillers: Vec<String>,
    pub realtime: bool,
    pub realtime_model: String,
    pub realtime_voice: String,
    pub tools: Vec<Tool>,
}

/// A tool of the operator's own for the language model.
#[derive(Clone, Debug, Deserialize)]
pub struct Tool {
    pub name: String,
    pub description: String,
    pub url: String,
    #[serde(default = "tool_timeout_ms")]
    pub timeout_ms: u64,
    /// JSON schema of the arguments.
    #[serde(default)]
    pub parameters: toml::Table,
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
}

/// As long as a caller stays on the line for.
fn tool_timeout_ms() -> u64 {
    8_000
}

/// One descriptor, or a list of them, best first: kept with commas between them.
fn chain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => one,
        OneOrMany::Many(many) => many.join(", "),
    })
}

#[derive(Clone, Debug, Deserialize)]
pub struct Turn {
    pub endpoint_ms_min: u32,
    pub endpoint_ms_max: u32,
    pub hold_ms: u32,
    pub interruptible: bool,
    pub silence_ms: u32,
    pub lead_ms: u32,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Engine {
    pub threads: usize,
    pub calls_per_thread: usize,
    pub headroom_percent: u8,
    pub realtime_priority: u8,
    pub pin_cores: bool,
    pub lock_memory: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Providers {
    pub deepgram: Provider,
    pub openai: Provider,
    pub cartesia: Provider,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Provider {
    pub api_key: Secret,
    pub base_url: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Storage {
    pub state_dir: String,
    pub cache_dir: String,
    pub calls_kept: usize,
}
