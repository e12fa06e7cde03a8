//! A store that cannot be read any more is set aside and a new one begun; what can still be read of it is kept. An event
//! whose delivery is not known any more is owed again: its receiver knows it by its key.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use voiced_core::event::CallEvent;

use super::store::event_at;
use super::{OutboxError, State, Store};
use crate::deliver::unix_ms;

/// Events written at once into the new store.
const BATCH: usize = 256;
/// Places of the old store that are looked at one by one behind one that cannot be read: a page holds fewer events.
const SKIPPED_MAX: i64 = 10_000;

/// What became of a damaged store.
#[derive(Clone, Debug)]
pub struct Salvage {
    /// Where it lies now.
    pub aside: PathBuf,
    /// Events that could be read.
    pub kept: usize,
    /// Calls among them that were reported as ended, since nobody has them any more.
    pub calls_cut_off: usize,
}

/// Opens the store for this process. A damaged one is set aside, unless another process still uses it.
pub(super) fn open(path: &Path, sinks: &[&str]) -> Result<(Store, Option<Salvage>), OutboxError> {
    let whole = || {
        let store = Store::open(path, sinks)?;
        let verdict: String = store.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|source| store.sqlite(source))?;
        if verdict == "ok" { Ok(store) } else { Err(OutboxError::Damaged { path: path.to_owned() }) }
    };
    match whole() {
        Ok(mut store) => {
            store.claim()?;
            Ok((store, None))
        }
        Err(error) if is_damage(&error) && !Store::is_shared(path, 0) => {
            let (mut store, salvage) = begin_anew(path, sinks, 0)?;
            // kept under this process's name, but of calls of one that is no more
            let calls_cut_off = store.end_open_calls(store.owner_id())?;
            Ok((store, Some(Salvage { calls_cut_off, ..salvage })))
        }
        Err(error) => Err(error),
    }
}

/// True when the file itself is wrong, and not the disk or another process in the way.
pub(super) fn is_damage(error: &OutboxError) -> bool {
    match error {
        OutboxError::Damaged { .. } => true,
        OutboxError::Sqlite { source: rusqlite::Error::SqliteFailure(failure, _), .. } => {
            matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                // the file was taken away under us
                || failure.extended_code == rusqlite::ffi::SQLITE_READONLY_DBMOVED
        }
        _ => false,
    }
}

/// Sets the file aside and begins a new one with what can be read of it. `mine` is who this process is in the old one, 0
/// for nobody.
pub(super) fn begin_anew(path: &Path, sinks: &[&str], mine: i64) -> Result<(Store, Salvage), OutboxError> {
    let with = |path: &Path, suffix: &str| {
        let mut name = OsString::from(path);
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = with(path, &format!(".damaged-{}", unix_ms()));
    for part in ["", "-wal", "-shm"] {
        let from = with(path, part);
        match std::fs::rename(&from, with(&aside, part)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(OutboxError::Lock { path: from, source: error }),
            _ => {}
        }
    }
    let mut store = Store::open(path, sinks)?;
    // not the same number again: its lock is held until the new store is there
    store.number_owners_behind(mine)?;
    store.claim()?;
    let kept = keep(&aside, &mut store).unwrap_or_else(|error| {
        tracing::warn!(%error, "nothing more of the damaged event store can be read");
        0
    });
    Ok((store, Salvage { aside, kept, calls_cut_off: 0 }))
}

/// Copies what can be read, in order; returns how many events.
fn keep(aside: &Path, store: &mut Store) -> Result<usize, OutboxError> {
    let sqlite = |source| OutboxError::Sqlite { path: aside.to_owned(), source };
    // read and write: its log has to be applied
    let old = Connection::open_with_flags(aside, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sqlite)?;
    if let Err(error) = store.note_used(&old) {
        tracing::warn!(%error, "one-time tokens of the damaged event store are not kept: those of the last minutes could be used again");
    }
    let (mut kept, mut after, mut skipped) = (0, 0, 0);
    while skipped < SKIPPED_MAX {
        match read(&old, after) {
            Ok(batch) if batch.is_empty() => break,
            Ok(batch) => {
                (after, skipped) = (batch.last().map_or(after, |(id, _)| *id), 0);
                kept += batch.len();
                store.record(batch.iter().map(|(_, event)| event))?;
                settle(&old, &batch, store)?;
            }
            Err(_) => {
                after += 1;
                skipped += 1;
                if let Ok(Some(event)) = one(&old, after) {
                    (skipped, kept) = (0, kept + 1);
                    store.record(std::iter::once(&event))?;
                    settle(&old, &[(after, event)], store)?;
                }
            }
        }
    }
    Ok(kept)
}

fn read(old: &Connection, after: i64) -> rusqlite::Result<Vec<(i64, CallEvent)>> {
    let mut statement = old.prepare_cached("SELECT id, body FROM events WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    statement.query_map([after, BATCH as i64], |row| Ok((row.get(0)?, event_at(row, 1)?)))?.collect()
}

fn one(old: &Connection, id: i64) -> rusqlite::Result<Option<CallEvent>> {
    let mut statement = old.prepare_cached("SELECT body FROM events WHERE id = ?1")?;
    let mut rows = statement.query_map([id], |row| event_at(row, 0))?;
    rows.next().transpose()
}

/// What was delivered is not delivered again, as far as that can be read.
fn settle(old: &Connection, batch: &[(i64, CallEvent)], store: &mut Store) -> Result<(), OutboxError> {
    let states = |id: i64| -> rusqlite::Result<Vec<(String, String, Option<String>)>> {
        let mut statement = old.prepare_cached("SELECT sink, state, reason FROM deliveries WHERE event = ?")?;
        statement.query_map([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
    };
    let settled = batch.iter().flat_map(|(id, event)| states(*id).unwrap_or_default().into_iter().map(move |state| (event, state)));
    let changes: Vec<_> = settled.filter(|(_, (_, state, _))| State::from_text(state) != State::Pending).collect();
    let path = store.path.clone();
    let mut work = || -> rusqlite::Result<()> {
        let transaction = store.connection.transaction()?;
        for (event, (sink, state, reason)) in &changes {
            transaction
                .prepare_cached(
                    "UPDATE deliveries SET state = ?1, reason = ?2 WHERE sink = ?3 AND event = (SELECT id FROM events WHERE session_id = ?4 AND sequence = ?5)",
                )?
                .execute(rusqlite::params![state, reason, sink, event.session_id, event.sequence])?;
        }
        transaction.commit()
    };
    work().map_err(|source| OutboxError::Sqlite { path, source })
}
