//! Fake providers on loopback: Deepgram, `OpenAI` chat, speech and realtime, Cartesia, each speaking the vendor's protocol with
//! set delays. What the caller said and what the model answers come from the test; faults are switched while they run.

mod cartesia;
mod deepgram;
mod openai;
mod realtime;
pub mod tool;
mod voice;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How slow the providers are. The defaults are the delays of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// From sound to the guess that holds it, in ms.
    pub stt_interim_ms: u64,
    /// From the last guess (or the request to finalise, the later) to the settled text, in ms.
    pub stt_final_ms: u64,
    /// From a question to its first word, in ms.
    pub llm_first_ms: u64,
    /// Between two words, in ms.
    pub llm_word_ms: u64,
    /// From a phrase to its first sound, in ms.
    pub tts_first_ms: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { stt_interim_ms: 200, stt_final_ms: 50, llm_first_ms: 100, llm_word_ms: 10, tts_first_ms: 50 }
    }
}

/// What is said, since no fake can understand.
#[derive(Clone)]
pub struct Script {
    /// The words of an utterance, by the number of the speech-to-text stream and of the utterance in it, both from 0.
    pub caller: Arc<dyn Fn(usize, usize) -> String + Send + Sync>,
    /// The model's answer to a chat request.
    pub agent: Arc<dyn Fn(&Value) -> Answer + Send + Sync>,
    /// Sound that stands for one of the caller's words, in ms.
    pub caller_word_ms: u64,
    /// Silence after which the caller's next sound is the next utterance, in ms.
    pub utterance_gap_ms: u64,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            caller: Arc::new(|_, utterance| format!("this is what the caller says as number {utterance}")),
            agent: Arc::new(|request| {
                let messages = request["messages"].as_array().map_or(&[][..], Vec::as_slice);
                let said = messages.iter().rev().find(|message| message["role"] == "user");
                let said = said.and_then(|message| message["content"].as_str()).unwrap_or("nothing");
                Answer::text(format!("I heard: {said}. What else can I do for you?"))
            }),
            caller_word_ms: 300,
            utterance_gap_ms: 1_500,
        }
    }
}

/// What a model answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The words to speak, possibly none.
    pub text: String,
    /// A call of `set_stage`.
    pub stage: Option<String>,
    /// A call of `end_call`.
    pub hang_up: bool,
    /// Calls of the operator's tools: name and arguments, JSON or not.
    pub calls: Vec<(String, String)>,
}

impl Answer {
    /// Only words.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Only a call of a tool.
    pub fn call(name: impl Into<String>, arguments: impl Into<String>) -> Self {
        Self { calls: vec![(name.into(), arguments.into())], ..Self::default() }
    }
}

/// A way to go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// All is well.
    #[default]
    None,
    /// Takes the request and stays silent, before the head of an answer.
    NeverAnswers,
    /// Answers the head or the upgrade, takes everything, and sends nothing.
    HalfOpen,
    /// Breaks the connection after the first words or sound.
    DiesMidReply,
    /// Starts to answer, then goes silent for good.
    StallsMidReply,
    /// HTTP 429, with `Retry-After: 0`.
    TooManyRequests,
    /// HTTP 503, with a `Retry-After` of so many seconds.
    Unavailable(u32),
    /// HTTP 500.
    ServerError,
    /// Answers with something that is not its protocol.
    Garbage,
    /// Gives its words, results or sound in good order, far slower than they are spoken.
    Drips,
    /// Something in between answers for it: HTTP 200 and a page for people, to an upgrade as well.
    WrongContentType,
}

impl Fault {
    /// It shows before a WebSocket is agreed to.
    fn is_at_upgrade(self) -> bool {
        matches!(self, Self::NeverAnswers | Self::TooManyRequests | Self::Unavailable(_) | Self::ServerError | Self::WrongContentType)
    }

    /// Pause between two pieces of an answer that has no more than `every` without the fault.
    fn pace(self, every: Duration) -> Duration {
        if self == Self::Drips { DRIP_EVERY } else { every }
    }
}

/// A word, a result or 100 ms of sound come this often in a drip.
const DRIP_EVERY: Duration = Duration::from_secs(1);

/// A provider's fault, switched while it runs.
#[derive(Debug, Default)]
pub struct FaultSwitch(Mutex<(Fault, Option<u32>)>);

impl FaultSwitch {
    /// From now on, each request meets this.
    pub fn set(&self, fault: Fault) {
        *self.lock() = (fault, None);
    }

    /// The next `requests` requests meet this, the ones after it nothing.
    pub fn set_for(&self, requests: u32, fault: Fault) {
        *self.lock() = (fault, Some(requests));
    }

    /// What a new request meets.
    fn take(&self) -> Fault {
        let mut state = self.lock();
        match &mut state.1 {
            None => state.0,
            Some(0) => Fault::None,
            Some(left) => {
                *left -= 1;
                state.0
            }
        }
    }

    /// What a new request would meet.
    fn peek(&self) -> Fault {
        match *self.lock() {
            (_, Some(0)) => Fault::None,
            (fault, _) => fault,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Fault, Option<u32>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a provider has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Requests (chat, `OpenAI` speech), contexts (Cartesia) or streams (Deepgram) that came in.
    pub requests: u32,
    /// Those answered to the end.
    pub completed: u32,
    /// Those that the client left or took back before their end.
    pub cancelled: u32,
    /// Connections made to its address, which the `OpenAI` ones share.
    pub connections: u32,
    /// Of these, those made before the first request was read.
    pub connections_at_first: u32,
}

/// One running fake.
#[derive(Debug)]
pub struct Fake {
    /// What the provider's `base_url` setting has to be.
    pub base_url: String,
    /// How it goes wrong.
    pub fault: FaultSwitch,
    seen: watch::Sender<Seen>,
}

impl Fake {
    fn new(base_url: String) -> Arc<Self> {
        Arc::new(Self { base_url, fault: FaultSwitch::default(), seen: watch::Sender::default() })
    }

    /// What it has seen, now and with each change.
    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    /// Counts a request; the guard counts how it ends.
    fn request(self: &Arc<Self>) -> RequestGuard {
        self.seen.send_modify(|seen| {
            if seen.requests == 0 {
                seen.connections_at_first = seen.connections;
            }
            seen.requests += 1;
        });
        RequestGuard { fake: Arc::clone(self), completed: false }
    }
}

/// Counts a request as cancelled, unless told that it was completed.
struct RequestGuard {
    fake: Arc<Fake>,
    completed: bool,
}

impl RequestGuard {
    fn complete(mut self) {
        self.completed = true;
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let completed = self.completed;
        self.fake.seen.send_modify(|seen| if completed { seen.completed += 1 } else { seen.cancelled += 1 });
    }
}

/// All fakes, until dropped.
#[derive(Debug)]
pub struct FakeProviders {
    /// Speech to text.
    pub deepgram: Arc<Fake>,
    /// Chat completions; its `base_url` is that of [`Self::openai_tts`] too.
    pub openai_chat: Arc<Fake>,
    /// Speech over HTTP.
    pub openai_tts: Arc<Fake>,
    /// Speech to speech; the same `base_url` again. Its requests are connections; a fault meets the next answer of one.
    pub openai_realtime: Arc<Fake>,
    /// Speech over WebSocket.
    pub cartesia: Arc<Fake>,
    servers: Vec<JoinHandle<()>>,
}

/// What the handlers of one fake share.
#[derive(Clone)]
struct Lab {
    fake: Arc<Fake>,
    latency: Latency,
    script: Script,
    /// Deepgram and realtime: streams so far.
    streams: Arc<std::sync::atomic::AtomicUsize>,
}

impl FakeProviders {
    /// Starts all of them on ephemeral ports of 127.0.0.1.
    pub async fn start(latency: Latency, script: Script) -> std::io::Result<Self> {
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let (stt, openai, tts) = (listen().await?, listen().await?, listen().await?);
        let fake = |address: SocketAddr, path: &str| Fake::new(format!("http://{address}{path}"));
        let deepgram = fake(stt.local_addr()?, "");
        let openai_chat = fake(openai.local_addr()?, "/v1");
        let openai_tts = fake(openai.local_addr()?, "/v1");
        let openai_realtime = fake(openai.local_addr()?, "/v1");
        let cartesia = fake(tts.local_addr()?, "");
        let lab = |fake: &Arc<Fake>| Lab { fake: Arc::clone(fake), latency, script: script.clone(), streams: Arc::default() };
        let openai_routes =
            openai::chat_routes(lab(&openai_chat)).merge(openai::speech_routes(lab(&openai_tts))).merge(realtime::routes(lab(&openai_realtime)));
        let servers = vec![
            serve(stt, &[&deepgram], deepgram::routes(lab(&deepgram))),
            serve(openai, &[&openai_chat, &openai_tts, &openai_realtime], openai_routes),
            serve(tts, &[&cartesia], cartesia::routes(lab(&cartesia))),
        ];
        Ok(Self { deepgram, openai_chat, openai_tts, openai_realtime, cartesia, servers })
    }
}

impl Drop for FakeProviders {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

/// Takes connections for these fakes, and counts them.
struct Counted {
    listener: TcpListener,
    fakes: Vec<Arc<Fake>>,
}

impl Listener for Counted {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let accepted = Listener::accept(&mut self.listener).await;
        self.fakes.iter().for_each(|fake| fake.seen.send_modify(|seen| seen.connections += 1));
        accepted
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn serve(listener: TcpListener, fakes: &[&Arc<Fake>], routes: Router) -> JoinHandle<()> {
    let listener = Counted { listener, fakes: fakes.iter().map(|fake| Arc::clone(fake)).collect() };
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::warn!(%error, "a fake provider stopped");
        }
    })
}

/// What a request meets before it is looked at: a fault of the HTTP kind, or a refused key. Any key will do that does
/// not hold the word `wrong`; like a real provider, the refusal repeats the key.
async fn gate(fault: Fault, headers: &axum::http::HeaderMap) -> Option<Response> {
    let key = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if key.is_empty() || key.contains("wrong") {
        let error = json!({"error": {"message": format!("Incorrect API key provided: {key}")}});
        return Some((StatusCode::UNAUTHORIZED, axum::Json(error)).into_response());
    }
    match fault {
        Fault::NeverAnswers => std::future::pending().await,
        Fault::TooManyRequests => {
            let error = json!({"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}});
            Some((StatusCode::TOO_MANY_REQUESTS, [("retry-after", "0")], axum::Json(error)).into_response())
        }
        Fault::Unavailable(after_s) => {
            let headers = [("retry-after", after_s.to_string())];
            Some((StatusCode::SERVICE_UNAVAILABLE, headers, "overloaded").into_response())
        }
        Fault::ServerError => Some((StatusCode::INTERNAL_SERVER_ERROR, "oops").into_response()),
        Fault::WrongContentType => Some(axum::response::Html("<html>Log in to this network first</html>").into_response()),
        _ => None,
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
