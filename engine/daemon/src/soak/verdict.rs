//! What makes a soak a good one.

use super::account::Account;

/// Of the calls placed while nobody kills the daemon so many may be refused, percent: faults last for seconds, not minutes.
const REFUSED_PERCENT_MAX: u64 = 20;
/// Calls for each answered line at most: every second caller says several, the others hang up early or press keys.
const CALLS_PER_ANSWER_MAX: u64 = 3;
/// What memory may grow by in the later half of the time without kills, KB: a busy heap breathes by some MB, a leak goes on.
const GROWTH_KB_MAX: f64 = 16.0 * 1_024.0;
/// Files open at rest beyond those open at rest before: pooled connections.
const FILES_MORE_MAX: i64 = 24;

/// What was found.
#[derive(Default)]
pub struct Findings {
    /// Calls whose stream opened.
    pub taken: u64,
    /// Calls refused while nobody killed the daemon.
    pub refused: u64,
    pub lines_answered: u64,
    pub memory_growth_kb: f64,
    pub more_files: i64,
    pub account: Account,
}

impl Findings {
    /// What is not as it must be; nothing: the soak is good.
    pub fn faults(&self) -> Vec<&'static str> {
        let faults = [
            (self.taken == 0 || self.refused * 100 > (self.taken + self.refused) * REFUSED_PERCENT_MAX, "callers are refused"),
            (self.lines_answered * CALLS_PER_ANSWER_MAX < self.taken, "callers are not answered"),
            (self.memory_growth_kb > GROWTH_KB_MAX, "memory grows"),
            (self.more_files > FILES_MORE_MAX, "files stay open"),
            (!self.account.is_whole(), "events are lost, out of order or owed"),
        ];
        faults.into_iter().filter_map(|(is_so, what)| is_so.then_some(what)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_silence_leaks_and_calls_that_nobody_was_told_of_make_a_soak_fail() {
        let good = || Findings { taken: 100, refused: 2, lines_answered: 160, memory_growth_kb: 3_000.0, more_files: 4, account: Account::default() };
        assert_eq!(good().faults(), [""; 0]);
        let refused = Findings { taken: 0, refused: 500, lines_answered: 0, ..good() };
        let half = Findings { refused: 100, ..good() };
        let unanswered = Findings { lines_answered: 3, ..good() };
        let leaking = Findings { memory_growth_kb: 60_000.0, ..good() };
        let open = Findings { more_files: 200, ..good() };
        let untold = Findings { account: Account { unreported: 1, ..Account::default() }, ..good() };
        for (findings, fault) in [
            (refused, "callers are refused"),
            (half, "callers are refused"),
            (unanswered, "callers are not answered"),
            (leaking, "memory grows"),
            (open, "files stay open"),
            (untold, "events are lost, out of order or owed"),
        ] {
            assert_eq!(findings.faults(), [fault]);
        }
    }
}
