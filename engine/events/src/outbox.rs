//! The outbox: one SQLite file, owned by one thread that the rim talks to over a bounded channel. Records are committed
//! in batches, one fsync each, so that a burst of calls costs a few syncs and not hundreds.

use std::path::{Path, PathBuf};

use tokio::sync::{broadcast, mpsc, oneshot};
use voiced_core::event::CallEvent;

mod store;

pub use store::{Entry, State, Store};

/// Requests waiting for the outbox thread: about a second of a busy host's events; senders wait beyond it.
const REQUESTS_MAX: usize = 4_096;
/// Events committed in one transaction, so that the first of them does not wait for a flood behind it.
const BATCH_MAX: usize = 256;
/// Events that a slow live listener may fall behind before it misses some.
const LIVE_MAX: usize = 1_024;

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
    /// The outbox thread is gone.
    #[error("the event store has stopped")]
    Stopped,
}

/// A handle on the outbox; cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    requests: mpsc::Sender<Request>,
    live: broadcast::Sender<CallEvent>,
}

pub(crate) enum Request {
    Record(Box<CallEvent>, oneshot::Sender<bool>),
    Store(Box<dyn FnOnce(&mut Store) + Send>),
}

impl Outbox {
    /// Opens (or makes) the file and starts its thread. Every event will be delivered to each of `sinks`, by name.
    pub fn open(path: &Path, sinks: &[&str]) -> Result<Self, OutboxError> {
        let mut store = Store::open(path, sinks)?;
        let (requests, mut waiting) = mpsc::channel(REQUESTS_MAX);
        let (live, _) = broadcast::channel(LIVE_MAX);
        let to_live = live.clone();
        std::thread::Builder::new()
            .name("outbox".into())
            .spawn(move || {
                let mut batch = Vec::new();
                while waiting.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
                    serve(&mut store, &mut batch, &to_live);
                }
            })
            .map_err(|_| OutboxError::Stopped)?;
        Ok(Self { requests, live })
    }

    /// Writes an event; true once it is safe on disk. False, with a logged reason, when the disk refuses.
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

/// Serves requests in order: runs of records share a transaction.
fn serve(store: &mut Store, batch: &mut Vec<Request>, live: &broadcast::Sender<CallEvent>) {
    let mut records = Vec::new();
    for request in batch.drain(..) {
        match request {
            Request::Record(event, done) => records.push((event, done)),
            Request::Store(work) => {
                commit(store, &mut records, live);
                work(store);
            }
        }
    }
    commit(store, &mut records, live);
}

fn commit(store: &mut Store, records: &mut Vec<(Box<CallEvent>, oneshot::Sender<bool>)>, live: &broadcast::Sender<CallEvent>) {
    if records.is_empty() {
        return;
    }
    let safe = match store.record(records.iter().map(|(event, _)| &**event)) {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(%error, events = records.len(), "events could not be stored: check the disk of state_dir");
            false
        }
    };
    for (event, done) in records.drain(..) {
        if safe {
            let _ = live.send(*event); // nobody listening is fine
        }
        let _ = done.send(safe);
    }
}
