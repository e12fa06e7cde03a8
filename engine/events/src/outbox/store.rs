//! The SQLite file behind the outbox. `events` holds what happened, `deliveries` what is still owed to each sink, `owners`
//! the processes that write here (see [`super::owners`]), `used_tokens` what must not be taken twice by all of them together.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use voiced_core::event::{CallEvent, CallEventKind};

use super::OutboxError;
use super::owners::Owner;

/// Delivered events are kept this long for `voiced events show`, ms: a week.
const KEPT_MS: u64 = 7 * 24 * 3_600_000;
/// Events looked at by one step of pruning: some milliseconds, in which nothing is recorded.
const PRUNED_AT_ONCE: i64 = 500;
/// How long another connection's lock is waited for. No longer: meanwhile nothing else is served, and what could not be
/// written waits in memory.
const BUSY: Duration = Duration::from_millis(500);
/// Pages kept in memory by each connection, in KB: what waits is written once and read once. SQLite's own limit is 2 MB, which
/// fills over a thousand calls and looks like a leak.
const CACHE_KB: i32 = 256;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    at_unix_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    owner INTEGER NOT NULL DEFAULT 0,
    UNIQUE (session_id, sequence)
);
CREATE TABLE IF NOT EXISTS deliveries (
    event INTEGER NOT NULL REFERENCES events (id) ON DELETE CASCADE,
    sink TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'sent', 'parked')),
    attempts INTEGER NOT NULL DEFAULT 0,
    due_unix_ms INTEGER NOT NULL DEFAULT 0,
    reason TEXT,
    PRIMARY KEY (event, sink)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deliveries_owed ON deliveries (sink, event) WHERE state = 'pending';
CREATE TABLE IF NOT EXISTS owners (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    pid INTEGER NOT NULL,
    since_unix_ms INTEGER NOT NULL,
    draining INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS used_tokens (
    token TEXT PRIMARY KEY,
    expires_unix_s INTEGER NOT NULL
) WITHOUT ROWID;
";

/// What a delivery has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Still owed.
    Pending,
    /// Taken by the sink.
    Sent,
    /// Refused for good, see the reason.
    Parked,
}

impl State {
    pub(super) fn from_text(text: &str) -> Self {
        match text {
            "sent" => Self::Sent,
            "parked" => Self::Parked,
            _ => Self::Pending,
        }
    }
}

/// One event's delivery to one sink.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The event's number in the store.
    pub id: i64,
    /// The event.
    pub event: CallEvent,
    /// The sink.
    pub sink: String,
    /// What it has come to.
    pub state: State,
    /// Tries so far.
    pub attempts: u32,
    /// Why the last try failed.
    pub reason: Option<String>,
}

/// The open file.
pub struct Store {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) sinks: Vec<String>,
    /// This process; nobody for who only looks.
    pub(super) owner: Option<Owner>,
    /// What the disk has not taken yet, oldest first.
    pub(super) unwritten: VecDeque<CallEvent>,
}

impl Store {
    /// Opens or makes the file. `sinks` are owed every event recorded from now on; who records must [`Store::claim`] first,
    /// else nobody delivers.
    pub fn open(path: &Path, sinks: &[&str]) -> Result<Self, OutboxError> {
        let connection = connect(path).map_err(|source| OutboxError::Sqlite { path: path.to_owned(), source })?;
        let sinks = sinks.iter().map(ToString::to_string).collect();
        Ok(Self { connection, path: path.to_owned(), sinks, owner: None, unwritten: VecDeque::new() })
    }

    /// An empty store in memory, in place of a file that cannot be opened now.
    pub(super) fn stand_in(path: &Path, sinks: &[&str]) -> Result<Self, OutboxError> {
        Self::open(Path::new(":memory:"), sinks).map(|store| Self { path: path.to_owned(), ..store })
    }

    /// Commits events, all or none. One that is there already is left as it is; another one of the same number gets the
    /// call's next: it happened later, whatever its number was counted from.
    pub fn record<'a>(&mut self, events: impl Iterator<Item = &'a CallEvent>) -> Result<(), OutboxError> {
        let owner = self.owner_id();
        let (path, sinks) = (self.path.clone(), &self.sinks);
        let connection = &mut self.connection;
        let work = || -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            for event in events {
                if let Some(id) = insert(&transaction, event, owner)? {
                    for sink in sinks {
                        transaction.prepare_cached("INSERT INTO deliveries (event, sink, state) VALUES (?, ?, 'pending')")?.execute(params![id, sink])?;
                    }
                }
            }
            transaction.commit()
        };
        work().map_err(|source| OutboxError::Sqlite { path, source })
    }

    /// What this process owes to a sink and is due: the oldest owed event of each call and no later one, so that order is
    /// kept. A try that waits for longer than any pause was put off by another clock, and is due too.
    pub fn due(&self, sink: &str, now_unix_ms: u64, pause_max_ms: u64, limit: usize) -> Result<Vec<Entry>, OutboxError> {
        self.entries(
            "SELECT e.id, e.body, d.sink, d.state, d.attempts, d.reason FROM deliveries d JOIN events e ON e.id = d.event
             WHERE d.sink = ?1 AND d.state = 'pending' AND (d.due_unix_ms <= ?2 OR d.due_unix_ms > ?3) AND e.owner = ?5 AND NOT EXISTS (
                 SELECT 1 FROM events f JOIN deliveries g ON g.event = f.id AND g.sink = d.sink
                 WHERE f.session_id = e.session_id AND f.sequence < e.sequence AND g.state = 'pending')
             ORDER BY d.event LIMIT ?4", // by the index, so that the search ends with the last one taken
            params![sink, now_unix_ms as i64, now_unix_ms.saturating_add(pause_max_ms) as i64, limit as i64, self.owner_id()],
        )
    }

    /// The sink took it.
    pub fn sent(&mut self, entry: &Entry) -> Result<(), OutboxError> {
        self.settle(entry, "state = 'sent', reason = ?4, due_unix_ms = ?5", 0, None)
    }

    /// The try failed; the next is due then.
    pub fn again(&mut self, entry: &Entry, due_unix_ms: u64, reason: &str) -> Result<(), OutboxError> {
        self.settle(entry, "reason = ?4, due_unix_ms = ?5", due_unix_ms, Some(reason))
    }

    /// The sink will never take it.
    pub fn park(&mut self, entry: &Entry, reason: &str) -> Result<(), OutboxError> {
        self.settle(entry, "state = 'parked', reason = ?4, due_unix_ms = ?5", 0, Some(reason))
    }

    /// By the event's name and not by its number here: the store may have been begun anew meanwhile.
    fn settle(&mut self, entry: &Entry, set: &str, due_unix_ms: u64, reason: Option<&str>) -> Result<(), OutboxError> {
        let sql = format!(
            "UPDATE deliveries SET attempts = attempts + 1, {set}
             WHERE sink = ?1 AND event = (SELECT id FROM events WHERE session_id = ?2 AND sequence = ?3)"
        );
        let values = params![entry.sink, entry.event.session_id, entry.event.sequence, reason, due_unix_ms as i64];
        self.connection.prepare_cached(&sql).and_then(|mut statement| statement.execute(values)).map(|_| ()).map_err(|source| self.sqlite(source))
    }

    /// Every try that was put off is due at once: the sink takes events again.
    pub fn hasten(&mut self, sink: &str) -> Result<usize, OutboxError> {
        self.connection
            .execute("UPDATE deliveries SET due_unix_ms = 0 WHERE sink = ? AND state = 'pending' AND due_unix_ms > 0", params![sink])
            .map_err(|source| self.sqlite(source))
    }

    /// Forgets, of the next few events after this one, what was delivered everywhere and is old. Returns the last that was
    /// looked at; `None` behind the last of all.
    pub fn prune(&mut self, after: i64, now_unix_ms: u64) -> Result<Option<i64>, OutboxError> {
        let work = || -> rusqlite::Result<_> {
            let mut window = self.connection.prepare_cached("SELECT MAX(id) FROM (SELECT id FROM events WHERE id > ? ORDER BY id LIMIT ?)")?;
            let Some(last) = window.query_row(params![after, PRUNED_AT_ONCE], |row| row.get::<_, Option<i64>>(0))? else { return Ok(None) };
            self.connection
                .prepare_cached(
                    "DELETE FROM events WHERE id > ?1 AND id <= ?2 AND at_unix_ms < ?3
                     AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event = events.id AND d.state <> 'sent')
                     AND EXISTS (SELECT 1 FROM events f WHERE f.session_id = events.session_id AND f.kind = 'call_ended' AND f.at_unix_ms < ?3)",
                )?
                .execute(params![after, last, now_unix_ms.saturating_sub(KEPT_MS) as i64])?;
            Ok(Some(last))
        };
        work().map_err(|source| self.sqlite(source))
    }

    /// The next sequence number of a session, 0 for a new one. What waits for the disk counts.
    pub fn next_sequence(&self, session: &str) -> Result<u32, OutboxError> {
        let waiting = self.unwritten.iter().filter(|event| event.session_id == session).map(|event| event.sequence + 1).max();
        let written = self
            .connection
            .query_row("SELECT MAX(sequence) + 1 FROM events WHERE session_id = ?", [session], |row| row.get::<_, Option<u32>>(0))
            .optional()
            .map(Option::flatten)
            .map_err(|source| self.sqlite(source));
        match (waiting, written) {
            (Some(waiting), Ok(written)) => Ok(waiting.max(written.unwrap_or(0))),
            (Some(waiting), Err(_)) => Ok(waiting),
            (None, written) => written.map(Option::unwrap_or_default),
        }
    }

    /// Notes a one-time token until it expires; false when it was noted before, by whichever process.
    pub fn use_once(&mut self, token: &str, expires_unix_s: u64, now_unix_s: u64) -> Result<bool, OutboxError> {
        let work = || -> rusqlite::Result<bool> {
            self.connection.prepare_cached("DELETE FROM used_tokens WHERE expires_unix_s < ?")?.execute([now_unix_s as i64])?;
            let mut note = self.connection.prepare_cached("INSERT OR IGNORE INTO used_tokens (token, expires_unix_s) VALUES (?, ?)")?;
            Ok(note.execute(params![token, expires_unix_s as i64])? == 1)
        };
        work().map_err(|source| self.sqlite(source))
    }

    /// Notes the one-time tokens of a store in whose place this one comes.
    pub(super) fn note_used(&mut self, before: &Connection) -> rusqlite::Result<()> {
        let mut used = before.prepare("SELECT token, expires_unix_s FROM used_tokens")?;
        let rows = used.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
        let transaction = self.connection.transaction()?;
        // of a damaged store, those that come before the damage
        for (token, expires_unix_s) in rows.map_while(Result::ok) {
            transaction.execute("INSERT OR IGNORE INTO used_tokens (token, expires_unix_s) VALUES (?, ?)", params![token, expires_unix_s])?;
        }
        transaction.commit()
    }

    pub(super) fn owner_id(&self) -> i64 {
        self.owner.as_ref().map_or(0, Owner::id)
    }

    pub(super) fn events_of(&self, session: &str) -> Result<Vec<CallEvent>, OutboxError> {
        let work = || -> rusqlite::Result<_> {
            let mut statement = self.connection.prepare_cached("SELECT body FROM events WHERE session_id = ? ORDER BY sequence")?;
            statement.query_map([session], |row| event_at(row, 0))?.collect()
        };
        work().map_err(|source| self.sqlite(source))
    }

    pub(super) fn entries(&self, sql: &str, values: impl rusqlite::Params) -> Result<Vec<Entry>, OutboxError> {
        let work = || -> rusqlite::Result<_> {
            let mut statement = self.connection.prepare_cached(sql)?;
            let rows = statement.query_map(values, |row| {
                Ok(Entry {
                    id: row.get(0)?,
                    event: event_at(row, 1)?,
                    sink: row.get(2)?,
                    state: State::from_text(&row.get::<_, String>(3)?),
                    attempts: row.get(4)?,
                    reason: row.get(5)?,
                })
            })?;
            rows.collect()
        };
        work().map_err(|source| self.sqlite(source))
    }

    pub(super) fn sqlite(&self, source: rusqlite::Error) -> OutboxError {
        OutboxError::Sqlite { path: self.path.clone(), source }
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: a committed event survives the loss of power, not only of the process
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", -CACHE_KB)?;
    connection.execute_batch(SCHEMA)?;
    // the first stores knew no owners: what they hold is of a process that is no more
    if !connection.prepare("SELECT 1 FROM pragma_table_info('events') WHERE name = 'owner'")?.exists([])? {
        connection.execute_batch(
            "BEGIN IMMEDIATE; ALTER TABLE events ADD COLUMN owner INTEGER NOT NULL DEFAULT 0;
             INSERT INTO owners (pid, since_unix_ms) VALUES (0, 0); UPDATE events SET owner = last_insert_rowid(); COMMIT",
        )?;
    }
    Ok(connection)
}

/// The new event's number; `None` when it is there already.
fn insert(transaction: &Transaction<'_>, event: &CallEvent, owner: i64) -> rusqlite::Result<Option<i64>> {
    let text = |event: &CallEvent| serde_json::to_string(event).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()));
    let put = |event: &CallEvent, body: &str| {
        transaction
            .prepare_cached("INSERT OR IGNORE INTO events (session_id, sequence, at_unix_ms, kind, body, owner) VALUES (?, ?, ?, ?, ?, ?)")?
            .execute(params![event.session_id, event.sequence, event.at_unix_ms as i64, kind_name(&event.kind), body, owner])
    };
    let body = text(event)?;
    if put(event, &body)? == 1 {
        return Ok(Some(transaction.last_insert_rowid()));
    }
    let there: String = transaction
        .prepare_cached("SELECT body FROM events WHERE session_id = ? AND sequence = ?")?
        .query_row(params![event.session_id, event.sequence], |row| row.get(0))?;
    if there == body {
        return Ok(None);
    }
    let sequence = transaction.prepare_cached("SELECT MAX(sequence) + 1 FROM events WHERE session_id = ?")?.query_row([&event.session_id], |row| row.get(0))?;
    let later = CallEvent { sequence, ..event.clone() };
    put(&later, &text(&later)?)?;
    Ok(Some(transaction.last_insert_rowid()))
}

pub(super) fn event_at(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<CallEvent> {
    let body: String = row.get(column)?;
    serde_json::from_str(&body).map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into()))
}

fn kind_name(kind: &CallEventKind) -> &'static str {
    match kind {
        CallEventKind::CallInitiated { .. } => "call_initiated",
        CallEventKind::Utterance { .. } => "utterance",
        CallEventKind::CallEnded { .. } => "call_ended",
    }
}
