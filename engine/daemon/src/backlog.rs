//! Admission by what is owed: a receiver that stays down must not fill the disk. Beyond the limit new calls are refused,
//! said once; calls that run go on and every event of theirs is stored. The count is read from the store and not kept
//! beside it, since `voiced events retry` changes it from another process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use voiced_events::outbox::{Outbox, OutboxError};

/// How often it is counted: a host cannot take enough calls in a second to matter.
const LOOK: Duration = Duration::from_secs(1);

/// Whether too many events are owed to take on more.
pub struct Backlog {
    limit: usize,
    full: AtomicBool,
}

impl Backlog {
    /// `limit` is `events.backlog_max`.
    pub fn new(limit: usize) -> Self {
        Self { limit, full: AtomicBool::new(false) }
    }

    /// True: no new calls now.
    pub fn is_full(&self) -> bool {
        self.full.load(Relaxed)
    }

    /// Counts what is owed now.
    pub async fn count(&self, outbox: &Outbox) -> Result<(), OutboxError> {
        let limit = self.limit;
        let owed = outbox.with(move |store| store.owed(limit)).await??;
        self.note(owed);
        Ok(())
    }

    fn note(&self, owed: usize) {
        // free again only well below the limit, so that it is not said at every event around it
        let full = owed >= self.limit || (self.is_full() && owed > self.limit / 10 * 9);
        let before = self.full.swap(full, Relaxed);
        if full && !before {
            tracing::error!(
                "new calls are refused: {owed} events are not delivered yet (events.backlog_max = {}); see `voiced events list` for the reason",
                self.limit
            );
        } else if before && !full {
            tracing::info!(owed, "new calls are taken again: events are being delivered");
        }
    }
}

/// Counts from time to time until the store stops.
pub async fn watch(backlog: Arc<Backlog>, outbox: Outbox) {
    loop {
        tokio::time::sleep(LOOK).await;
        match backlog.count(&outbox).await {
            Ok(()) => {}
            Err(OutboxError::Stopped) => return,
            Err(error) => tracing::warn!(%error, "what is owed cannot be counted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_at_the_limit_and_free_well_below_it() {
        let backlog = Backlog::new(100);
        let full = [99, 100, 95, 91, 90, 99, 100].map(|owed| {
            backlog.note(owed);
            backlog.is_full()
        });
        assert_eq!(full, [false, true, true, true, false, false, true]);
    }
}
