//! Takes owed events from the outbox to one sink. Calls are delivered side by side, the events of one call one after
//! the other. A failure waits with growing, jittered pauses; after the last try, or a refusal for good, it is parked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::outbox::{Entry, Outbox, OutboxError};
use crate::sinks::{Outcome, Sink};

/// Deliveries under way at once: enough to hide a slow receiver, few enough not to flood it.
const AT_ONCE_MAX: usize = 32;
/// How often the outbox is asked for what is due, while nothing is.
const POLL: Duration = Duration::from_millis(50);
/// The pause is so many times as long as the asking took: with much owed and nothing due, the search must not keep the
/// store from recording. 100 000 events take 150 ms.
const POLL_PER_SEARCH: u32 = 10;
/// But no longer than this.
const POLL_MAX: Duration = Duration::from_secs(5);

/// When to try again, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Before the second try.
    pub first: Duration,
    /// No pause is longer.
    pub longest: Duration,
    /// Then the event is parked.
    pub attempts_max: u32,
}

impl Default for Backoff {
    /// Half a second, doubling up to five minutes; 300 tries are about a day.
    fn default() -> Self {
        Self { first: Duration::from_millis(500), longest: Duration::from_mins(5), attempts_max: 300 }
    }
}

impl Backoff {
    /// The pause after so many failures, jittered by ±50 % so that a receiver that comes back is not hit at once by all.
    fn pause(&self, attempts: u32) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(attempts.min(16)).unwrap_or(u32::MAX));
        doubled.min(self.longest).mul_f64(rand::random_range(0.5..1.5))
    }
}

/// What a delivery task has done so far.
#[derive(Debug, Default)]
pub struct DeliveryCounters {
    /// Taken by the sink.
    pub sent: AtomicU64,
    /// Tries that will be repeated.
    pub failed: AtomicU64,
    /// Given up.
    pub parked: AtomicU64,
}

/// Delivers to one sink until `stop` is true; then finishes what is under way.
pub async fn run(
    outbox: Outbox,
    sink: Arc<Sink>,
    backoff: Backoff,
    counters: Arc<DeliveryCounters>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), OutboxError> {
    while !*stop.borrow() {
        let asked = Instant::now();
        let due = due(&outbox, &sink).await?;
        let pause = (asked.elapsed() * POLL_PER_SEARCH).clamp(POLL, POLL_MAX);
        if round(due, &outbox, &sink, backoff, &counters).await? == 0 {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.changed() => {}
            }
        }
    }
    // what calls said while ending is still tried once
    while round(due(&outbox, &sink).await?, &outbox, &sink, backoff, &counters).await? > 0 {}
    Ok(())
}

async fn due(outbox: &Outbox, sink: &Sink) -> Result<Vec<Entry>, OutboxError> {
    let name = sink.name();
    outbox.with(move |store| store.due(name, unix_ms(), AT_ONCE_MAX)).await?
}

/// Tries each of these once; returns how many were taken.
async fn round(due: Vec<Entry>, outbox: &Outbox, sink: &Arc<Sink>, backoff: Backoff, counters: &DeliveryCounters) -> Result<usize, OutboxError> {
    let name = sink.name();
    let mut tries = JoinSet::new();
    for entry in due {
        let sink = Arc::clone(sink);
        tries.spawn(async move {
            let outcome = sink.deliver(&entry.event).await;
            (entry, outcome)
        });
    }
    let mut sent = 0;
    while let Some(tried) = tries.join_next().await {
        let Ok((entry, outcome)) = tried else { continue }; // a panic was printed; the event stays owed
        sent += usize::from(outcome == Outcome::Sent);
        settle(outbox, name, &entry, outcome, backoff, counters).await?;
    }
    Ok(sent)
}

async fn settle(
    outbox: &Outbox,
    sink: &'static str,
    entry: &Entry,
    outcome: Outcome,
    backoff: Backoff,
    counters: &DeliveryCounters,
) -> Result<(), OutboxError> {
    let id = entry.id;
    let attempts = entry.attempts + 1;
    match outcome {
        Outcome::Sent => {
            counters.sent.fetch_add(1, Relaxed);
            outbox.with(move |store| store.sent(id, sink)).await?
        }
        Outcome::Later(reason) if attempts < backoff.attempts_max => {
            counters.failed.fetch_add(1, Relaxed);
            let due = unix_ms() + backoff.pause(entry.attempts).as_millis() as u64;
            tracing::warn!(sink, event = id, attempts, reason, "event not delivered yet");
            outbox.with(move |store| store.again(id, sink, due, &reason)).await?
        }
        Outcome::Later(reason) | Outcome::Refused(reason) => {
            counters.parked.fetch_add(1, Relaxed);
            tracing::error!(sink, event = id, attempts, reason, "event parked: see `voiced events list`, mend the cause, then `voiced events retry`");
            outbox.with(move |store| store.park(id, sink, &reason)).await?
        }
    }
}

/// Wall clock, ms since the Unix epoch.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
