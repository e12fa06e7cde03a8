//! One caller's session with Deepgram.
//!
//! Sound goes out as it comes in and is kept until a settled result covers it. A connection that breaks, or that takes
//! sound without ever answering, is replaced a few times; the new one first gets the kept sound, so that no word is
//! lost. A request to finalise is answered once: by Deepgram, or by us when it has nothing left to settle and says so
//! by silence.

use super::{CLOSE_STREAM, DeepgramSettings, FINALIZE, KEEP_ALIVE, Message, Results, SttMeter, decode};
use crate::account::DEEPGRAM;
use crate::failure::Failure;
use crate::replay::Replay;
use crate::retry::Retries;
use crate::stt::{EVENTS_MAX, INPUT_MAX, SttInput, SttSession};
use crate::ws::{Incoming, Socket};
use bytes::Bytes;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use url::Url;
use voiced_core::model::SttEvent;

/// Pause without sound after which we say that we are still there; Deepgram gives up after 10 s.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(4);
/// Unsettled sound that is kept for a new connection, in s: most turns whole. 80 kB of mu-law.
const REPLAY_S_MAX: usize = 10;
/// New tries to connect after a failure, until a word comes back.
const RETRIES_MAX: u32 = 3;
/// A request to finalise that stays unanswered for so long, with words known and more sound than this without a result, means that
/// words are missing from the guess: who answers it now answers half a sentence. Healthy, the answer takes some 100 ms.
const BEHIND_AFTER: Duration = Duration::from_millis(400);
const BEHIND_MS_MIN: u64 = 500;
/// Connections of one session, so that a provider which answers once and breaks does not keep us busy for a whole call.
const CONNECTIONS_MAX: u32 = 20;

pub(super) fn open(settings: Arc<DeepgramSettings>, url: Url, meter: Arc<SttMeter>) -> SttSession {
    let (input, session_input) = mpsc::channel(INPUT_MAX);
    let (session_events, events) = mpsc::channel(EVENTS_MAX);
    let (hand_over, unsettled) = oneshot::channel();
    let bytes_max = settings.encoding.bytes_per_second() * REPLAY_S_MAX;
    let retries = Retries::new(RETRIES_MAX, &settings.account.timeouts);
    let session = Session {
        settings,
        url,
        meter,
        input: session_input,
        events: session_events.clone(),
        replay: Replay::new(bytes_max),
        interim: String::new(),
        finalizes: 0,
        finalize_at: None,
        finalize_end: 0,
        covered: 0,
        told_behind: false,
        closing_at: None,
        unanswered_at: None,
        sent_at: Instant::now(),
        retries,
        hand_over: Some(hand_over),
    };
    tokio::spawn(async move {
        tokio::select! {
            () = session_events.closed() => {} // the conversation has gone: the socket goes with the future
            () = session.run() => {}
        }
    });
    SttSession { input, events, unsettled }
}

struct Session {
    settings: Arc<DeepgramSettings>,
    url: Url,
    meter: Arc<SttMeter>,
    input: mpsc::Receiver<SttInput>,
    events: mpsc::Sender<SttEvent>,
    replay: Replay,
    /// The last guess that was passed on and not yet settled.
    interim: String,
    /// Requests to finalise that are not answered, and when the newest was made.
    finalizes: u32,
    finalize_at: Option<Instant>,
    /// Where the sound ended then, and where that of the results ends, in bytes of this connection.
    finalize_end: u64,
    covered: u64,
    /// It was told that results fall behind, since then.
    told_behind: bool,
    /// When the conversation said that no more sound comes.
    closing_at: Option<Instant>,
    /// When the first sound went out of which nothing came back.
    unanswered_at: Option<Instant>,
    /// When anything was last sent.
    sent_at: Instant,
    retries: Retries,
    /// Where unsettled sound goes when all tries have failed.
    hand_over: Option<oneshot::Sender<Vec<Bytes>>>,
}

/// Why a connection is over.
enum End {
    /// Everything that was asked for is done.
    Settled,
    /// It is lost.
    Lost(Failure),
}

impl Session {
    async fn run(mut self) {
        let mut failure = Failure::passing(DEEPGRAM.name, "gave no connection");
        for connection in 0..CONNECTIONS_MAX {
            if connection > 0 {
                self.meter.reconnects.fetch_add(1, Ordering::Relaxed);
            }
            let mut socket = match self.connect().await {
                Ok(socket) => socket,
                Err(failure) => return self.fail(&failure).await,
            };
            match self.converse(&mut socket).await {
                End::Settled => {
                    self.answer_finalizes().await;
                    return socket.close().await;
                }
                End::Lost(lost) => failure = lost,
            }
            drop(socket);
            if !self.replay.is_empty() {
                self.say(SttEvent::Switched(format!("{failure}; what it had not settled is to be heard anew"))).await;
            }
            if !self.pause(&failure).await {
                break;
            }
        }
        self.fail(&failure).await;
    }

    /// Connects, trying again within limits. Sound that comes meanwhile is kept.
    async fn connect(&mut self) -> Result<Socket, Failure> {
        loop {
            let key = self.settings.account.api_key.expose();
            let headers: &[_] = if key.is_empty() { &[] } else { &[("authorization", format!("Token {key}"))] };
            let settings = Arc::clone(&self.settings);
            let url = self.url.clone();
            let connecting = Socket::connect(DEEPGRAM, &settings.account, &url, headers);
            match self.meanwhile(connecting).await {
                Ok(socket) => return Ok(socket),
                Err(failure) if self.pause(&failure).await => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn pause(&mut self, failure: &Failure) -> bool {
        let mut retries = self.retries;
        let again = self.meanwhile(retries.again(failure)).await;
        self.retries = retries;
        again
    }

    /// Waits for something while there is no connection, and keeps what the conversation says.
    async fn meanwhile<T>(&mut self, wait: impl Future<Output = T>) -> T {
        tokio::pin!(wait);
        loop {
            tokio::select! {
                biased;
                done = &mut wait => return done,
                input = self.input.recv(), if self.closing_at.is_none() => {
                    match input {
                        Some(SttInput::Audio(piece)) => {
                            let lost = self.replay.push(piece);
                            self.meter.lost_audio_ms.fetch_add(self.ms(lost), Ordering::Relaxed);
                        }
                        Some(SttInput::Speaks) => {}
                        Some(SttInput::Finalize) => self.note_finalize(),
                        Some(SttInput::Close) | None => self.closing_at = Some(Instant::now()),
                    }
                }
            }
        }
    }

    /// Talks over one connection until it is over.
    async fn converse(&mut self, socket: &mut Socket) -> End {
        if let Err(failure) = self.resume(socket).await {
            return End::Lost(failure);
        }
        loop {
            let wake = self.wake_at();
            let went = tokio::select! {
                message = socket.next() => match message {
                    Ok(message) => {
                        self.on_message(message).await;
                        Ok(())
                    }
                    Err(_) if self.closing_at.is_some() => return End::Settled,
                    Err(failure) => Err(failure),
                },
                input = self.input.recv(), if self.closing_at.is_none() => {
                    self.on_input(socket, input.unwrap_or(SttInput::Close)).await
                }
                () = sleep_until(wake) => {
                    if self.closed_for_long() {
                        return End::Settled;
                    }
                    self.on_timer(socket).await
                }
            };
            if let Err(failure) = went {
                return End::Lost(failure);
            }
        }
    }

    /// Brings a new connection to where the last one was.
    async fn resume(&mut self, socket: &mut Socket) -> Result<(), Failure> {
        (self.unanswered_at, self.covered) = (None, 0);
        for piece in self.replay.restart() {
            self.send_audio(socket, piece).await?;
        }
        if self.finalizes > 0 {
            self.finalizes = 0; // one answer settles all of them
            self.note_finalize();
            self.send_text(socket, FINALIZE).await?;
        }
        if self.closing_at.is_some() {
            self.closing_at = Some(Instant::now());
            self.send_text(socket, CLOSE_STREAM).await?;
        }
        Ok(())
    }

    async fn on_input(&mut self, socket: &mut Socket, input: SttInput) -> Result<(), Failure> {
        match input {
            SttInput::Audio(piece) => {
                self.replay.push(piece.clone());
                self.send_audio(socket, piece).await
            }
            SttInput::Speaks => Ok(()), // it gets all sound anyway
            SttInput::Finalize => {
                self.note_finalize();
                self.send_text(socket, FINALIZE).await
            }
            SttInput::Close => {
                self.closing_at = Some(Instant::now());
                self.send_text(socket, CLOSE_STREAM).await
            }
        }
    }

    async fn on_message(&mut self, message: Incoming) {
        let message = match &message {
            Incoming::Text(text) => decode(text).ok(),
            Incoming::Binary(_) => None,
        };
        match message {
            Some(Message::Results(results)) => self.on_results(results).await,
            Some(Message::Other) => self.unanswered_at = None,
            None => self.count_bad_message(),
        }
    }

    async fn on_results(&mut self, results: Results) {
        self.unanswered_at = None;
        self.retries.reset();
        self.covered = (results.end_s.max(0.0) * self.settings.encoding.bytes_per_second() as f64) as u64;
        if results.is_final {
            self.replay.settle(self.covered);
            self.interim.clear();
            if !results.text.is_empty() {
                self.say(SttEvent::Final(results.text)).await;
            }
        } else if results.text != self.interim {
            self.interim.clone_from(&results.text);
            self.say(SttEvent::Interim(results.text)).await;
        }
        if results.from_finalize && self.finalizes > 0 {
            self.finalizes -= 1;
            self.finalize_at = self.finalize_at.filter(|_| self.finalizes > 0);
            self.say(SttEvent::Finalized).await;
        }
    }

    /// Something is due: a sign of life, a finalise that stays unanswered, or a provider that does not listen.
    async fn on_timer(&mut self, socket: &mut Socket) -> Result<(), Failure> {
        let (now, half_open) = (Instant::now(), self.half_open());
        let waited = [self.unanswered_at, self.finalize_at].into_iter().flatten().any(|since| now >= since + half_open);
        if waited {
            let what = format!("took sound for {} ms without a word back", half_open.as_millis());
            return Err(self.settings.account.late(DEEPGRAM.name, what));
        }
        if self.finalize_due().is_some_and(|due| now >= due) {
            self.answer_finalizes().await;
        }
        if self.behind_due().is_some_and(|due| now >= due) {
            self.told_behind = true;
            self.say(SttEvent::Switched(format!("{}: its words fall behind the sound", DEEPGRAM.name))).await;
        }
        if now >= self.sent_at + KEEP_ALIVE_AFTER {
            self.send_text(socket, KEEP_ALIVE).await?;
        }
        Ok(())
    }

    /// When [`Self::on_timer`] has something to do.
    fn wake_at(&self) -> Instant {
        let half_open = [self.unanswered_at, self.finalize_at].into_iter().flatten().map(|since| since + self.half_open());
        let closed = self.closing_at.map(|since| since + self.idle());
        let keep_alive = self.sent_at + KEEP_ALIVE_AFTER;
        half_open.chain(self.finalize_due()).chain(self.behind_due()).chain(closed).fold(keep_alive, Instant::min)
    }

    /// When we answer a finalise ourselves: never while words are known to be unsettled.
    fn finalize_due(&self) -> Option<Instant> {
        let since = self.finalize_at.filter(|_| self.interim.is_empty() || self.replay.is_empty())?;
        Some(since + Duration::from_millis(self.settings.account.timeouts.finalize_ms))
    }

    /// When the conversation is told that the guess it has is of a beginning only.
    fn behind_due(&self) -> Option<Instant> {
        let behind_ms = self.ms(self.finalize_end.saturating_sub(self.covered) as usize);
        let is_behind = !self.interim.is_empty() && behind_ms > BEHIND_MS_MIN;
        Some(self.finalize_at.filter(|_| is_behind && !self.told_behind)? + BEHIND_AFTER)
    }

    fn closed_for_long(&self) -> bool {
        self.closing_at.is_some_and(|since| Instant::now() >= since + self.idle())
    }

    fn note_finalize(&mut self) {
        self.finalizes += 1;
        (self.finalize_at, self.finalize_end, self.told_behind) = (Some(Instant::now()), self.replay.end(), false);
    }

    async fn answer_finalizes(&mut self) {
        self.finalize_at = None;
        for _ in 0..std::mem::take(&mut self.finalizes) {
            self.say(SttEvent::Finalized).await;
        }
    }

    async fn send_audio(&mut self, socket: &mut Socket, piece: Bytes) -> Result<(), Failure> {
        self.sent_at = Instant::now();
        self.unanswered_at.get_or_insert(self.sent_at);
        if piece.is_empty() {
            return Ok(()); // an empty message would mean the end of the sound
        }
        socket.send_binary(piece).await
    }

    async fn send_text(&mut self, socket: &mut Socket, text: &str) -> Result<(), Failure> {
        self.sent_at = Instant::now();
        socket.send_text(text.to_owned()).await
    }

    async fn fail(&mut self, failure: &Failure) {
        while let Ok(input) = self.input.try_recv() {
            if let SttInput::Audio(piece) = input {
                self.replay.push(piece);
            }
        }
        if let Some(hand_over) = self.hand_over.take() {
            let _ = hand_over.send(self.replay.restart()); // nobody has to want it
        }
        self.say(SttEvent::Failed(failure.to_string())).await;
    }

    /// Tells the conversation; one that has gone cancels the session, so there is nobody to tell then.
    async fn say(&mut self, event: SttEvent) {
        if self.events.send(event).await.is_err() {
            pending::<()>().await;
        }
    }

    fn count_bad_message(&self) {
        self.meter.bad_messages.fetch_add(1, Ordering::Relaxed);
    }

    fn ms(&self, bytes: usize) -> u64 {
        (bytes * 1_000 / self.settings.encoding.bytes_per_second().max(1)) as u64
    }

    fn half_open(&self) -> Duration {
        Duration::from_millis(self.settings.account.timeouts.half_open_ms)
    }

    fn idle(&self) -> Duration {
        Duration::from_millis(self.settings.account.timeouts.idle_ms)
    }
}
