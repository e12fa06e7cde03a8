//! The shape of the settings; units and reasons stand in `default.toml`.
#![allow(missing_docs)] // each key is documented in default.toml, once

use serde::Deserialize;

/// All settings.
#[derive(Clone, Deserialize)]
pub struct Settings {
    pub server: Server,
    pub twilio: Twilio,
    pub ema: Ema,
    pub events: Events,
    pub agent: Agent,
    pub turn: Turn,
    pub engine: Engine,
    pub providers: Providers,
    pub storage: Storage,
    pub script: toml::Table,
}

#[derive(Clone, Deserialize)]
pub struct Server {
    pub bind: String,
    pub port: u16,
    pub webhook_url: String,
    pub api_key: String,
}

#[derive(Clone, Deserialize)]
pub struct Twilio {
    pub account_sid: String,
    pub auth_token: String,
    pub phone_number: String,
    pub token_ttl_s: u64,
    pub idle_timeout_s: u64,
    pub max_duration_s: u64,
    pub bad_messages_max: u32,
}

#[derive(Clone, Deserialize)]
pub struct Ema {
    pub api_url: String,
    pub webhook_secret: String,
}

#[derive(Clone, Deserialize)]
pub struct Events {
    pub file: String,
    pub attempts_max: u32,
    pub backlog_max: usize,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Agent {
    pub stt: String,
    pub llm: String,
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
}

#[derive(Clone, Deserialize)]
pub struct Turn {
    pub endpoint_ms_min: u32,
    pub endpoint_ms_max: u32,
    pub hold_ms: u32,
    pub interruptible: bool,
    pub silence_ms: u32,
    pub lead_ms: u32,
}

#[derive(Clone, Deserialize)]
pub struct Engine {
    pub threads: usize,
    pub calls_per_thread: usize,
    pub realtime_priority: u8,
    pub pin_cores: bool,
    pub lock_memory: bool,
}

#[derive(Clone, Deserialize)]
pub struct Providers {
    pub deepgram: Provider,
    pub openai: Provider,
    pub cartesia: Provider,
}

#[derive(Clone, Deserialize)]
pub struct Provider {
    pub api_key: String,
    pub base_url: String,
}

#[derive(Clone, Deserialize)]
pub struct Storage {
    pub state_dir: String,
    pub cache_dir: String,
}
