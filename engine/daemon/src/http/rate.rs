//! How often rooms may be made: at most so many in any minute, and fewer by one source, so that no caller keeps all others
//! out. Who is refused is told exactly when the next one may be.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::source::Source;

const MINUTE: Duration = Duration::from_mins(1);

/// Counts what was made in the last minute.
pub struct Rate {
    per_minute: usize,
    per_source: usize,
    /// As many as `per_minute` at most, oldest first.
    made: Mutex<VecDeque<(Instant, Source)>>,
}

impl Rate {
    /// At most `per_minute` in any minute, of them `per_source` by one source.
    pub fn new(per_minute: usize, per_source: usize) -> Self {
        Self { per_minute, per_source, made: Mutex::default() }
    }

    /// Takes one, or says how long to wait for it.
    pub fn take(&self, now: Instant, source: Source) -> Result<(), Duration> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        while made.front().is_some_and(|(oldest, _)| now.saturating_duration_since(*oldest) >= MINUTE) {
            made.pop_front();
        }
        let of_source = || made.iter().filter(|(_, by)| *by == source);
        let in_the_way = if made.len() >= self.per_minute { made.front() } else { of_source().next().filter(|_| of_source().count() >= self.per_source) };
        if let Some((oldest, _)) = in_the_way {
            return Err(MINUTE.saturating_sub(now.saturating_duration_since(*oldest)));
        }
        made.push_back((now, source));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::http::HeaderMap;

    use super::*;

    #[test]
    fn no_minute_has_more_than_its_number() {
        let (rate, start) = (Rate::new(3, 3), Instant::now());
        let take = |second, last| rate.take(start + Duration::from_secs(second), source(last));
        assert!([0, 10, 59].map(|second| take(second, 1).is_ok()).iter().all(|taken| *taken));
        assert_eq!(take(59, 2), Err(Duration::from_secs(1)));
        assert_eq!(take(60, 1), Ok(()));
        assert_eq!(take(61, 2), Err(Duration::from_secs(9)));
    }

    #[test]
    fn one_source_leaves_room_for_others() {
        let (rate, start) = (Rate::new(5, 2), Instant::now());
        let take = |second, last| rate.take(start + Duration::from_secs(second), source(last));
        assert!(take(0, 1).is_ok() && take(1, 2).is_ok() && take(2, 1).is_ok());
        assert_eq!(take(3, 1), Err(Duration::from_secs(57)));
        assert_eq!(take(3, 2), Ok(()));
        assert_eq!(take(60, 1), Ok(()));
    }

    fn source(last: u8) -> Source {
        Source::of([192, 0, 2, last].into(), &HeaderMap::new(), &BTreeSet::new())
    }
}
