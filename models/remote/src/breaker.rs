//! A circuit breaker: a provider that keeps failing is left alone for a while by all calls, then tried by one of them.
//!
//! ```text
//! closed ──failures in a row──▶ open ──pause over──▶ half open (one probe) ──worked──▶ closed
//!                                ▲                        └──failed: twice the pause──┐
//!                                └────────────────────────────────────────────────────┘
//! ```

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row, of whatever calls, that open a breaker: one may be chance.
const FAILURES_MAX: u32 = 2;
/// How long a provider is left alone at first; twice as long after each probe that fails.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
/// Longest pause: a provider that is well again is used again within a minute.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// What is known of one provider's health, shared by all calls.
#[derive(Debug)]
pub struct Breaker {
    name: String,
    state: Mutex<State>,
    failures: AtomicU64,
    opened: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    HalfOpen { pause: Duration },
}

/// What `/metrics` tells of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerReading {
    /// 0 closed, 1 half open, 2 open.
    pub state: u64,
    /// Failures so far.
    pub failures: u64,
    /// Times that it opened.
    pub opened: u64,
}

/// Leave to use the provider once. What came of it is to be said; dropped without a word, it counts for nothing.
#[derive(Debug)]
pub struct Permit {
    breaker: Arc<Breaker>,
    is_probe: bool,
}

impl Breaker {
    /// A closed one of the provider with this name.
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), state: Mutex::new(State::Closed { failures: 0 }), failures: AtomicU64::new(0), opened: AtomicU64::new(0) })
    }

    /// The provider's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Leave to use the provider, unless it is to be left alone now.
    pub fn admit(self: &Arc<Self>) -> Option<Permit> {
        let mut state = self.state();
        let is_probe = match *state {
            State::Closed { .. } => false,
            State::Open { until, pause } if Instant::now() >= until => {
                *state = State::HalfOpen { pause };
                true
            }
            State::Open { .. } | State::HalfOpen { .. } => return None,
        };
        Some(Permit { breaker: Arc::clone(self), is_probe })
    }

    /// Leave would be given now.
    pub fn would_admit(&self) -> bool {
        match *self.state() {
            State::Closed { .. } => true,
            State::Open { until, .. } => Instant::now() >= until,
            State::HalfOpen { .. } => false,
        }
    }

    /// Leave to use it whatever is known: there is no other provider.
    pub fn insist(self: &Arc<Self>) -> Permit {
        Permit { breaker: Arc::clone(self), is_probe: false }
    }

    /// Its counts.
    pub fn read(&self) -> BreakerReading {
        let state = match *self.state() {
            State::Closed { .. } => 0,
            State::HalfOpen { .. } => 1,
            State::Open { .. } => 2,
        };
        BreakerReading { state, failures: self.failures.load(Relaxed), opened: self.opened.load(Relaxed) }
    }

    fn open(&self, state: &mut State, pause: Duration) {
        *state = State::Open { until: Instant::now() + pause, pause };
        self.opened.fetch_add(1, Relaxed);
        tracing::warn!(provider = self.name, pause_s = pause.as_secs(), "provider left alone: it keeps failing");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The provider did what it was asked for.
    pub fn worked(mut self) {
        self.is_probe = false;
        let mut state = self.breaker.state();
        if !matches!(*state, State::Closed { .. }) {
            tracing::info!(provider = self.breaker.name, "provider is well again");
        }
        *state = State::Closed { failures: 0 };
    }

    /// It did not, or not in time.
    pub fn failed(mut self, reason: &str) {
        self.is_probe = false;
        let breaker = &self.breaker;
        breaker.failures.fetch_add(1, Relaxed);
        tracing::warn!(provider = breaker.name, reason, "provider failed");
        let mut state = breaker.state();
        match *state {
            State::Closed { failures } if failures + 1 < FAILURES_MAX => *state = State::Closed { failures: failures + 1 },
            State::Closed { .. } => breaker.open(&mut state, PAUSE_FIRST),
            State::HalfOpen { pause } => breaker.open(&mut state, (pause * 2).min(PAUSE_MAX)),
            State::Open { .. } => {}
        }
    }
}

impl Drop for Permit {
    /// A probe that was called off leaves the next call to probe.
    fn drop(&mut self) {
        if self.is_probe {
            let mut state = self.breaker.state();
            if let State::HalfOpen { pause } = *state {
                *state = State::Open { until: Instant::now(), pause };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Arc<Breaker> {
        let breaker = Breaker::new("x");
        for _ in 0..FAILURES_MAX {
            breaker.admit().expect("a closed breaker").failed("HTTP 500");
        }
        assert!(breaker.admit().is_none());
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_keeps_failing_is_left_alone_then_probed_by_one_call() {
        let breaker = opened();
        tokio::time::advance(PAUSE_FIRST).await;
        let probe = breaker.admit().expect("a probe");
        assert!(breaker.admit().is_none(), "one probe at a time");
        probe.failed("HTTP 500");
        tokio::time::advance(PAUSE_FIRST).await;
        assert!(breaker.admit().is_none(), "the second pause is longer");
        tokio::time::advance(PAUSE_FIRST).await;
        breaker.admit().expect("another probe").worked();
        assert_eq!(breaker.read(), BreakerReading { state: 0, failures: 3, opened: 2 });
        assert!(breaker.admit().is_some() && breaker.admit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_called_off_leaves_the_next_call_to_probe() {
        let breaker = opened();
        tokio::time::advance(PAUSE_FIRST).await;
        drop(breaker.admit().expect("a probe"));
        assert!(breaker.admit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_between_failures_keeps_it_closed() {
        let breaker = Breaker::new("x");
        for _ in 0..3 {
            breaker.insist().failed("slow");
            breaker.insist().worked();
        }
        assert_eq!(breaker.read(), BreakerReading { state: 0, failures: 3, opened: 0 });
    }
}
