//! Agents: a profile's words, turn settings and providers, made into what a call needs to talk. Calls of the same profile
//! on lines of the same rate share one agent, and with it its providers' connections.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use voiced_config::{Agent as Profile, Settings};
use voiced_core::conversation;
use voiced_core::frame::Rate;
use voiced_core::leg::LegSettings;
use voiced_core::script::Script;
use voiced_models_local::denoise::DenoiseKind;
use voiced_models_local::weights::Weights;
use voiced_models_remote::breaker::Breaker;
use voiced_models_remote::chain::Link;
use voiced_models_remote::chain::llm::LlmChain;
use voiced_models_remote::chain::tts::TtsChain;
use voiced_models_remote::llm::Llm;
use voiced_models_remote::stt::{Stt, SttFeed};
use voiced_models_remote::tool::Tools;
use voiced_models_remote::tts::Tts;

use crate::providers::{Providers, RealtimeLink};

/// Agents kept for the next call of the same profile: a host serves a handful of profiles, a job may bring any.
const KEPT_MAX: usize = 32;

/// Everything that a call needs to talk.
pub struct Agent {
    /// Best first; never empty, as no chain of descriptors is.
    pub stt: Vec<Link<dyn Stt>>,
    pub llm: LlmChain,
    pub tts: TtsChain,
    /// What its language models may have done.
    pub tools: Arc<Tools>,
    pub leg: LegSettings,
    pub conversation: conversation::Settings,
    pub max_duration_s: u64,
    /// Hears, answers and speaks in place of the chains, which are behind it.
    realtime: Option<Arc<RealtimeLink>>,
}

impl Agent {
    /// The agent of one call: with a session of the realtime model before each chain, where there is such a model.
    pub fn for_call(self: &Arc<Self>) -> Arc<Self> {
        let Some((stt, llm, tts)) = self.realtime.as_ref().and_then(|realtime| realtime.call()) else { return Arc::clone(self) };
        Arc::new(Self {
            stt: std::iter::once(stt).chain(self.stt.iter().cloned()).collect(),
            llm: self.llm.behind(llm),
            tts: self.tts.behind(tts),
            tools: Arc::clone(&self.tools),
            leg: self.leg,
            conversation: self.conversation.clone(),
            max_duration_s: self.max_duration_s,
            realtime: None,
        })
    }

    /// Makes ready to speak and to answer soon.
    pub fn warm(&self) {
        match &self.realtime {
            Some(realtime) => realtime.warm(),
            None => self.tts.warm(),
        }
        self.llm.warm();
    }

    /// What the best speech to text is fed.
    pub fn feed(&self) -> SttFeed {
        self.stt[0].provider.feed()
    }
}

/// Makes agents and keeps the latest.
pub struct Agents {
    settings: Settings,
    script: Script,
    providers: Providers,
    kept: Mutex<VecDeque<(String, Arc<Agent>)>>,
}

impl Agents {
    /// For these settings; local models are loaded when a profile first names them.
    pub fn new(settings: &Settings, weights: &Weights) -> Result<Self> {
        Ok(Self { settings: settings.clone(), script: script(settings)?, providers: Providers::new(settings, weights)?, kept: Mutex::default() })
    }

    /// The health of all providers used so far.
    pub fn breakers(&self) -> Vec<Arc<Breaker>> {
        self.providers.breakers()
    }

    /// The settings' own profile.
    pub fn profile(&self) -> &Profile {
        &self.settings.agent
    }

    /// The agent of a profile for lines of this rate.
    pub fn agent(&self, profile: &Profile, rate: Rate) -> Result<Arc<Agent>> {
        let key = format!("{rate:?} {profile:?}");
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let agent = match kept.iter().position(|(name, _)| *name == key) {
            Some(place) => kept.remove(place).map(|(_, agent)| agent).context("an agent that was just seen")?,
            None => Arc::new(self.make(profile, rate)?),
        };
        kept.truncate(KEPT_MAX - 1);
        kept.push_front((key, Arc::clone(&agent)));
        Ok(agent)
    }

    fn make(&self, profile: &Profile, rate: Rate) -> Result<Agent> {
        let greeting = if profile.greeting.is_empty() { self.script.greeting().map(str::to_owned) } else { Some(profile.greeting.clone()) };
        let conversation = conversation::Settings {
            greeting,
            first_stage: self.script.first_stage().to_owned(),
            silence_prompts: profile.silence_prompts.clone(),
            apology: profile.apology.clone(),
            fillers: profile.fillers.clone(),
            goodbye: profile.goodbye.clone(),
        };
        let stt = self.providers.stt(&profile.stt, rate)?;
        let prompt = if profile.prompt.is_empty() { prompt_of(&self.script) } else { profile.prompt.clone() };
        // an agent that cannot have its realtime model has its chains
        let realtime = profile
            .realtime
            .then(|| self.providers.realtime(profile, rate, &prompt, &self.script))
            .and_then(|made| made.inspect_err(|error| tracing::warn!(error = format!("{error:#}"), "no realtime model: stt, llm and tts answer")).ok());
        Ok(Agent {
            stt,
            llm: self.providers.llm(&profile.llm, &prompt, &self.script)?,
            tts: self.providers.tts(&profile.tts, rate)?,
            tools: self.providers.tools(),
            leg: self.leg(profile, rate),
            conversation,
            max_duration_s: self.settings.twilio.max_duration_s,
            realtime: realtime.map(Arc::new),
        })
    }

    fn leg(&self, profile: &Profile, rate: Rate) -> LegSettings {
        let turn = &self.settings.turn;
        let usual = LegSettings::new(rate);
        LegSettings {
            vad_enabled: profile.vad_enabled,
            turn_detection_enabled: profile.turn_detection_enabled,
            denoise: DenoiseKind::parse(&profile.noise_cancellation_type).filter(|_| profile.noise_cancellation_enabled).and_then(|kind| kind.band(rate)),
            interruptible: turn.interruptible,
            // a room plays what it is sent as it comes: there is nothing to keep ahead
            lead_ms: if rate == Rate::Hz8000 { turn.lead_ms } else { usual.lead_ms },
            endpoint_ms_min: turn.endpoint_ms_min,
            endpoint_ms_max: turn.endpoint_ms_max,
            hold_ms: turn.hold_ms,
            silence_ms: turn.silence_ms,
            ..usual
        }
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
