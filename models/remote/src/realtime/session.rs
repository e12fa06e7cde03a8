//! One call's socket: `select → apply`. What happens goes to [`Talk`], and what that wants sent or told goes out. A connection
//! that breaks, or that takes what is asked without a word, is replaced a few times; then whoever asks is told that the
//! session is over, and the next providers of the chains go on.

use super::talk::Talk;
use super::{Command, Latest, Shared, wire};
use crate::account::OPENAI;
use crate::failure::Failure;
use crate::retry::Retries;
use crate::stt::SttInput;
use crate::ws::{Incoming, Socket};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use voiced_core::model::SttEvent;

/// New tries to connect after a failure, until a word comes back: more would take longer than the caller's patience.
const RETRIES_MAX: u32 = 2;
/// Connections of one call, so that a provider which answers once and breaks does not keep us busy for all of it.
const CONNECTIONS_MAX: u32 = 20;

pub(super) fn spawn(shared: Arc<Shared>, commands: mpsc::Receiver<Command>, latest: Latest) {
    let talk = Talk::new(shared.settings.clone(), latest);
    let retries = Retries::new(RETRIES_MAX, &shared.settings.account.timeouts);
    tokio::spawn(Session { shared, commands, ears: None, talk, retries }.run());
}

struct Session {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    ears: Option<Ears>,
    talk: Talk,
    retries: Retries,
}

/// Where the caller's sound comes from, and where its words go.
struct Ears {
    fed: mpsc::Receiver<SttInput>,
    told: mpsc::Sender<SttEvent>,
    hand_over: oneshot::Sender<Vec<Bytes>>,
}

/// What the call wants.
enum Wish {
    Command(Command),
    Fed(SttInput),
    /// The call is over.
    End,
}

/// Why a connection is over.
enum End {
    Call,
    Lost(Failure),
}

impl Session {
    async fn run(mut self) {
        let mut failure = Failure::passing(OPENAI.name, "gave no connection");
        for _ in 0..CONNECTIONS_MAX {
            let pooled = self.shared.pool.take();
            let connected = if let Some(socket) = pooled {
                Some(Ok(socket))
            } else {
                let shared = Arc::clone(&self.shared);
                self.meanwhile(shared.connect()).await
            };
            match connected {
                None => return,
                Some(Err(refused)) => failure = refused,
                Some(Ok(mut socket)) => match self.converse(&mut socket).await {
                    End::Call => return socket.close().await,
                    End::Lost(lost) => failure = lost,
                },
            }
            tracing::debug!(%failure, "a realtime connection is over");
            self.talk.lost(&failure);
            let mut retries = self.retries;
            let again = self.meanwhile(retries.again(&failure)).await;
            self.retries = retries;
            match again {
                None => return,
                Some(false) => break,
                Some(true) => {}
            }
        }
        self.fail(&failure);
    }

    /// Waits for something while there is no connection, and keeps what the call wants; nothing, when the call ends.
    async fn meanwhile<T>(&mut self, wait: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(wait);
        loop {
            tokio::select! {
                biased;
                done = &mut wait => return Some(done),
                wish = wish(&mut self.commands, &mut self.ears) => if !self.apply(wish) {
                    return None;
                },
            }
        }
    }

    /// Talks over one connection until it is over.
    async fn converse(&mut self, socket: &mut Socket) -> End {
        self.talk.connected(Instant::now());
        loop {
            if let Err(failure) = self.flush(socket).await {
                return End::Lost(failure);
            }
            let due = self.talk.due();
            let went = tokio::select! {
                message = socket.next() => message.and_then(|message| self.on_message(&message)),
                wish = wish(&mut self.commands, &mut self.ears) => if self.apply(wish) { Ok(()) } else { return End::Call },
                () = sleep_until(due.map_or_else(Instant::now, |(at, _)| at)), if due.is_some() => {
                    Err(Failure::passing(OPENAI.name, due.map_or("is late", |(_, what)| what)))
                }
            };
            if let Err(failure) = went {
                return End::Lost(failure);
            }
        }
    }

    fn on_message(&mut self, message: &Incoming) -> Result<(), Failure> {
        let unreadable = || Failure::passing(OPENAI.name, "sent a message that is not its protocol");
        let Incoming::Text(text) = message else { return Err(unreadable()) };
        let event = wire::decode(text).map_err(|_| unreadable())?;
        let key = &self.shared.settings.account.api_key;
        let event = match event {
            wire::Event::Error { of, words } => wire::Event::Error { of, words: key.redact(&words) },
            event => event,
        };
        self.talk.event(event, Instant::now())?;
        if std::mem::take(&mut self.talk.is_well) {
            self.retries.reset();
        }
        Ok(())
    }

    /// False when the call is over.
    fn apply(&mut self, wish: Wish) -> bool {
        match wish {
            Wish::Command(Command::Hear { fed, told, hand_over }) => self.ears = Some(Ears { fed, told, hand_over }),
            Wish::Command(command) => self.talk.command(command, Instant::now()),
            Wish::Fed(input) => self.talk.fed(input, Instant::now()),
            Wish::End => return false,
        }
        true
    }

    async fn flush(&mut self, socket: &mut Socket) -> Result<(), Failure> {
        for event in std::mem::take(&mut self.talk.told) {
            if let Some(ears) = &self.ears {
                let _ = ears.told.send(event).await; // a call that has gone drops the session too
            }
        }
        for message in std::mem::take(&mut self.talk.out) {
            socket.send_text(message.to_string()).await?;
        }
        Ok(())
    }

    /// There will be no other connection: everybody is told, and what was not understood is handed over.
    fn fail(&mut self, failure: &Failure) {
        self.talk.over(failure);
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            self.apply(Wish::Command(command));
        }
        self.talk.over(failure);
        if let Some(Ears { mut fed, told, hand_over }) = self.ears.take() {
            while let Ok(input) = fed.try_recv() {
                self.talk.fed(input, Instant::now());
            }
            let _ = hand_over.send(self.talk.hearing.unsettled()); // nobody has to want it
            let _ = told.try_send(SttEvent::Failed(failure.to_string())); // a call that is so far behind has gone
        }
    }
}

async fn wish(commands: &mut mpsc::Receiver<Command>, ears: &mut Option<Ears>) -> Wish {
    let fed = async {
        match ears {
            Some(ears) => ears.fed.recv().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        command = commands.recv() => command.map_or(Wish::End, Wish::Command),
        Some(input) = fed => Wish::Fed(input),
    }
}
