//! The outbox: one SQLite file, in each process owned by one thread that the rim talks to over a bounded channel.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::ErrorCode;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;
use voiced_core::event::CallEvent;

use crate::deliver::unix_ms;

mod health;
mod inspect;
mod owners;
mod salvage;
mod store;
mod writer;

pub use health::StoreHealth;
pub use owners::Process;
pub use store::{Entry, State, Store};

use writer::{Request, Writer};

/// Requests waiting for the outbox thread: about a second of a busy host's events; senders wait beyond it.
const REQUESTS_MAX: usize = 4_096;
/// Events that a slow live listener may fall behind before it misses some.
const LIVE_MAX: usize = 1_024;
/// How long after a search of the whole store for old events the next begins.
const PRUNE_EVERY: Duration = Duration::from_hours(1);

/// Why the outbox failed.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// SQLite said no.
    #[error("the event store {path}: {source}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file is not as SQLite left it.
    #[error("the event store {path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A file beside the store cannot be made, locked or moved.
    #[error("{path}: {source}")]
    Lock {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The outbox thread is gone.
    #[error("the event store has stopped")]
    Stopped,
}

impl OutboxError {
    /// The disk is in the way, or another process: later it may go.
    fn may_pass(&self) -> bool {
        match self {
            Self::Sqlite { source: rusqlite::Error::SqliteFailure(failure, _), .. } => matches!(
                failure.code,
                ErrorCode::DiskFull
                    | ErrorCode::ReadOnly
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::CannotOpen
                    | ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
            ),
            Self::Lock { .. } => true,
            Self::Sqlite { .. } | Self::Damaged { .. } | Self::Stopped => false,
        }
    }
}

/// A handle on the outbox; cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    requests: mpsc::Sender<Request>,
    live: broadcast::Sender<CallEvent>,
    health: Arc<StoreHealth>,
}

impl Outbox {
    /// Opens (or makes) the file and starts its thread. Every event will be delivered to each of `sinks`, by name. A file
    /// that is damaged is set aside and a new one begun; one that cannot be opened now is tried again until it can, and
    /// events wait in memory meanwhile.
    pub fn open(path: &Path, sinks: &[&str]) -> Result<Self, OutboxError> {
        let health = Arc::new(StoreHealth::default());
        let opened = salvage::open(path, sinks);
        let is_stand_in = opened.is_err();
        let store = match opened {
            Ok((store, salvage)) => {
                if let Some(salvage) = &salvage {
                    writer::told(&health, salvage);
                }
                store
            }
            Err(error) if error.may_pass() => {
                writer::refused(&health, &error);
                Store::stand_in(path, sinks)?
            }
            Err(error) => return Err(error),
        };
        let (requests, waiting) = mpsc::channel(REQUESTS_MAX);
        let (live, _) = broadcast::channel(LIVE_MAX);
        let writer = Writer { store, live: live.clone(), health: Arc::clone(&health), is_stand_in, again_at: None };
        std::thread::Builder::new().name("outbox".into()).spawn(move || writer.run(waiting)).map_err(|_| OutboxError::Stopped)?;
        Ok(Self { requests, live, health })
    }

    /// Writes an event; true once it is safe on disk. False when the disk refuses: then it waits in memory for the disk.
    pub async fn record(&self, event: CallEvent) -> bool {
        let (done, safe) = oneshot::channel();
        if self.requests.send(Request::Record(Box::new(event), done)).await.is_err() {
            return false;
        }
        safe.await.unwrap_or(false)
    }

    /// Events as they become safe, for `/events`.
    pub fn live(&self) -> broadcast::Receiver<CallEvent> {
        self.live.subscribe()
    }

    /// How the store is.
    pub fn health(&self) -> &StoreHealth {
        &self.health
    }

    /// Asks a disk that refused again, from time to time, until the outbox stops; takes over from processes that end; and
    /// forgets what is old, a few events each time.
    pub async fn watch(self, every: Duration) {
        let (mut pruned_to, mut prune_at) = (0, Instant::now());
        loop {
            tokio::time::sleep(every).await;
            if self.requests.send(Request::Retry).await.is_err() {
                return;
            }
            match self.with(Store::take_over).await {
                Ok(Ok(0)) => {}
                Ok(Ok(calls_cut_off)) => tracing::warn!(calls_cut_off, "another voiced on this store died: its calls are reported as ended"),
                Ok(Err(error)) => tracing::debug!(%error, "the store cannot be searched for what others left"),
                Err(_) => return,
            }
            if Instant::now() < prune_at || self.health.trouble().is_some() {
                continue;
            }
            match self.with(move |store| store.prune(pruned_to, unix_ms())).await {
                Ok(Ok(Some(last))) => pruned_to = last,
                Ok(Ok(None)) => (pruned_to, prune_at) = (0, Instant::now() + PRUNE_EVERY),
                Ok(Err(error)) => tracing::debug!(%error, "old events cannot be forgotten now"),
                Err(_) => return,
            }
        }
    }

    /// Runs a question or a change on the store's thread.
    pub async fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut Store) -> T + Send + 'static) -> Result<T, OutboxError> {
        let (answer, result) = oneshot::channel();
        let work = Request::Store(Box::new(move |store: &mut Store| {
            let _ = answer.send(work(store));
        }));
        self.requests.send(work).await.map_err(|_| OutboxError::Stopped)?;
        result.await.map_err(|_| OutboxError::Stopped)
    }
}
