//! Texts of people whom the server has not told of yet: it tells with some delay, and texts do not wait for that.

use std::time::Duration;

use tokio::time::Instant;

/// Texts kept. Who is no person, and so is never told of, must not keep others out: the oldest goes.
const KEPT_MAX: usize = 8;
/// The server tells within so long: 128 ms, and what the network adds. Older texts were not meant for the agent.
const KEPT_FOR: Duration = Duration::from_secs(2);

/// When, who and what.
#[derive(Default)]
pub struct EarlyTexts(Vec<(Instant, String, String)>);

impl EarlyTexts {
    /// Keeps a text until its writer is known.
    pub fn keep(&mut self, now: Instant, from: String, text: String) {
        if self.0.len() == KEPT_MAX {
            self.0.remove(0);
        }
        self.0.push((now, from, text));
    }

    /// What somebody wrote who is known now.
    pub fn of(&mut self, now: Instant, identity: &str) -> Vec<String> {
        let own = self.0.extract_if(.., |(_, from, _)| from == identity);
        own.filter(|(at, ..)| now.duration_since(*at) < KEPT_FOR).map(|(.., text)| text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_wait_in_their_order_for_their_writer_for_a_moment_and_strangers_keep_nobody_out() {
        let (mut early, now) = (EarlyTexts::default(), Instant::now());
        early.keep(now, "alice".into(), "lost".into());
        for number in 0..KEPT_MAX {
            let from = if number % 2 == 0 { "alice" } else { "bob" };
            early.keep(now, from.into(), number.to_string());
        }
        assert_eq!(early.of(now, "alice"), ["0", "2", "4", "6"]);
        assert!(early.of(now, "alice").is_empty(), "each is given once");
        assert!(early.of(now + KEPT_FOR, "bob").is_empty(), "that was long ago");
    }
}
