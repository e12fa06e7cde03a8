//! The SQLite file behind the outbox. `events` holds what happened, `deliveries` what is still owed to each sink.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};
use voiced_core::event::{CallEvent, CallEventKind};

use super::OutboxError;

/// Delivered events are kept this long for `voiced events show`, ms: a week.
const KEPT_MS: u64 = 7 * 24 * 3_600_000;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    at_unix_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
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
    fn from_text(text: &str) -> Self {
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
    connection: Connection,
    path: PathBuf,
    sinks: Vec<String>,
}

impl Store {
    /// Opens or makes the file. `sinks` are owed every event recorded from now on.
    pub fn open(path: &Path, sinks: &[&str]) -> Result<Self, OutboxError> {
        let sqlite = |source| OutboxError::Sqlite { path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(sqlite)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(sqlite)?;
        // FULL: a committed event survives the loss of power, not only of the process
        connection.pragma_update(None, "synchronous", "FULL").map_err(sqlite)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(sqlite)?;
        connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(sqlite)?;
        connection.execute_batch(SCHEMA).map_err(sqlite)?;
        Ok(Self { connection, path: path.to_owned(), sinks: sinks.iter().map(ToString::to_string).collect() })
    }

    /// Commits events, all or none. One that is there already (same call and sequence) is left as it is.
    pub fn record<'a>(&mut self, events: impl Iterator<Item = &'a CallEvent>) -> Result<(), OutboxError> {
        let (path, sinks) = (self.path.clone(), &self.sinks);
        let connection = &mut self.connection;
        let work = || -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            for event in events {
                let body = serde_json::to_string(event).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                let new = transaction
                    .prepare_cached("INSERT OR IGNORE INTO events (session_id, sequence, at_unix_ms, kind, body) VALUES (?, ?, ?, ?, ?)")?
                    .execute(params![event.session_id, event.sequence, event.at_unix_ms as i64, kind_name(&event.kind), body])?;
                if new == 0 {
                    continue;
                }
                let id = transaction.last_insert_rowid();
                for sink in sinks {
                    transaction.prepare_cached("INSERT INTO deliveries (event, sink, state) VALUES (?, ?, 'pending')")?.execute(params![id, sink])?;
                }
            }
            transaction.commit()
        };
        work().map_err(|source| OutboxError::Sqlite { path, source })
    }

    /// What is owed to a sink and due: the oldest owed event of each call and no later one, so that order is kept.
    pub fn due(&self, sink: &str, now_unix_ms: u64, limit: usize) -> Result<Vec<Entry>, OutboxError> {
        self.entries(
            "SELECT e.id, e.body, d.sink, d.state, d.attempts, d.reason FROM deliveries d JOIN events e ON e.id = d.event
             WHERE d.sink = ?1 AND d.state = 'pending' AND d.due_unix_ms <= ?2 AND NOT EXISTS (
                 SELECT 1 FROM events f JOIN deliveries g ON g.event = f.id AND g.sink = d.sink
                 WHERE f.session_id = e.session_id AND f.sequence < e.sequence AND g.state = 'pending')
             ORDER BY d.event LIMIT ?3", // by the index, so that the search ends with the last one taken
            params![sink, now_unix_ms as i64, limit as i64],
        )
    }

    /// The sink took it.
    pub fn sent(&mut self, id: i64, sink: &str) -> Result<(), OutboxError> {
        self.change("UPDATE deliveries SET state = 'sent', attempts = attempts + 1, reason = NULL WHERE event = ? AND sink = ?", params![id, sink])
    }

    /// The try failed; the next is due then.
    pub fn again(&mut self, id: i64, sink: &str, due_unix_ms: u64, reason: &str) -> Result<(), OutboxError> {
        self.change(
            "UPDATE deliveries SET attempts = attempts + 1, due_unix_ms = ?3, reason = ?4 WHERE event = ?1 AND sink = ?2",
            params![id, sink, due_unix_ms as i64, reason],
        )
    }

    /// The sink will never take it.
    pub fn park(&mut self, id: i64, sink: &str, reason: &str) -> Result<(), OutboxError> {
        self.change("UPDATE deliveries SET state = 'parked', attempts = attempts + 1, reason = ?3 WHERE event = ?1 AND sink = ?2", params![id, sink, reason])
    }

    /// Owes parked deliveries again: one event's, or all. Returns how many.
    pub fn retry(&mut self, id: Option<i64>) -> Result<usize, OutboxError> {
        self.connection
            .execute(
                "UPDATE deliveries SET state = 'pending', attempts = 0, due_unix_ms = 0 WHERE state = 'parked' AND (?1 IS NULL OR event = ?1)",
                params![id],
            )
            .map_err(|source| self.sqlite(source))
    }

    /// Deliveries, newest last; all, or those that are not sent.
    pub fn list(&self, unsent_only: bool, limit: usize) -> Result<Vec<Entry>, OutboxError> {
        let mut entries = self.entries(
            "SELECT e.id, e.body, d.sink, d.state, d.attempts, d.reason FROM deliveries d JOIN events e ON e.id = d.event
             WHERE ?1 = 0 OR d.state <> 'sent' ORDER BY e.id DESC, d.sink LIMIT ?2",
            params![unsent_only, limit as i64],
        )?;
        entries.reverse();
        Ok(entries)
    }

    /// All deliveries of one event.
    pub fn show(&self, id: i64) -> Result<Vec<Entry>, OutboxError> {
        self.entries(
            "SELECT e.id, e.body, d.sink, d.state, d.attempts, d.reason FROM deliveries d JOIN events e ON e.id = d.event WHERE e.id = ? ORDER BY d.sink",
            params![id],
        )
    }

    /// Pending and parked deliveries of each sink.
    pub fn backlog(&self) -> Result<BTreeMap<String, (u64, u64)>, OutboxError> {
        let work = || -> rusqlite::Result<_> {
            let mut statement = self
                .connection
                .prepare_cached("SELECT sink, SUM(state = 'pending'), SUM(state = 'parked') FROM deliveries WHERE state <> 'sent' GROUP BY sink")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)? as u64))))?;
            rows.collect()
        };
        work().map_err(|source| self.sqlite(source))
    }

    /// Pending deliveries to all sinks together, counted no further than `limit`.
    pub fn owed(&self, limit: usize) -> Result<usize, OutboxError> {
        self.connection
            .prepare_cached("SELECT COUNT(*) FROM (SELECT 1 FROM deliveries WHERE state = 'pending' LIMIT ?)")
            .and_then(|mut statement| statement.query_row([limit as i64], |row| row.get::<_, i64>(0)))
            .map(|owed| owed as usize)
            .map_err(|source| self.sqlite(source))
    }

    /// Reports as ended each call that was left open by a crash: its last event is not `CallEnded`. Returns how many.
    pub fn end_orphans(&mut self) -> Result<usize, OutboxError> {
        let open: Vec<String> = {
            let work = || -> rusqlite::Result<_> {
                let mut statement = self.connection.prepare(
                    "SELECT session_id FROM events e WHERE kind <> 'call_ended'
                     AND sequence = (SELECT MAX(sequence) FROM events f WHERE f.session_id = e.session_id) ORDER BY id",
                )?;
                statement.query_map([], |row| row.get(0))?.collect()
            };
            work().map_err(|source| self.sqlite(source))?
        };
        let mut ends = Vec::new();
        for session in &open {
            ends.extend(self.orphan_end(session)?);
        }
        self.record(ends.iter())?;
        Ok(ends.len())
    }

    /// Forgets what was delivered everywhere and is old.
    pub fn prune(&mut self, now_unix_ms: u64) -> Result<usize, OutboxError> {
        self.connection
            .execute(
                "DELETE FROM events WHERE at_unix_ms < ?1
                 AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event = events.id AND d.state <> 'sent')
                 AND EXISTS (SELECT 1 FROM events f WHERE f.session_id = events.session_id AND f.kind = 'call_ended' AND f.at_unix_ms < ?1)",
                params![now_unix_ms.saturating_sub(KEPT_MS) as i64],
            )
            .map_err(|source| self.sqlite(source))
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

    fn events_of(&self, session: &str) -> Result<Vec<CallEvent>, OutboxError> {
        let work = || -> rusqlite::Result<_> {
            let mut statement = self.connection.prepare_cached("SELECT body FROM events WHERE session_id = ? ORDER BY sequence")?;
            statement.query_map([session], |row| event_at(row, 0))?.collect()
        };
        work().map_err(|source| self.sqlite(source))
    }

    fn entries(&self, sql: &str, values: impl rusqlite::Params) -> Result<Vec<Entry>, OutboxError> {
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

    fn change(&mut self, sql: &str, values: impl rusqlite::Params) -> Result<(), OutboxError> {
        self.connection.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map(|_| ()).map_err(|source| self.sqlite(source))
    }

    fn sqlite(&self, source: rusqlite::Error) -> OutboxError {
        OutboxError::Sqlite { path: self.path.clone(), source }
    }

    /// The next sequence number of a session, 0 for a new one.
    pub fn next_sequence(&self, session: &str) -> Result<u32, OutboxError> {
        self.connection
            .query_row("SELECT MAX(sequence) + 1 FROM events WHERE session_id = ?", [session], |row| row.get::<_, Option<u32>>(0))
            .optional()
            .map(|found| found.flatten().unwrap_or(0))
            .map_err(|source| self.sqlite(source))
    }
}

fn event_at(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<CallEvent> {
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
