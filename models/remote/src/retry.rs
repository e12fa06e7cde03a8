//! When to try again, and how long to pause before it.

use crate::account::Timeouts;
use crate::failure::{Again, Failure};
use std::time::Duration;

/// Longest pause that a provider may ask for: after more than this the caller has been in silence for too long.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(2);
/// Pause before the first retry; doubles with each further one. Half of it is random, so that calls which failed
/// together do not come back together.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Doublings of the pause: it stays below 1 s.
const DOUBLINGS_MAX: u32 = 3;

/// A limited number of further tries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retries {
    used: u32,
    max: u32,
    retry_after_max: Duration,
}

impl Retries {
    /// At most `max` tries after the first. A pause that the provider asks for is made only where nobody else could take over.
    pub fn new(max: u32, timeouts: &Timeouts) -> Self {
        Self { used: 0, max, retry_after_max: if timeouts.may_wait_again { RETRY_AFTER_MAX } else { Duration::ZERO } }
    }

    /// Takes a retry and pauses as it should; false when there is none left or it would not help.
    pub async fn again(&mut self, failure: &Failure) -> bool {
        let Some(pause) = self.pause(failure) else { return false };
        tracing::debug!(%failure, ?pause, "trying again");
        tokio::time::sleep(pause).await;
        true
    }

    /// Something worked: earlier failures no longer count.
    pub fn reset(&mut self) {
        self.used = 0;
    }

    fn pause(&mut self, failure: &Failure) -> Option<Duration> {
        if self.used == self.max {
            return None;
        }
        let pause = match failure.again {
            Again::Never => return None,
            Again::After(pause) if pause > self.retry_after_max => return None,
            Again::After(pause) => pause,
            Again::Soon => {
                let full = BACKOFF_FIRST * (1 << self.used.min(DOUBLINGS_MAX));
                full.mul_f64(rand::random_range(0.5..=1.0))
            }
        };
        self.used += 1;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(again: Again) -> Failure {
        Failure { provider: "x", what: String::new(), again }
    }

    #[test]
    fn retries_are_counted_and_their_pause_grows() {
        let mut retries = Retries::new(2, &Timeouts::default());
        let first = retries.pause(&failure(Again::Soon)).unwrap();
        let second = retries.pause(&failure(Again::Soon)).unwrap();
        assert!((50..=100).contains(&first.as_millis()) && (100..=200).contains(&second.as_millis()));
        assert_eq!(retries.pause(&failure(Again::Soon)), None);
        retries.reset();
        assert!(retries.pause(&failure(Again::Soon)).is_some());
    }

    #[test]
    fn a_provider_may_ask_for_a_short_pause_only() {
        let mut retries = Retries::new(2, &Timeouts::default());
        assert_eq!(retries.pause(&failure(Again::After(Duration::from_secs(30)))), None);
        let asked = Duration::from_millis(1_500);
        assert_eq!(retries.pause(&failure(Again::After(asked))), Some(asked));
        assert_eq!(retries.pause(&failure(Again::Never)), None);
        // another one can take over at once
        let mut retries = Retries::new(2, &Timeouts { may_wait_again: false, ..Timeouts::default() });
        assert_eq!(retries.pause(&failure(Again::After(asked))), None);
        assert_eq!(retries.pause(&failure(Again::After(Duration::ZERO))), Some(Duration::ZERO));
    }
}
