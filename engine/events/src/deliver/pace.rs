//! How often a sink is tried: pauses after failures, and no more than so many tries a second.

use std::time::{Duration, Instant};

/// When to try again, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Before the second try.
    pub first: Duration,
    /// No pause is longer, jitter aside.
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

/// Share of a pause by which it may be longer or shorter.
const JITTER: f64 = 0.5;

impl Backoff {
    /// The pause after so many failures, jittered so that a receiver that comes back is not hit at once by all.
    pub(super) fn pause(&self, attempts: u32) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(attempts.min(16)).unwrap_or(u32::MAX));
        doubled.min(self.longest).mul_f64(rand::random_range(1.0 - JITTER..1.0 + JITTER))
    }

    /// Longer than any pause.
    pub(super) fn pause_max(&self) -> Duration {
        self.longest.mul_f64(1.0 + JITTER)
    }
}

/// At most so many tries a second, evenly.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    apart: Duration,
    next: Instant,
}

impl Pace {
    /// At most `per_second` tries; a burst of a tenth of a second's is let through.
    pub fn new(per_second: u32) -> Self {
        Self { apart: Duration::from_secs(1) / per_second.max(1), next: Instant::now() }
    }

    pub(super) fn take(&mut self, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        self.next = self.next.max(now.checked_sub(Duration::from_millis(100)).unwrap_or(now)) + self.apart;
        true
    }

    pub(super) fn next_at(&self) -> Instant {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_tries_than_its_number_and_a_tenth() {
        let mut pace = Pace::new(50);
        let start = Instant::now() + Duration::from_secs(5);
        let taken = (0..10_000).filter(|step| pace.take(start + Duration::from_micros(step * 100))).count();
        assert!((50..=56).contains(&taken), "{taken}");
    }
}
