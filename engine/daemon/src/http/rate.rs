//! How often rooms may be made: at most so many in any minute, told exactly when the next one may be.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_mins(1);

/// Counts what was made in the last minute.
pub struct Rate {
    per_minute: usize,
    /// As many as `per_minute` at most, oldest first.
    made: Mutex<VecDeque<Instant>>,
}

impl Rate {
    /// At most `per_minute` in any minute.
    pub fn new(per_minute: usize) -> Self {
        Self { per_minute, made: Mutex::default() }
    }

    /// Takes one, or says how long to wait for it.
    pub fn take(&self, now: Instant) -> Result<(), Duration> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        while made.front().is_some_and(|oldest| now.saturating_duration_since(*oldest) >= MINUTE) {
            made.pop_front();
        }
        if made.len() < self.per_minute {
            made.push_back(now);
            return Ok(());
        }
        Err(made.front().map_or(MINUTE, |oldest| MINUTE.saturating_sub(now.saturating_duration_since(*oldest))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_minute_has_more_than_its_number() {
        let (rate, start) = (Rate::new(3), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!([0, 10, 59].map(|second| rate.take(at(second)).is_ok()).iter().all(|taken| *taken));
        assert_eq!(rate.take(at(59)), Err(Duration::from_secs(1)));
        assert_eq!(rate.take(at(60)), Ok(()));
        assert_eq!(rate.take(at(61)), Err(Duration::from_secs(9)));
    }
}
