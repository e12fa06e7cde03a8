//! The outbox's own thread. Records are committed in batches, one fsync each, so that a burst of calls costs a few syncs
//! and not hundreds. What the disk refuses (full, read-only, locked by another) waits in memory, in order, and is tried
//! again every second; a damaged store is set aside and a new one begun. The calls notice nothing of either.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, mpsc, oneshot};
use voiced_core::event::CallEvent;

use super::health::StoreHealth;
use super::salvage::{self, Salvage};
use super::{OutboxError, Store};

/// Events committed in one transaction, so that the first of them does not wait for a flood behind it.
const BATCH_MAX: usize = 256;
/// A burst is committed so often at most, since each commit is a sync of the disk; the first event of it at once.
const COMMIT_EVERY: Duration = Duration::from_millis(20);
/// Events that wait in memory for the disk: some 20 MB, an hour of two hundred calls.
const UNWRITTEN_MAX: usize = 20_000;
/// How soon a disk that refused is asked again.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) enum Request {
    Record(Box<CallEvent>, oneshot::Sender<bool>),
    Store(Box<dyn FnOnce(&mut Store) + Send>),
    /// Look whether the disk takes what it refused.
    Retry,
}

pub(super) struct Writer {
    pub(super) store: Store,
    pub(super) live: broadcast::Sender<CallEvent>,
    pub(super) health: Arc<StoreHealth>,
    /// The file could not be opened yet: nothing is written to what stands in for it.
    pub(super) is_stand_in: bool,
    /// When the disk is asked again, while it refuses.
    pub(super) again_at: Option<Instant>,
}

impl Writer {
    /// Serves until nobody has a handle any more.
    pub(super) fn run(mut self, mut waiting: mpsc::Receiver<Request>) {
        let (mut batch, mut served_at) = (Vec::new(), None::<Instant>);
        while waiting.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
            let only_records = batch.iter().all(|request| matches!(request, Request::Record(..)));
            let early = served_at.and_then(|at| COMMIT_EVERY.checked_sub(at.elapsed()));
            if let Some(early) = early.filter(|_| only_records && batch.len() < BATCH_MAX && self.again_at.is_none()) {
                std::thread::sleep(early);
                while batch.len() < BATCH_MAX
                    && let Ok(request) = waiting.try_recv()
                {
                    batch.push(request);
                }
            }
            self.serve(&mut batch);
            served_at = Some(Instant::now());
        }
        self.again_at = None;
        self.write(&[]);
    }

    /// Serves requests in order: runs of records share a transaction.
    fn serve(&mut self, batch: &mut Vec<Request>) {
        let mut records = Vec::new();
        for request in batch.drain(..) {
            match request {
                Request::Record(event, done) => records.push((event, done)),
                Request::Store(work) => {
                    self.commit(&mut records);
                    work(&mut self.store);
                }
                Request::Retry => {}
            }
        }
        self.commit(&mut records);
        if self.is_stand_in || !self.store.unwritten.is_empty() {
            self.write(&[]);
        }
    }

    fn commit(&mut self, records: &mut Vec<(Box<CallEvent>, oneshot::Sender<bool>)>) {
        if records.is_empty() {
            return;
        }
        let (events, answers): (Vec<_>, Vec<_>) = records.drain(..).map(|(event, done)| (*event, done)).unzip();
        let safe = self.write(&events);
        for done in answers {
            let _ = done.send(safe);
        }
    }

    /// Writes what waits and then these; false when they have to wait too.
    fn write(&mut self, events: &[CallEvent]) -> bool {
        if self.again_at.is_some_and(|at| Instant::now() < at) {
            self.keep(events);
            return false;
        }
        let written = self.open().and_then(|()| self.flush()).and_then(|()| self.record(events));
        match written {
            Ok(()) => {
                self.again_at = None;
                if self.health.note(None) {
                    tracing::info!("the event store takes events again");
                }
            }
            Err(ref error) => {
                self.again_at = Some(Instant::now() + AGAIN);
                self.keep(events);
                refused(&self.health, error);
                if salvage::is_damage(error) {
                    self.begin_anew();
                }
            }
        }
        self.health.waiting(self.store.unwritten.len());
        written.is_ok()
    }

    /// Opens the file, where that could not be done at the start.
    fn open(&mut self) -> Result<(), OutboxError> {
        if self.is_stand_in {
            let sinks: Vec<_> = self.store.sinks.iter().map(String::as_str).collect();
            let (mut store, salvage) = salvage::open(&self.store.path, &sinks)?;
            if let Some(salvage) = &salvage {
                told(&self.health, salvage);
            }
            store.note_used(&self.store.connection).map_err(|source| store.sqlite(source))?;
            self.store = Store { unwritten: std::mem::take(&mut self.store.unwritten), ..store };
            self.is_stand_in = false;
        }
        Ok(())
    }

    /// Writes what waits, oldest first.
    fn flush(&mut self) -> Result<(), OutboxError> {
        while !self.store.unwritten.is_empty() {
            let batch: Vec<_> = self.store.unwritten.iter().take(BATCH_MAX).cloned().collect();
            self.record(&batch)?;
            self.store.unwritten.drain(..batch.len());
        }
        Ok(())
    }

    fn record(&mut self, events: &[CallEvent]) -> Result<(), OutboxError> {
        if events.is_empty() {
            return Ok(());
        }
        self.store.record(events.iter())?;
        for event in events {
            let _ = self.live.send(event.clone()); // nobody listening is fine
        }
        Ok(())
    }

    fn keep(&mut self, events: &[CallEvent]) {
        let room = UNWRITTEN_MAX.saturating_sub(self.store.unwritten.len()).min(events.len());
        self.store.unwritten.extend(events[..room].iter().cloned());
        let lost = events.len() - room;
        if lost > 0 {
            if self.health.lost() == 0 {
                tracing::error!("events are lost: {UNWRITTEN_MAX} wait in memory for the disk of state_dir already");
            }
            self.health.lose(lost);
        }
        self.health.waiting(self.store.unwritten.len());
    }

    /// Begins a new store in place of a damaged one; what waits goes into it at once.
    fn begin_anew(&mut self) {
        if Store::is_shared(&self.store.path, self.store.owner_id()) {
            return; // the other process would go on in the old file: what it writes there would be nobody's
        }
        let sinks = self.store.sinks.clone();
        let sinks: Vec<_> = sinks.iter().map(String::as_str).collect();
        match salvage::begin_anew(&self.store.path, &sinks, self.store.owner_id()) {
            Ok((store, salvage)) => {
                told(&self.health, &salvage);
                let unwritten = std::mem::take(&mut self.store.unwritten);
                self.store = Store { unwritten, ..store };
                self.again_at = None;
            }
            Err(error) => tracing::error!(%error, "the damaged event store cannot be set aside"),
        }
    }
}

/// Says, once, that the disk takes no events.
pub(super) fn refused(health: &StoreHealth, error: &OutboxError) {
    if !health.note(Some(error.to_string())) {
        tracing::error!(%error, "events cannot be stored and wait in memory: see to the disk of state_dir; calls go on");
    }
}

/// Says what became of a damaged store.
pub(super) fn told(health: &StoreHealth, salvage: &Salvage) {
    health.damaged();
    tracing::error!(
        kept = salvage.kept,
        calls_cut_off = salvage.calls_cut_off,
        "the event store was damaged: it lies in {} and a new one was begun; what could be read of it is kept",
        salvage.aside.display()
    );
}

#[cfg(test)]
mod tests {
    use voiced_core::event::CallEventKind;

    use super::*;

    #[test]
    fn on_a_disk_that_became_read_only_events_wait_until_it_can_be_written_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = Store::open(&folder.path().join("events.db"), &["ema"]).expect("a store");
        store.claim().expect("a claim");
        let mut writer = Writer { store, live: broadcast::channel(8).0, health: Arc::default(), is_stand_in: false, again_at: None };
        let kind = CallEventKind::CallInitiated { metadata: std::collections::BTreeMap::default(), started_at_unix_ms: 0 };
        let event = CallEvent { session_id: "CA1".into(), call_sid: None, at_unix_ms: 0, sequence: 0, kind };
        let read_only = |writer: &Writer, on: bool| writer.store.connection.pragma_update(None, "query_only", on).expect("a pragma");
        read_only(&writer, true);
        assert!(!writer.write(std::slice::from_ref(&event)));
        assert!(writer.health.trouble().is_some_and(|trouble| trouble.contains("readonly")), "{:?}", writer.health.trouble());
        read_only(&writer, false);
        assert!(!writer.write(&[]), "not asked again at once");
        writer.again_at = None;
        assert!(writer.write(&[]));
        assert_eq!((writer.health.unwritten(), writer.store.list(false, 9).map_or(0, |all| all.len())), (0, 1));
        assert_eq!(writer.health.trouble(), None);
    }
}
