//! Calls that were answered with a stream which has not started yet: each has a place coming to it, so that of many that ring
//! at once none is connected for whom there is none.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Twilio opens the stream about a second after the answer; a caller who has hung up meanwhile keeps no place longer than this.
const PROMISE: Duration = Duration::from_secs(10);

/// Promised places, by `CallSid`, and until when: no more than the daemon admits.
#[derive(Debug, Default)]
pub(crate) struct Promised(Mutex<HashMap<String, Instant>>);

impl Promised {
    /// Promises the call a place, if there is one beside those of so many others.
    pub(crate) fn promise(&self, now: Instant, call_sid: &str, is_free: impl FnOnce(usize) -> bool) -> bool {
        // locked until it is decided: the last place is promised to one alone
        let mut places = self.places();
        places.retain(|other, until| *until > now && other != call_sid);
        let is_free = is_free(places.len());
        if is_free {
            places.insert(call_sid.to_owned(), now + PROMISE);
        }
        is_free
    }

    /// The call has its place, or needs none.
    pub(crate) fn settle(&self, call_sid: &str) {
        self.places().remove(call_sid);
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_promised_to_one_caller_until_it_is_taken_given_up_or_too_late() {
        let (promised, now) = (Promised::default(), Instant::now());
        let asks = |call_sid, after: Duration| promised.promise(now + after, call_sid, |others| others < 1);
        assert!(asks("CA1", Duration::ZERO));
        assert!(asks("CA1", Duration::ZERO), "its own place, asked for once more");
        assert!(!asks("CA2", Duration::ZERO));
        promised.settle("CA1");
        assert!(asks("CA2", Duration::ZERO));
        assert!(!asks("CA3", PROMISE / 2));
        assert!(asks("CA3", PROMISE));
    }
}
