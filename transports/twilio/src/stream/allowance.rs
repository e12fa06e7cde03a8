//! How many messages a stream may send: a token bucket that is filled at the stream's rate.

use std::time::Duration;
use tokio::time::Instant;

/// What a full bucket holds, in s of its rate. A line that stalls for the 15 s after which it counts as lost brings 750
/// messages at once, all of them good: a fourth of what is allowed in that time.
const BURST_S: u32 = 5;

/// A stream's bucket.
pub(super) struct Allowance {
    /// The time that one message uses up.
    each: Duration,
    burst: Duration,
    /// When the bucket will be full again; the nearer, the fuller.
    full_at: Instant,
}

impl Allowance {
    /// A full bucket.
    pub(super) fn new(per_s: u32, now: Instant) -> Self {
        Self { each: Duration::from_secs(1) / per_s.max(1), burst: Duration::from_secs(BURST_S.into()), full_at: now }
    }

    /// Takes one message; false when the bucket is empty.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + self.each;
        let fits = full_at - now <= self.burst;
        if fits {
            self.full_at = full_at;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_line_may_catch_up_and_a_flood_may_not() {
        let start = Instant::now();
        let mut allowance = Allowance::new(200, start);
        let mut taken = |count: usize, at: Duration| (0..count).filter(|_| allowance.take(start + at)).count();
        assert_eq!(taken(750, Duration::from_secs(15)), 750, "what 15 s of silence kept back");
        assert_eq!(taken(2_000, Duration::from_secs(15)), 250, "the rest of a full bucket");
        assert_eq!(taken(500, Duration::from_secs(16)), 200, "what a second fills in");
        let steady = (0..1_000).map(|message| taken(1, Duration::from_secs(20) + Duration::from_millis(20) * message)).sum::<usize>();
        assert_eq!(steady, 1_000, "Twilio's 50 a second");
    }
}
