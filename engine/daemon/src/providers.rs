//! Providers by their descriptors. What is remote is an account and a model; local models are loaded once, when first
//! named, and shared.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use voiced_config::{Provider as ProviderSettings, Settings};
use voiced_core::frame::Rate;
use voiced_core::script::Script;
use voiced_models_local::stt::Whisper;
use voiced_models_local::tts::Piper;
use voiced_models_local::weights::Weights;
use voiced_models_remote::account::{Account, CARTESIA_BASE_URL, DEEPGRAM_BASE_URL, OPENAI_BASE_URL};
use voiced_models_remote::cartesia::{Cartesia, CartesiaSettings};
use voiced_models_remote::deepgram::{Deepgram, DeepgramSettings};
use voiced_models_remote::descriptor::{Descriptor, Provider, Role};
use voiced_models_remote::llm::Llm;
use voiced_models_remote::openai_chat::{OpenAiChat, OpenAiChatSettings};
use voiced_models_remote::openai_tts::{OpenAiTts, OpenAiTtsSettings};
use voiced_models_remote::stt::{Stt, SttEncoding};
use voiced_models_remote::tts::Tts;

use crate::agent::SttFeed;
use crate::local::{LocalScript, LocalStt, LocalTts};

/// All that descriptors can name on this host.
pub struct Providers {
    accounts: voiced_config::Providers,
    weights: Weights,
    whisper: Mutex<Option<LocalStt>>,
    piper: Mutex<Option<LocalTts>>,
}

impl Providers {
    /// With the settings' accounts.
    pub fn new(settings: &Settings, weights: &Weights) -> Self {
        Self { accounts: settings.providers.clone(), weights: weights.clone(), whisper: Mutex::default(), piper: Mutex::default() }
    }

    /// Speech to text for a line of this rate, and what it must be fed.
    pub fn stt(&self, descriptor: &str, line: Rate) -> Result<(Box<dyn Stt>, SttFeed)> {
        let named = Descriptor::parse(Role::Stt, descriptor)?;
        Ok(match named.provider {
            Provider::Deepgram => {
                let account = account(&self.accounts.deepgram, DEEPGRAM_BASE_URL);
                let (encoding, feed) = match line {
                    Rate::Hz8000 => (SttEncoding::Mulaw8000, SttFeed::Line),
                    _ => (SttEncoding::Linear16(Rate::Hz16000.hz()), SttFeed::Heard),
                };
                (Box::new(Deepgram::new(DeepgramSettings { account, model: named.model, language: named.suffix, encoding })?), feed)
            }
            Provider::Local => (Box::new(self.whisper()?), SttFeed::Turns),
            other => bail!("agent.stt = {descriptor:?}: {} has no speech to text here", other.name()),
        })
    }

    /// A language model that is led by this prompt through the script's stages, or the script itself.
    pub fn llm(&self, descriptor: &str, prompt: String, script: &Script) -> Result<Box<dyn Llm>> {
        let named = Descriptor::parse(Role::Llm, descriptor)?;
        Ok(match named.provider {
            Provider::Local => Box::new(LocalScript(script.clone())),
            Provider::OpenAi => Box::new(OpenAiChat::new(OpenAiChatSettings {
                account: account(&self.accounts.openai, OPENAI_BASE_URL),
                model: named.model,
                prompt,
                stages: script.stages.iter().map(|stage| stage.name.clone()).collect(),
                temperature: None,
            })?),
            other => bail!("agent.llm = {descriptor:?}: {} has no language model here", other.name()),
        })
    }

    /// A voice for a line of this rate.
    pub fn tts(&self, descriptor: &str, line: Rate) -> Result<Box<dyn Tts>> {
        let named = Descriptor::parse(Role::Tts, descriptor)?;
        Ok(match named.provider {
            Provider::Local => Box::new(self.piper()?),
            Provider::OpenAi => Box::new(OpenAiTts::new(OpenAiTtsSettings {
                account: account(&self.accounts.openai, OPENAI_BASE_URL),
                model: named.model,
                voice: named.suffix.unwrap_or_else(|| "alloy".into()),
            })?),
            Provider::Cartesia => Box::new(Cartesia::new(CartesiaSettings {
                account: account(&self.accounts.cartesia, CARTESIA_BASE_URL),
                model: named.model,
                voice: named.suffix.unwrap_or_default(), // no descriptor without one is accepted
                language: None,
                rate_hz: line.hz().min(Rate::Hz24000.hz()), // speech has nothing above
            })?),
            other @ Provider::Deepgram => bail!("agent.tts = {descriptor:?}: {} has no text to speech here", other.name()),
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

fn shared<T: Clone>(place: &Mutex<Option<T>>, load: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    if place.is_none() {
        *place = Some(load()?);
    }
    place.clone().context("a model that was just loaded")
}

fn account(provider: &ProviderSettings, base_url: &str) -> Account {
    let base_url = if provider.base_url.is_empty() { base_url } else { &provider.base_url };
    Account::new(base_url, provider.api_key.clone())
}
