//! Speech-to-speech models: `OpenAI` Realtime over WebSocket. One session a call hears, answers and speaks.
//!
//! A [`RealtimeCall`] stands behind the three traits that a conversation knows. Voice activity, end of turn, speculation and
//! interruption stay ours (`turn_detection: null`); so the caller's sound goes up while the caller speaks (`hearing`), a
//! settled text is a commit, a question is a response. A response is text and sound that grow ([`Speech`]): the one is
//! read as tokens (`text`), the other as phrases of a voice (`voice`). What the caller did not hear is taken back from the
//! provider's own record of the conversation before the next question (`record`). `talk` decides, `session`
//! has the socket, and what we send and what a message means is in `wire`.
//!
//! Words that the model did not make (greeting, prompts, apologies) are spoken by the session as well, outside its
//! conversation: another voice for them would be heard as another person. Where it does not, the next voice of the chain
//! speaks, as for any other.

mod hearing;
mod record;
mod session;
mod talk;
mod text;
mod voice;
mod wire;

use crate::account::{Account, OPENAI, Scheme, SettingsError};
use crate::llm::Llm;
use crate::pool::Pool;
use crate::stt::{self, Stt, SttFeed, SttSession};
use crate::tts::{Tts, TtsSession};
use crate::ws::Socket;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};
use url::Url;
use voiced_core::codec::sample_from_mulaw;
use voiced_core::model::{LlmEvent, LlmRequest, SttEvent};

pub(crate) use wire::decode;

/// What a call may ask of its session and it has not done: a reply is one question and a handful of phrases.
const COMMANDS_MAX: usize = 64;

/// What to ask the model for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealtimeSettings {
    /// Where, and with which key.
    pub account: Account,
    /// E.g. `gpt-realtime-2.1`.
    pub model: String,
    /// E.g. `marin`.
    pub voice: String,
    /// Who the agent is and what it does.
    pub prompt: String,
    /// Names of the conversation's stages; with none, the model gets no such tool.
    pub stages: Vec<String>,
    /// What the line carries, and so what the session is fed and speaks.
    pub sound: RealtimeSound,
}

/// How the sound of a session is encoded, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RealtimeSound {
    /// A telephone leg's own mu-law, unchanged.
    Mulaw,
    /// 16-bit at 24 kHz; it is fed what the leg heard, at 16 kHz.
    Pcm,
}

impl RealtimeSound {
    /// Bytes of one ms of the model's voice.
    const fn bytes_per_ms(self) -> usize {
        match self {
            Self::Mulaw => 8,
            Self::Pcm => 48,
        }
    }

    /// Bytes of one ms of what the session is fed.
    const fn fed_bytes_per_ms(self) -> usize {
        match self {
            Self::Mulaw => 8,
            Self::Pcm => 32,
        }
    }

    fn samples(self, bytes: &[u8]) -> Vec<i16> {
        match self {
            Self::Mulaw => bytes.iter().map(|&byte| sample_from_mulaw(byte)).collect(),
            Self::Pcm => bytes.as_chunks().0.iter().map(|&sample| i16::from_le_bytes(sample)).collect(),
        }
    }
}

/// A realtime model; each call has a session of its own.
#[derive(Debug)]
pub struct Realtime {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: RealtimeSettings,
    url: Url,
    pool: Pool,
}

impl Realtime {
    /// Checks the settings; connects only for a call.
    pub fn new(settings: RealtimeSettings) -> Result<Self, SettingsError> {
        let mut url = settings.account.url(OPENAI, Scheme::WebSocket, "/realtime")?;
        url.query_pairs_mut().append_pair("model", &settings.model);
        Ok(Self { shared: Arc::new(Shared { settings, url, pool: Pool::default() }) })
    }

    /// Makes ready for a call that comes soon, on the current tokio runtime.
    pub fn warm(&self) {
        let shared = Arc::clone(&self.shared);
        if shared.pool.has_one() {
            return;
        }
        tokio::spawn(async move {
            // the call that needs it will say what is wrong
            if let Ok(socket) = shared.connect().await {
                shared.pool.keep(socket);
            }
        });
    }

    /// Begins a call's session on the current tokio runtime; it ends with the last clone of what is returned.
    pub fn call(&self) -> RealtimeCall {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let latest = Latest::default();
        session::spawn(Arc::clone(&self.shared), receiver, latest.clone());
        RealtimeCall { sound: self.shared.settings.sound, commands, latest }
    }
}

impl Shared {
    async fn connect(&self) -> Result<Socket, crate::failure::Failure> {
        let key = self.settings.account.api_key.expose();
        let headers: &[_] = if key.is_empty() { &[] } else { &[("authorization", format!("Bearer {key}"))] };
        Socket::connect(OPENAI, &self.settings.account, &self.url, headers).await
    }
}

/// One call's session: what hears, answers and speaks.
#[derive(Clone, Debug)]
pub struct RealtimeCall {
    sound: RealtimeSound,
    commands: mpsc::Sender<Command>,
    latest: Latest,
}

impl Stt for RealtimeCall {
    fn feed(&self) -> SttFeed {
        match self.sound {
            RealtimeSound::Mulaw => SttFeed::Line,
            RealtimeSound::Pcm => SttFeed::Heard,
        }
    }

    fn open(&self) -> SttSession {
        let (input, fed) = mpsc::channel(stt::INPUT_MAX);
        let (told, events) = mpsc::channel(stt::EVENTS_MAX);
        let (hand_over, unsettled) = oneshot::channel();
        if let Err(refused) = self.commands.try_send(Command::Hear { fed, told, hand_over })
            && let Command::Hear { told, .. } = refused.into_inner()
        {
            let _ = told.try_send(SttEvent::Failed(text::OVER.into())); // a new channel has room
        }
        SttSession { input, events, unsettled }
    }
}

impl Llm for RealtimeCall {
    fn ask(&self, request: LlmRequest) -> mpsc::Receiver<LlmEvent> {
        text::ask(self.commands.clone(), request)
    }
}

impl Tts for RealtimeCall {
    fn rate_hz(&self) -> u32 {
        match self.sound {
            RealtimeSound::Mulaw => 8_000,
            RealtimeSound::Pcm => 24_000,
        }
    }

    fn open(&self) -> TtsSession {
        voice::open(self.clone())
    }
}

/// What a call asks of its session.
#[derive(Debug)]
enum Command {
    /// Hear the caller.
    Hear { fed: mpsc::Receiver<stt::SttInput>, told: mpsc::Sender<SttEvent>, hand_over: oneshot::Sender<Vec<bytes::Bytes>> },
    /// Answer.
    Ask { request: LlmRequest, told: oneshot::Sender<Growing> },
    /// Speak this, outside the conversation.
    Say { text: String, told: oneshot::Sender<Growing> },
    /// Nobody wants it any more.
    Drop { number: u64 },
}

/// A response by our own number, and what has come of it.
#[derive(Clone, Debug)]
struct Growing {
    number: u64,
    speech: watch::Receiver<Speech>,
}

/// A response as far as it has come.
#[derive(Debug, Default)]
struct Speech {
    /// What the model says.
    text: String,
    /// How it sounds, as it came.
    sound: Vec<u8>,
    /// Where the text stood (in bytes) and where the sound, at each piece of text.
    marks: Vec<(usize, usize)>,
    /// What the model's tools meant.
    acts: Vec<LlmEvent>,
    /// All has come, or why it has not.
    end: Option<Result<(), String>>,
}

/// The answer that a voice would be asked to speak now.
#[derive(Clone, Debug, Default)]
struct Latest(Arc<Mutex<Option<Growing>>>);

impl Latest {
    fn set(&self, answer: Option<Growing>) {
        *self.lock() = answer;
    }

    /// The answer, if this phrase is one of its own: it is spoken once.
    fn take_with(&self, phrase: &str) -> Option<Growing> {
        let mut latest = self.lock();
        let fits = latest.as_ref().is_some_and(|answer| voice::place(&answer.speech.borrow().text, 0, phrase).is_some());
        if fits { latest.take() } else { None }
    }

    /// Forgets this one.
    fn forget(&self, number: u64) {
        let mut latest = self.lock();
        if latest.as_ref().is_some_and(|answer| answer.number == number) {
            *latest = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Growing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn the_address_is_derived_from_the_base_and_no_key_is_printed() {
        let settings = RealtimeSettings {
            account: Account::new("https://proxy.example/v1", Secret::new("sk-key")),
            model: "gpt-realtime-2.1".into(),
            voice: "marin".into(),
            prompt: String::new(),
            stages: Vec::new(),
            sound: RealtimeSound::Mulaw,
        };
        let model = Realtime::new(settings).unwrap();
        assert_eq!(model.shared.url.as_str(), "wss://proxy.example/v1/realtime?model=gpt-realtime-2.1");
        assert!(!format!("{model:?}").contains("sk-key"));
    }
}
