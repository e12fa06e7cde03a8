//! Who writes in the store. Two processes may at a time: one that drains and the one that takes over from it. Both use
//! one file, since SQLite can be shared and then a call that is connected again at the successor goes on with its numbers
//! behind what the predecessor still owes. Each event has an owner, who alone delivers it. A process is alive while it
//! holds the lock of its own file beside the store, which the kernel frees however it ends: whoever then gets the lock
//! reports the dead one's open calls as ended and takes over what it owed.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use rusqlite::{TransactionBehavior, params};
use voiced_core::event::{CallEvent, CallEventKind};

use super::{OutboxError, Store};
use crate::deliver::unix_ms;

/// A process that writes in the store: this one, for as long as this lives.
pub(super) struct Owner {
    id: i64,
    /// Locked.
    _lock: File,
}

impl Owner {
    pub(super) fn id(&self) -> i64 {
        self.id
    }
}

/// A process that lives, and its calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// When it started, ms since the Unix epoch.
    pub since_unix_ms: u64,
    /// It takes no new calls.
    pub draining: bool,
    /// Sessions that have not ended, and when each began.
    pub calls: Vec<(String, u64)>,
}

impl Store {
    /// Makes this process an owner.
    pub fn claim(&mut self) -> Result<(), OutboxError> {
        let path = self.path.clone();
        let sqlite = |source| OutboxError::Sqlite { path: path.clone(), source };
        // nobody sees the row before its lock is held
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        transaction.execute("INSERT INTO owners (pid, since_unix_ms) VALUES (?, ?)", params![std::process::id(), unix_ms() as i64]).map_err(sqlite)?;
        let id = transaction.last_insert_rowid();
        let file = lock_file(&path, id);
        let lock = File::create(&file).and_then(|lock| lock.try_lock().map(|()| lock).map_err(std::io::Error::from));
        let lock = lock.map_err(|source| OutboxError::Lock { path: file, source })?;
        transaction.commit().map_err(sqlite)?;
        self.owner = Some(Owner { id, _lock: lock });
        Ok(())
    }

    /// Numbers owners behind this one from now on.
    pub(super) fn number_owners_behind(&mut self, id: i64) -> Result<(), OutboxError> {
        self.connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('owners', ?)", [id]).map(|_| ()).map_err(|source| self.sqlite(source))
    }

    /// Says, for whoever asks, that this process takes no new calls.
    pub fn draining(&mut self) -> Result<(), OutboxError> {
        self.connection.execute("UPDATE owners SET draining = 1 WHERE id = ?", [self.owner_id()]).map(|_| ()).map_err(|source| self.sqlite(source))
    }

    /// Takes over from every process that is no more: reports each call that it left open as ended, and owes from now on
    /// what it owed. Returns how many calls were cut off.
    pub fn take_over(&mut self) -> Result<usize, OutboxError> {
        let mut ended = 0;
        for (id, _) in self.owners()? {
            if id == self.owner_id() {
                continue;
            }
            let file = lock_file(&self.path, id);
            let Some(_lock) = lock(&file)? else { continue };
            ended += self.take_over_from(id)?;
            let _ = std::fs::remove_file(&file); // its number is not used again
        }
        Ok(ended)
    }

    fn take_over_from(&mut self, dead: i64) -> Result<usize, OutboxError> {
        let ended = self.end_open_calls(dead)?;
        let mine = self.owner_id();
        let path = self.path.clone();
        let mut work = || -> rusqlite::Result<()> {
            let transaction = self.connection.transaction()?;
            transaction
                .execute("UPDATE events SET owner = ?1 WHERE owner = ?2 AND id IN (SELECT event FROM deliveries WHERE state <> 'sent')", [mine, dead])?;
            transaction.execute("DELETE FROM owners WHERE id = ?", [dead])?;
            transaction.commit()
        };
        work().map_err(|source| OutboxError::Sqlite { path, source })?;
        Ok(ended)
    }

    /// Reports each call that an owner left open as ended; returns how many.
    pub(super) fn end_open_calls(&mut self, owner: i64) -> Result<usize, OutboxError> {
        let ends = self.open_calls(owner)?.iter().filter_map(|(session, _)| self.orphan_end(session).transpose()).collect::<Result<Vec<_>, _>>()?;
        self.record(ends.iter())?;
        Ok(ends.len())
    }

    /// The processes that live, oldest first.
    pub fn processes(&self) -> Result<Vec<Process>, OutboxError> {
        let mut processes = Vec::new();
        for (id, process) in self.owners()? {
            if id == self.owner_id() || lock(&lock_file(&self.path, id))?.is_none() {
                processes.push(Process { calls: self.open_calls(id)?, ..process });
            }
        }
        Ok(processes)
    }

    /// True when another process than this one lives.
    pub(super) fn is_shared(path: &Path, mine: i64) -> bool {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return false };
        let prefix = format!("{name}{LOCK_INFIX}");
        let mut others = std::fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
            let id: i64 = entry.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok()?;
            (id != mine).then(|| entry.path())
        });
        others.any(|file| matches!(lock(&file), Ok(None)))
    }

    fn owners(&self) -> Result<Vec<(i64, Process)>, OutboxError> {
        let work = || -> rusqlite::Result<_> {
            let mut statement = self.connection.prepare_cached("SELECT id, pid, since_unix_ms, draining FROM owners ORDER BY id")?;
            let rows = statement.query_map([], |row| {
                let since: i64 = row.get(2)?;
                Ok((row.get(0)?, Process { pid: row.get(1)?, since_unix_ms: since as u64, draining: row.get(3)?, calls: Vec::new() }))
            })?;
            rows.collect()
        };
        work().map_err(|source| self.sqlite(source))
    }

    /// Sessions of an owner whose last event is not their end, and when each began.
    fn open_calls(&self, owner: i64) -> Result<Vec<(String, u64)>, OutboxError> {
        let work = || -> rusqlite::Result<_> {
            let mut statement = self.connection.prepare_cached(
                "SELECT session_id, (SELECT MAX(at_unix_ms) FROM events g WHERE g.session_id = e.session_id AND g.kind = 'call_initiated') FROM events e
                 WHERE kind <> 'call_ended' AND owner = ?
                 AND sequence = (SELECT MAX(sequence) FROM events f WHERE f.session_id = e.session_id) ORDER BY id",
            )?;
            statement.query_map([owner], |row| Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?.unwrap_or_default() as u64)))?.collect()
        };
        work().map_err(|source| self.sqlite(source))
    }

    /// The end of a call that nobody saw end, as its recorded events tell it.
    fn orphan_end(&self, session: &str) -> Result<Option<CallEvent>, OutboxError> {
        let events = self.events_of(session)?;
        let Some(last) = events.last().cloned() else { return Ok(None) };
        // a call that was connected more than once has ended before
        let begun = events.iter().rposition(|event| matches!(event.kind, CallEventKind::CallInitiated { .. })).unwrap_or(0);
        let started = events[begun].at_unix_ms;
        let (mut turns, mut stage) = (0, String::new());
        for event in &events[begun..] {
            if let CallEventKind::Utterance { stage: said_in, .. } = &event.kind {
                turns += 1;
                stage.clone_from(said_in);
            }
        }
        Ok(Some(CallEvent {
            session_id: session.to_owned(),
            call_sid: last.call_sid,
            at_unix_ms: last.at_unix_ms,
            sequence: last.sequence + 1,
            kind: CallEventKind::CallEnded {
                duration_seconds: last.at_unix_ms.saturating_sub(started) as f64 / 1_000.0,
                total_turns: turns,
                final_stage: stage,
                reason: "crashed".into(),
            },
        }))
    }
}

const LOCK_INFIX: &str = ".owner-";

fn lock_file(store: &Path, id: i64) -> PathBuf {
    let mut file = store.as_os_str().to_owned();
    file.push(format!("{LOCK_INFIX}{id}"));
    file.into()
}

/// The lock of a process that is no more; `None` while it lives.
fn lock(file: &Path) -> Result<Option<File>, OutboxError> {
    let failed = |source| OutboxError::Lock { path: file.to_owned(), source };
    // made where it is missing: of two that take over from the same one, only one may get it
    let lock = File::options().write(true).create(true).truncate(false).open(file).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}
