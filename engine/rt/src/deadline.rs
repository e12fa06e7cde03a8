//! The 10 ms beat: sleeps to absolute deadlines, so that a late tick does not make the next one late.

use std::time::{Duration, Instant};

use voiced_core::time::{TICK_MS, Tick};

/// A thread further behind than this drops the missed ticks instead of running them all at once: callers then hear one
/// gap, not a slow recovery.
const BEHIND_MAX_TICKS: u64 = 20;

/// The beat of one audio thread.
pub(crate) struct Beat {
    start: Instant,
    next: u64,
}

impl Beat {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), next: 0 }
    }

    /// Sleeps for so long, if the next tick is not due before; false, at once, when it is.
    pub(crate) fn rest(&self, rest: Duration) -> bool {
        let has_time = Instant::now() + rest < self.due();
        if has_time {
            std::thread::sleep(rest);
        }
        has_time
    }

    /// Sleeps until the next tick is due; returns it and how many were dropped before it.
    pub(crate) fn wait(&mut self) -> (Tick, u64) {
        let due = self.due();
        let now = Instant::now();
        if due > now {
            std::thread::sleep(due - now);
        }
        let behind = now.saturating_duration_since(due).as_millis() as u64 / TICK_MS;
        let skipped = if behind > BEHIND_MAX_TICKS { behind } else { 0 };
        let tick = Tick(self.next + skipped);
        self.next = tick.0 + 1;
        (tick, skipped)
    }

    /// Time since the current tick was due.
    pub(crate) fn since_due(&self) -> Duration {
        self.due_of(self.next.saturating_sub(1)).elapsed()
    }

    fn due(&self) -> Instant {
        self.due_of(self.next)
    }

    fn due_of(&self, tick: u64) -> Instant {
        self.start + Duration::from_millis(tick * TICK_MS)
    }
}
