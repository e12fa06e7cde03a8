//! Builds an agent from its profile: descriptors to providers, turn settings to a leg, words to a conversation.

use std::fmt::Write;

use anyhow::{Context, Result, bail};
use voiced_config::{Provider as ProviderSettings, Settings};
use voiced_core::conversation;
use voiced_core::frame::Rate;
use voiced_core::leg::LegSettings;
use voiced_core::model::{Denoise, TurnFeatures, TurnJudge};
use voiced_core::script::Script;
use voiced_models_local::denoise::{DenoiseKind, SonoraDenoise};
use voiced_models_local::end_of_turn::{SmartTurn, SmartTurnFeatures};
use voiced_models_local::stt::Whisper;
use voiced_models_local::tts::Piper;
use voiced_models_local::vad::Silero;
use voiced_models_local::weights::Weights;
use voiced_models_remote::account::{Account, CARTESIA_BASE_URL, DEEPGRAM_BASE_URL, OPENAI_BASE_URL};
use voiced_models_remote::cartesia::{Cartesia, CartesiaSettings};
use voiced_models_remote::deepgram::{Deepgram, DeepgramSettings};
use voiced_models_remote::descriptor::{Descriptor, Provider, Role};
use voiced_models_remote::llm::Llm;
use voiced_models_remote::openai_chat::{OpenAiChat, OpenAiChatSettings};
use voiced_models_remote::openai_tts::{OpenAiTts, OpenAiTtsSettings};
use voiced_models_remote::secret::Secret;
use voiced_models_remote::stt::{Stt, SttEncoding};
use voiced_models_remote::tts::Tts;
use voiced_rt::{EngineSettings, ThreadModels};

use crate::local::{LocalScript, LocalStt, LocalTts};

/// What speech to text is fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SttFeed {
    /// The line's own mu-law packets, all of them.
    Line,
    /// What the leg heard at 16 kHz, while someone speaks.
    Ear,
}

/// Everything that a call needs to talk.
pub struct Agent {
    pub stt: Box<dyn Stt>,
    pub feed: SttFeed,
    pub llm: Box<dyn Llm>,
    pub tts: Box<dyn Tts>,
    pub leg: LegSettings,
    pub conversation: conversation::Settings,
    pub max_duration_s: u64,
}

impl Agent {
    /// Loads and connects what the profile names.
    pub fn build(settings: &Settings, weights: &Weights) -> Result<Self> {
        let script = script(settings)?;
        let profile = &settings.agent;
        let greeting = if profile.greeting.is_empty() { script.greeting().map(str::to_owned) } else { Some(profile.greeting.clone()) };
        let conversation = conversation::Settings {
            greeting,
            first_stage: script.first_stage().to_owned(),
            silence_prompts: profile.silence_prompts.clone(),
            apology: profile.apology.clone(),
            goodbye: profile.goodbye.clone(),
        };
        let (stt, feed) = stt(settings, weights)?;
        Ok(Self {
            stt,
            feed,
            llm: llm(settings, script)?,
            tts: tts(settings, weights)?,
            leg: leg(settings),
            conversation,
            max_duration_s: settings.twilio.max_duration_s,
        })
    }
}

/// The script of the settings, or the repairs line.
pub fn script(settings: &Settings) -> Result<Script> {
    let stages = settings.script.get("stages").and_then(toml_array).unwrap_or_default();
    let script = if stages == 0 { Script::repairs_line() } else { toml::Value::Table(settings.script.clone()).try_into().context("script")? };
    script.validate()?;
    Ok(script)
}

fn toml_array(value: &toml::Value) -> Option<usize> {
    value.as_array().map(Vec::len)
}

/// How the audio threads run.
pub fn engine(settings: &Settings) -> EngineSettings {
    let engine = &settings.engine;
    EngineSettings {
        threads: engine.threads,
        calls_per_thread: engine.calls_per_thread,
        realtime_priority: (engine.realtime_priority > 0).then_some(engine.realtime_priority),
        pin_cores: engine.pin_cores,
        lock_memory: engine.lock_memory,
    }
}

/// The end-of-turn model, which all threads share, where it is wanted.
pub fn turn_model(settings: &Settings, weights: &Weights) -> Result<Option<SmartTurn>> {
    if !settings.agent.turn_detection_enabled {
        return Ok(None);
    }
    let model = SmartTurn::load(&weights.path("smart-turn-v3.2-cpu.onnx")?)?;
    tracing::info!(kernel = model.instruction_set(), "end of turn loaded");
    Ok(Some(model))
}

/// The models of one audio thread.
pub fn thread_models(settings: &Settings, weights: &Weights, turn_model: Option<&SmartTurn>, slots: usize) -> Result<ThreadModels> {
    let profile = &settings.agent;
    let kind = DenoiseKind::parse(&profile.noise_cancellation_type).unwrap_or_default().at(Rate::Hz8000);
    let denoise = (profile.noise_cancellation_enabled && kind.is_on()).then(|| Box::new(SonoraDenoise::new(slots, kind)) as Box<dyn Denoise>);
    let end_of_turn = turn_model.map(|model| {
        let judge = Box::new(model.clone()) as Box<dyn TurnJudge>;
        (Box::new(SmartTurnFeatures::new(slots)) as Box<dyn TurnFeatures>, judge)
    });
    let vad = Silero::load(&weights.path("silero_vad_16k_sequence.onnx")?, slots)?;
    tracing::info!(slots, kernel = vad.instruction_set(), "voice activity loaded");
    Ok(ThreadModels { denoise, vad: Box::new(vad), end_of_turn })
}

fn leg(settings: &Settings) -> LegSettings {
    let (profile, turn) = (&settings.agent, &settings.turn);
    LegSettings {
        vad_enabled: profile.vad_enabled,
        turn_detection_enabled: profile.turn_detection_enabled,
        denoise_enabled: profile.noise_cancellation_enabled && profile.noise_cancellation_type != "none",
        interruptible: turn.interruptible,
        lead_ms: turn.lead_ms,
        endpoint_ms_min: turn.endpoint_ms_min,
        endpoint_ms_max: turn.endpoint_ms_max,
        hold_ms: turn.hold_ms,
        silence_ms: turn.silence_ms,
        ..LegSettings::new(Rate::Hz8000)
    }
}

fn stt(settings: &Settings, weights: &Weights) -> Result<(Box<dyn Stt>, SttFeed)> {
    let named = Descriptor::parse(Role::Stt, &settings.agent.stt)?;
    Ok(match named.provider {
        Provider::Deepgram => {
            let account = account(&settings.providers.deepgram, DEEPGRAM_BASE_URL);
            let settings = DeepgramSettings { account, model: named.model, language: named.suffix, encoding: SttEncoding::Mulaw8000 };
            (Box::new(Deepgram::new(settings)?), SttFeed::Line)
        }
        Provider::Local => {
            let model = weights.path("whisper-tiny.en/model.bin")?;
            let folder = model.parent().context("the weights of whisper have no folder")?;
            (Box::new(LocalStt::new(Whisper::load(folder)?)), SttFeed::Ear)
        }
        other => bail!("agent.stt = {:?}: {} has no speech to text here", settings.agent.stt, other.name()),
    })
}

fn llm(settings: &Settings, script: Script) -> Result<Box<dyn Llm>> {
    let named = Descriptor::parse(Role::Llm, &settings.agent.llm)?;
    Ok(match named.provider {
        Provider::Local => Box::new(LocalScript(script)),
        Provider::OpenAi => Box::new(OpenAiChat::new(OpenAiChatSettings {
            account: account(&settings.providers.openai, OPENAI_BASE_URL),
            model: named.model,
            prompt: if settings.agent.prompt.is_empty() { prompt_of(&script) } else { settings.agent.prompt.clone() },
            stages: script.stages.iter().map(|stage| stage.name.clone()).collect(),
            temperature: None,
        })?),
        other => bail!("agent.llm = {:?}: {} has no language model here", settings.agent.llm, other.name()),
    })
}

fn tts(settings: &Settings, weights: &Weights) -> Result<Box<dyn Tts>> {
    let named = Descriptor::parse(Role::Tts, &settings.agent.tts)?;
    Ok(match named.provider {
        Provider::Local => Box::new(LocalTts::new(Piper::load(
            &weights.path("libonnxruntime.so.1.31.1")?,
            &weights.path("en_US-joe-medium.onnx")?,
            &weights.path("en_US-joe-medium.onnx.json")?,
        )?)),
        Provider::OpenAi => Box::new(OpenAiTts::new(OpenAiTtsSettings {
            account: account(&settings.providers.openai, OPENAI_BASE_URL),
            model: named.model,
            voice: named.suffix.unwrap_or_else(|| "alloy".into()),
        })?),
        Provider::Cartesia => Box::new(Cartesia::new(CartesiaSettings {
            account: account(&settings.providers.cartesia, CARTESIA_BASE_URL),
            model: named.model,
            voice: named.suffix.unwrap_or_default(), // no descriptor without one is accepted
            language: None,
            rate_hz: 8_000,
        })?),
        other @ Provider::Deepgram => bail!("agent.tts = {:?}: {} has no text to speech here", settings.agent.tts, other.name()),
    })
}

fn account(provider: &ProviderSettings, base_url: &str) -> Account {
    let base_url = if provider.base_url.is_empty() { base_url } else { &provider.base_url };
    Account::new(base_url, Secret::new(&provider.api_key))
}

/// A system prompt that leads a language model through the script's stages.
fn prompt_of(script: &Script) -> String {
    let mut prompt = "You are a friendly voice agent on the telephone. Answer in one or two short spoken sentences, without lists or markup. \
        Lead the caller through these stages in order and call set_stage whenever the conversation moves to another one:\n"
        .to_owned();
    for stage in &script.stages {
        let _ = writeln!(prompt, "- {}: {}", stage.name, stage.say); // a String takes everything
    }
    prompt
}
