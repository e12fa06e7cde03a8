//! What an operator asks of the store: what is owed and why, and to owe it again.

use std::collections::BTreeMap;

use rusqlite::params;

use super::{Entry, OutboxError, Store};

impl Store {
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

    /// Owes parked deliveries again: one event's, or all. Returns how many.
    pub fn retry(&mut self, id: Option<i64>) -> Result<usize, OutboxError> {
        self.connection
            .execute(
                "UPDATE deliveries SET state = 'pending', attempts = 0, due_unix_ms = 0 WHERE state = 'parked' AND (?1 IS NULL OR event = ?1)",
                params![id],
            )
            .map_err(|source| self.sqlite(source))
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

    /// Pending deliveries to the sinks that it was opened with, to each counted no further than `limit`. What waits for
    /// another one grows no more, and may wait for ever.
    pub fn owed(&self, limit: usize) -> Result<usize, OutboxError> {
        let work = || -> rusqlite::Result<i64> {
            let mut statement =
                self.connection.prepare_cached("SELECT COUNT(*) FROM (SELECT 1 FROM deliveries WHERE sink = ? AND state = 'pending' LIMIT ?)")?;
            self.sinks.iter().map(|sink| statement.query_row(params![sink, limit as i64], |row| row.get::<_, i64>(0))).sum()
        };
        work().map(|owed| owed as usize).map_err(|source| self.sqlite(source))
    }
}
