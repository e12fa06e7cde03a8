//! Takes owed events from the outbox to one sink. Calls are delivered side by side, the events of one call one after
//! the other; each ends when it ends, and no call waits for another's. A failure waits with growing, jittered pauses;
//! after the last try, or a refusal for good, it is parked. Tries go out at a limited rate, so that a receiver that comes
//! back after an hour is not buried under what it missed. Of all that is owed only the next few are in memory.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::outbox::{Entry, Outbox, OutboxError, Store};
use crate::sinks::{Outcome, Sink};

mod pace;

pub use pace::{Backoff, Pace};

/// Deliveries under way at once: enough to hide a slow receiver, few enough not to flood it.
const AT_ONCE_MAX: usize = 32;
/// Entries taken by one search: those under way are among them.
const SEARCH_MAX: usize = 2 * AT_ONCE_MAX;
/// How often the outbox is asked for what is due, while nothing is.
const POLL: Duration = Duration::from_millis(50);
/// The pause is so many times as long as the asking took: with much owed and nothing due, the search must not keep the
/// store from recording. 100 000 events take 150 ms.
const POLL_PER_SEARCH: u32 = 10;
/// But no longer than this.
const POLL_MAX: Duration = Duration::from_secs(5);
/// How soon a store that failed is asked again.
const STORE_AGAIN: Duration = Duration::from_secs(1);
/// So many failures with no success between them are a receiver that is down, and not events that it does not like.
const DOWN_AFTER: u32 = 8;

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

/// Delivers to one sink until `stop` is true; then finishes what is under way and tries once what calls said while ending.
pub async fn run(
    outbox: Outbox,
    sink: Arc<Sink>,
    backoff: Backoff,
    pace: Pace,
    counters: Arc<DeliveryCounters>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), OutboxError> {
    let mut delivery = Delivery {
        outbox,
        sink,
        backoff,
        counters,
        tries: JoinSet::new(),
        under_way: HashSet::new(),
        ready: VecDeque::new(),
        unsettled: VecDeque::new(),
        pace,
        search_at: Instant::now(),
        failed_in_a_row: 0,
    };
    loop {
        let stopping = *stop.borrow();
        if let Err(error) = delivery.go_on(stopping).await {
            match error {
                OutboxError::Stopped => return Err(error),
                _ if stopping => return Err(error),
                // said by the outbox's own thread, which sees it too
                _ => tracing::debug!(%error, "deliveries wait for the store"),
            }
            delivery.search_at = Instant::now() + STORE_AGAIN;
        }
        if stopping && delivery.is_idle() {
            return Ok(());
        }
        let next = delivery.next_at();
        tokio::select! {
            Some(tried) = delivery.tries.join_next() => match tried {
                Ok((entry, outcome)) => delivery.take(entry, outcome),
                // a panic was printed; its event stays owed, and is found again by a search with nothing held back
                Err(_) => delivery.under_way.clear(),
            },
            () = tokio::time::sleep_until(next.into()) => {}
            _ = stop.changed(), if !stopping => delivery.search_at = Instant::now(),
        }
    }
}

struct Delivery {
    outbox: Outbox,
    sink: Arc<Sink>,
    backoff: Backoff,
    counters: Arc<DeliveryCounters>,
    tries: JoinSet<(Entry, Outcome)>,
    /// Sessions with a try under way or not settled: their next event waits.
    under_way: HashSet<String>,
    /// Found due, not begun; one of each session at most.
    ready: VecDeque<Entry>,
    /// Tried, and not yet written down; a few more than are tried at once.
    unsettled: VecDeque<(Entry, Outcome)>,
    pace: Pace,
    search_at: Instant,
    failed_in_a_row: u32,
}

impl Delivery {
    /// Writes down what was tried, looks for what is due, begins what may be begun.
    async fn go_on(&mut self, stopping: bool) -> Result<(), OutboxError> {
        while let Some((entry, outcome)) = self.unsettled.pop_front() {
            if let Err(error) = self.settle(entry.clone(), outcome.clone()).await {
                self.unsettled.push_front((entry, outcome)); // it was delivered: it must not be tried again for want of a note
                return Err(error);
            }
            self.under_way.remove(&entry.event.session_id);
        }
        if self.ready.is_empty() && self.tries.len() < AT_ONCE_MAX && (stopping || Instant::now() >= self.search_at) {
            self.search().await?;
        }
        while self.tries.len() < AT_ONCE_MAX && !self.ready.is_empty() && self.pace.take(Instant::now()) {
            let Some(entry) = self.ready.pop_front() else { break };
            self.under_way.insert(entry.event.session_id.clone());
            let sink = Arc::clone(&self.sink);
            self.tries.spawn(async move {
                let outcome = sink.deliver(&entry.event).await;
                (entry, outcome)
            });
        }
        Ok(())
    }

    async fn search(&mut self) -> Result<(), OutboxError> {
        let (name, pause_max_ms) = (self.sink.name(), self.backoff.pause_max().as_millis() as u64);
        let (due, took) = self
            .outbox
            .with(move |store| {
                let asked = Instant::now();
                (store.due(name, unix_ms(), pause_max_ms, SEARCH_MAX), asked.elapsed())
            })
            .await?;
        let due = due?;
        self.ready.extend(due.into_iter().filter(|entry| !self.under_way.contains(&entry.event.session_id)));
        self.search_at = Instant::now() + (took * POLL_PER_SEARCH).clamp(POLL, POLL_MAX);
        Ok(())
    }

    fn take(&mut self, entry: Entry, outcome: Outcome) {
        if outcome == Outcome::Sent {
            // the call's next event is due; a search that takes long is not repeated for each
            self.search_at = self.search_at.min(Instant::now() + POLL);
        }
        self.unsettled.push_back((entry, outcome));
    }

    async fn settle(&mut self, entry: Entry, outcome: Outcome) -> Result<(), OutboxError> {
        let (sink, attempts) = (self.sink.name(), entry.attempts + 1);
        match outcome {
            Outcome::Sent => {
                let was_down = self.failed_in_a_row >= DOWN_AFTER;
                self.outbox.with(move |store| store.sent(&entry).and_then(|()| if was_down { store.hasten(sink) } else { Ok(0) })).await??;
                self.failed_in_a_row = 0;
                self.counters.sent.fetch_add(1, Relaxed);
            }
            Outcome::Later(reason) if attempts < self.backoff.attempts_max => {
                tracing::warn!(sink, event = entry.id, attempts, reason, "event not delivered yet");
                let due = unix_ms() + self.backoff.pause(entry.attempts).as_millis() as u64;
                self.outbox.with(move |store| store.again(&entry, due, &reason)).await??;
                self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
                self.counters.failed.fetch_add(1, Relaxed);
            }
            Outcome::Later(reason) | Outcome::Refused(reason) => {
                tracing::error!(sink, event = entry.id, attempts, reason, "event parked: see `voiced events list`, mend the cause, then `voiced events retry`");
                self.outbox.with(move |store: &mut Store| store.park(&entry, &reason)).await??;
                self.counters.parked.fetch_add(1, Relaxed);
            }
        }
        Ok(())
    }

    /// When there may be something to do, if no try ends before.
    fn next_at(&self) -> Instant {
        if self.tries.len() >= AT_ONCE_MAX {
            Instant::now() + POLL_MAX
        } else if !self.unsettled.is_empty() || self.ready.is_empty() {
            self.search_at
        } else {
            self.pace.next_at()
        }
    }

    fn is_idle(&self) -> bool {
        self.tries.is_empty() && self.ready.is_empty() && self.unsettled.is_empty()
    }
}

/// Wall clock, ms since the Unix epoch.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
