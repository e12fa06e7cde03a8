//! Providers by their descriptors: chains of them, best first. What is remote is an account and a model; local models are
//! loaded once, when first named, and shared, and so is what is known of each provider's health.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use voiced_config::{Agent as Profile, Provider as ProviderSettings, Settings};
use voiced_core::frame::Rate;
use voiced_core::script::Script;
use voiced_models_local::stt::Whisper;
use voiced_models_local::tts::Piper;
use voiced_models_local::weights::Weights;
use voiced_models_remote::account::{Account, CARTESIA_BASE_URL, DEEPGRAM_BASE_URL, OPENAI_BASE_URL, Timeouts};
use voiced_models_remote::breaker::Breaker;
use voiced_models_remote::cartesia::{Cartesia, CartesiaSettings};
use voiced_models_remote::chain::Link;
use voiced_models_remote::chain::llm::LlmChain;
use voiced_models_remote::chain::tts::TtsChain;
use voiced_models_remote::deepgram::{Deepgram, DeepgramSettings};
use voiced_models_remote::descriptor::{Descriptor, Provider, Role};
use voiced_models_remote::llm::{Llm, ToolDefinition};
use voiced_models_remote::openai_chat::{OpenAiChat, OpenAiChatSettings};
use voiced_models_remote::openai_tts::{OpenAiTts, OpenAiTtsSettings};
use voiced_models_remote::realtime::{Realtime, RealtimeSettings, RealtimeSound};
use voiced_models_remote::stt::{Stt, SttEncoding};
use voiced_models_remote::tool::{ToolSettings, Tools};
use voiced_models_remote::tts::Tts;

use crate::local::{LocalScript, LocalStt, LocalTts};

/// All that descriptors can name on this host.
pub struct Providers {
    accounts: voiced_config::Providers,
    weights: Weights,
    whisper: Mutex<Option<LocalStt>>,
    piper: Mutex<Option<LocalTts>>,
    breakers: Mutex<BTreeMap<String, Arc<Breaker>>>,
    tools: Arc<Tools>,
}

/// One session as each of the three.
pub type Roles = (Link<dyn Stt>, Link<dyn Llm>, Link<dyn Tts>);

/// A realtime model, and what is known of its health in each of its roles.
pub struct RealtimeLink {
    model: Realtime,
    stt: Arc<Breaker>,
    llm: Arc<Breaker>,
    tts: Arc<Breaker>,
}

impl RealtimeLink {
    /// Makes ready for a call that comes soon.
    pub fn warm(&self) {
        if self.may_hear() {
            self.model.warm();
        }
    }

    /// One call's session in each of its roles; none while the model is to be left alone.
    pub fn call(&self) -> Option<Roles> {
        if !self.may_hear() {
            return None;
        }
        let call = Arc::new(self.model.call());
        Some((
            Link { breaker: Arc::clone(&self.stt), provider: Arc::clone(&call) as Arc<dyn Stt> },
            Link { breaker: Arc::clone(&self.llm), provider: Arc::clone(&call) as Arc<dyn Llm> },
            Link { breaker: Arc::clone(&self.tts), provider: call },
        ))
    }

    /// Who cannot hear the caller is of no use in the other roles.
    fn may_hear(&self) -> bool {
        self.stt.would_admit()
    }
}

/// How long a provider with another one behind it is waited for: the caller's silence is to stay below 2 s.
const IMPATIENT: Timeouts = Timeouts { connect_ms: 1_200, first_byte_ms: 2_000, idle_ms: 2_000, half_open_ms: 2_000, finalize_ms: 700, may_wait_again: false };

impl Providers {
    /// With the settings' accounts and tools.
    pub fn new(settings: &Settings, weights: &Weights) -> Result<Self> {
        let tools = settings.agent.tools.iter().map(tool).collect::<Result<_>>()?;
        Ok(Self {
            accounts: settings.providers.clone(),
            weights: weights.clone(),
            whisper: Mutex::default(),
            piper: Mutex::default(),
            breakers: Mutex::default(),
            tools: Arc::new(Tools::new(tools).context("agent.tools")?),
        })
    }

    /// The operator's tools, for all language models.
    pub fn tools(&self) -> Arc<Tools> {
        Arc::clone(&self.tools)
    }

    /// Speech to text for a line of this rate.
    pub fn stt(&self, descriptors: &str, line: Rate) -> Result<Vec<Link<dyn Stt>>> {
        self.chain(Role::Stt, descriptors, |named, timeouts| self.one_stt(named, timeouts, line))
    }

    /// Language models that are led by this prompt through the script's stages, or the script itself.
    pub fn llm(&self, descriptors: &str, prompt: &str, script: &Script) -> Result<LlmChain> {
        self.chain(Role::Llm, descriptors, |named, timeouts| self.one_llm(named, timeouts, prompt, script)).map(LlmChain::new)
    }

    /// Voices for a line of this rate.
    pub fn tts(&self, descriptors: &str, line: Rate) -> Result<TtsChain> {
        self.chain(Role::Tts, descriptors, |named, timeouts| self.one_tts(named, timeouts, line)).map(TtsChain::new)
    }

    /// The realtime model of a profile, for a line of this rate.
    pub fn realtime(&self, profile: &Profile, line: Rate, prompt: &str, script: &Script) -> Result<RealtimeLink> {
        let named = Descriptor::parse(Role::Realtime, &profile.realtime_model)?;
        let breaker = |role: Role| self.breaker(format!("{} {named}", role.field()));
        let (stt, llm, tts) = (breaker(Role::Stt), breaker(Role::Llm), breaker(Role::Tts));
        let model = Realtime::new(RealtimeSettings {
            account: account(&self.accounts.openai, OPENAI_BASE_URL, IMPATIENT),
            model: named.model,
            voice: profile.realtime_voice.clone(),
            prompt: prompt.to_owned(),
            stages: stages(script),
            sound: if line == Rate::Hz8000 { RealtimeSound::Mulaw } else { RealtimeSound::Pcm },
        })?;
        Ok(RealtimeLink { model, stt, llm, tts })
    }

    /// The health of all providers used so far.
    pub fn breakers(&self) -> Vec<Arc<Breaker>> {
        self.breakers.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Makes each provider of a chain; one with another behind it is not waited for long.
    fn chain<P: ?Sized>(&self, role: Role, descriptors: &str, make: impl Fn(Descriptor, Timeouts) -> Result<Box<P>>) -> Result<Vec<Link<P>>> {
        let named = Descriptor::chain(role, descriptors)?;
        let last = named.len() - 1;
        let link = |(place, named): (usize, Descriptor)| {
            let name = format!("{} {named}", role.field());
            let provider = Arc::from(make(named, if place < last { IMPATIENT } else { Timeouts::default() })?);
            Ok(Link { breaker: self.breaker(name), provider })
        };
        named.into_iter().enumerate().map(link).collect()
    }

    /// What is known of the health of the provider with this name.
    fn breaker(&self, name: String) -> Arc<Breaker> {
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(breakers.entry(name.clone()).or_insert_with(|| Breaker::new(name)))
    }

    fn one_stt(&self, named: Descriptor, timeouts: Timeouts, line: Rate) -> Result<Box<dyn Stt>> {
        Ok(match named.provider {
            Provider::Deepgram => {
                let account = account(&self.accounts.deepgram, DEEPGRAM_BASE_URL, timeouts);
                let encoding = match line {
                    Rate::Hz8000 => SttEncoding::Mulaw8000,
                    _ => SttEncoding::Linear16(Rate::Hz16000.hz()),
                };
                Box::new(Deepgram::new(DeepgramSettings { account, model: named.model, language: named.suffix, encoding })?)
            }
            Provider::Local => Box::new(self.whisper()?),
            other => bail!("agent.stt: {} has no speech to text here", other.name()),
        })
    }

    fn one_llm(&self, named: Descriptor, timeouts: Timeouts, prompt: &str, script: &Script) -> Result<Box<dyn Llm>> {
        Ok(match named.provider {
            Provider::Local => Box::new(LocalScript(script.clone())),
            Provider::OpenAi => Box::new(OpenAiChat::new(OpenAiChatSettings {
                account: account(&self.accounts.openai, OPENAI_BASE_URL, timeouts),
                model: named.model,
                prompt: prompt.to_owned(),
                stages: stages(script),
                tools: self.tools.definitions(),
                temperature: None,
            })?),
            other => bail!("agent.llm: {} has no language model here", other.name()),
        })
    }

    fn one_tts(&self, named: Descriptor, timeouts: Timeouts, line: Rate) -> Result<Box<dyn Tts>> {
        Ok(match named.provider {
            Provider::Local => Box::new(self.piper()?),
            Provider::OpenAi => Box::new(OpenAiTts::new(OpenAiTtsSettings {
                account: account(&self.accounts.openai, OPENAI_BASE_URL, timeouts),
                model: named.model,
                voice: named.suffix.unwrap_or_else(|| "alloy".into()),
            })?),
            Provider::Cartesia => Box::new(Cartesia::new(CartesiaSettings {
                account: account(&self.accounts.cartesia, CARTESIA_BASE_URL, timeouts),
                model: named.model,
                voice: named.suffix.unwrap_or_default(), // no descriptor without one is accepted
                language: None,
                rate_hz: line.hz().min(Rate::Hz24000.hz()), // speech has nothing above
            })?),
            other @ Provider::Deepgram => bail!("agent.tts: {} has no text to speech here", other.name()),
        })
    }

    fn whisper(&self) -> Result<LocalStt> {
        shared(&self.whisper, || {
            let model = self.weights.path("whisper-tiny.en/model.bin")?;
            let folder = model.parent().context("the weights of whisper have no folder")?;
            Ok(LocalStt::new(Whisper::load(folder)?))
        })
    }

    fn piper(&self) -> Result<LocalTts> {
        shared(&self.piper, || {
            Ok(LocalTts::new(Piper::load(
                &self.weights.path("libonnxruntime.so.1.31.1")?,
                &self.weights.path("en_US-joe-medium.onnx")?,
                &self.weights.path("en_US-joe-medium.onnx.json")?,
            )?))
        })
    }
}

fn stages(script: &Script) -> Vec<String> {
    script.stages.iter().map(|stage| stage.name.clone()).collect()
}

fn shared<T: Clone>(place: &Mutex<Option<T>>, load: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    if place.is_none() {
        *place = Some(load()?);
    }
    place.clone().context("a model that was just loaded")
}

fn tool(tool: &voiced_config::Tool) -> Result<ToolSettings> {
    let mut parameters = serde_json::to_value(&tool.parameters).with_context(|| format!("agent.tools: {}", tool.name))?;
    if tool.parameters.is_empty() {
        // providers insist on a schema
        parameters = serde_json::json!({"type": "object", "properties": {}});
    }
    let definition = ToolDefinition { name: tool.name.clone(), description: tool.description.clone(), parameters };
    let headers = tool.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    Ok(ToolSettings { definition, url: tool.url.clone(), timeout_ms: tool.timeout_ms, headers })
}

fn account(provider: &ProviderSettings, base_url: &str, timeouts: Timeouts) -> Account {
    let base_url = if provider.base_url.is_empty() { base_url } else { &provider.base_url };
    Account { timeouts, ..Account::new(base_url, provider.api_key.clone()) }
}
