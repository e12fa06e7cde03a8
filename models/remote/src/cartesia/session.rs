//! The voice of one reply over one connection: the phrase that speaks and the next are asked for at once; the next
//! one's sound waits until the first is complete. A connection that breaks before the current phrase sounded is
//! replaced once and asked again.

use super::{Message, Shared, cancel_request, decode, generation_request, headers};
use crate::account::CARTESIA;
use crate::failure::Failure;
use crate::pcm::{PcmDecoder, send_audio};
use crate::retry::Retries;
use crate::tts::{EVENTS_MAX, INPUT_MAX, TtsInput, TtsSession};
use crate::ws::{Incoming, Socket};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use voiced_core::model::TtsEvent;

/// Phrases that are asked for at once: Cartesia counts contexts against the account's concurrency.
const PHRASES_MAX: usize = 2;
/// Sound of the next phrase that waits for its turn, in s: no phrase is so long.
const WAITING_S_MAX: usize = 60;
/// New connections after a failure, until the next sound.
const RETRIES_MAX: u32 = 1;

pub(super) fn open(shared: Arc<Shared>) -> TtsSession {
    let (input, session_input) = mpsc::channel(INPUT_MAX);
    let (events, receiver) = mpsc::channel(EVENTS_MAX);
    let retries = Retries::new(RETRIES_MAX, &shared.settings.account.timeouts);
    let mut session = Session {
        shared,
        input: session_input,
        events: events.clone(),
        open: true,
        phrases: VecDeque::new(),
        waiting_since: Instant::now(),
        contexts: rand::random(),
        retries,
    };
    tokio::spawn(async move {
        let mut socket = None;
        tokio::select! {
            () = events.closed() => session.cancel(socket).await,
            went = session.run(&mut socket) => match (went, socket) {
                (Ok(()), Some(socket)) => session.shared.pool.keep(socket),
                (Ok(()), None) => {}
                (Err(failure), _) => {
                    let _ = events.send(TtsEvent::Failed(failure.to_string())).await;
                }
            },
        }
    });
    TtsSession { input, events: receiver }
}

struct Session {
    shared: Arc<Shared>,
    input: mpsc::Receiver<TtsInput>,
    events: mpsc::Sender<TtsEvent>,
    /// More phrases may come.
    open: bool,
    /// What was asked for, in order.
    phrases: VecDeque<Phrase>,
    /// Since when the first phrase owes us its next sound.
    waiting_since: Instant,
    /// Counts contexts from a random start: connections outlive sessions.
    contexts: u64,
    retries: Retries,
}

/// A phrase on its way.
struct Phrase {
    /// The conversation's name for it.
    number: u32,
    text: String,
    context: String,
    decoder: PcmDecoder,
    /// Sound that waits for the phrases before.
    waiting: Vec<i16>,
    heard: bool,
    done: bool,
}

impl Session {
    async fn run(&mut self, socket: &mut Option<Socket>) -> Result<(), Failure> {
        loop {
            let went = self.converse(socket).await;
            let Err(failure) = went else { return Ok(()) };
            *socket = None;
            if self.phrases.front().is_some_and(|first| first.heard) || !self.retries.again(&failure).await {
                return Err(failure);
            }
        }
    }

    /// Speaks over one connection until all is said.
    async fn converse(&mut self, connection: &mut Option<Socket>) -> Result<(), Failure> {
        let Shared { settings, url, pool } = &*self.shared;
        let socket = if let Some(socket) = pool.take() {
            connection.insert(socket)
        } else {
            let headers = headers(&settings.account);
            connection.insert(Socket::connect(CARTESIA, &settings.account, url, &headers).await?)
        };
        for index in 0..self.phrases.len() {
            self.ask(socket, index).await?; // again, after a lost connection
        }
        self.waiting_since = Instant::now();
        while self.open || !self.phrases.is_empty() {
            let wake = self.waiting_since + self.patience();
            tokio::select! {
                message = socket.next() => {
                    self.on_message(message?).await?;
                    self.waiting_since = Instant::now();
                }
                input = self.input.recv(), if self.open && self.phrases.len() < PHRASES_MAX => {
                    self.on_input(socket, input.unwrap_or(TtsInput::End)).await?;
                }
                () = sleep_until(wake), if !self.phrases.is_empty() => {
                    let what = format!("no sound for {} ms", self.patience().as_millis());
                    return Err(self.shared.settings.account.late(CARTESIA.name, what));
                }
            }
        }
        Ok(())
    }

    async fn on_input(&mut self, socket: &mut Socket, input: TtsInput) -> Result<(), Failure> {
        let TtsInput::Phrase { phrase, text } = input else {
            self.open = false;
            return Ok(());
        };
        if self.phrases.is_empty() {
            self.waiting_since = Instant::now();
        }
        let done = text.trim().is_empty(); // nothing to say, and the provider would refuse to
        let (context, decoder) = (String::new(), PcmDecoder::default());
        self.phrases.push_back(Phrase { number: phrase, text, context, decoder, waiting: Vec::new(), heard: false, done });
        self.ask(socket, self.phrases.len() - 1).await?;
        self.release().await;
        Ok(())
    }

    /// Asks for a phrase from its start, unless all its sound is here.
    async fn ask(&mut self, socket: &mut Socket, index: usize) -> Result<(), Failure> {
        let asked = &mut self.phrases[index];
        if asked.done {
            return Ok(());
        }
        self.contexts = self.contexts.wrapping_add(1);
        asked.context = format!("{:016x}", self.contexts);
        asked.decoder = PcmDecoder::default();
        asked.waiting.clear();
        socket.send_text(generation_request(&self.shared.settings, &asked.context, &asked.text).to_string()).await
    }

    async fn on_message(&mut self, message: Incoming) -> Result<(), Failure> {
        let Incoming::Text(text) = message else { return Err(unreadable()) };
        match decode(&text).map_err(|_| unreadable())? {
            Message::Audio { context, bytes } => self.on_audio(&context, &bytes)?,
            Message::Done { context } => {
                if let Some(phrase) = self.phrase(&context) {
                    phrase.done = true;
                }
            }
            Message::Error { context, status, words } => {
                if context.is_none_or(|context| self.phrase(&context).is_some()) {
                    let what = format!("error {status}: {}", self.shared.settings.account.api_key.redact(&words));
                    let passing = status == 429 || status >= 500;
                    let failure = if passing { Failure::passing } else { Failure::lasting };
                    return Err(failure(CARTESIA.name, what));
                }
            }
            Message::Other => {}
        }
        self.release().await;
        Ok(())
    }

    fn on_audio(&mut self, context: &str, bytes: &[u8]) -> Result<(), Failure> {
        let waiting_max = self.shared.settings.rate_hz as usize * WAITING_S_MAX;
        let Some(phrase) = self.phrase(context) else { return Ok(()) };
        let samples = phrase.decoder.push(bytes);
        phrase.waiting.extend(samples);
        if phrase.waiting.len() > waiting_max {
            return Err(Failure::lasting(CARTESIA.name, format!("a phrase is longer than {WAITING_S_MAX} s")));
        }
        Ok(())
    }

    /// Passes on what is next in order. A conversation that has gone cancels the session at its next wait.
    async fn release(&mut self) {
        while let Some(first) = self.phrases.front_mut() {
            if !first.waiting.is_empty() {
                first.heard = true;
                self.retries.reset();
                let samples = std::mem::take(&mut first.waiting);
                let _ = send_audio(&self.events, first.number, &samples).await;
            }
            if !first.done {
                return;
            }
            let _ = self.events.send(TtsEvent::PhraseDone(first.number)).await;
            self.phrases.pop_front();
        }
    }

    /// How long the first phrase may be silent.
    fn patience(&self) -> Duration {
        let timeouts = &self.shared.settings.account.timeouts;
        let heard = self.phrases.front().is_some_and(|first| first.heard);
        Duration::from_millis(if heard { timeouts.idle_ms } else { timeouts.first_byte_ms })
    }

    fn phrase(&mut self, context: &str) -> Option<&mut Phrase> {
        self.phrases.iter_mut().find(|phrase| phrase.context == context)
    }

    /// The conversation has gone: what is not done is taken back, since it costs money.
    async fn cancel(&self, socket: Option<Socket>) {
        let Some(mut socket) = socket else { return };
        for phrase in self.phrases.iter().filter(|phrase| !phrase.done) {
            if socket.send_text(cancel_request(&phrase.context).to_string()).await.is_err() {
                return;
            }
        }
        socket.close().await;
    }
}

fn unreadable() -> Failure {
    Failure::passing(CARTESIA.name, "sent a message that is not its protocol")
}
