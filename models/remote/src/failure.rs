//! What went wrong with a provider, and whether another try may help.

use std::fmt;
use std::time::Duration;

/// Longest part of a provider's own words in an error text, in characters: enough for a sentence.
const WORDS_MAX: usize = 200;

/// What went wrong. Its text names the provider and holds no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub provider: &'static str,
    pub what: String,
    pub again: Again,
}

/// Whether another try may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// The same request would fail in the same way.
    Never,
    /// After our own pause.
    Soon,
    /// After the pause that the provider asks for.
    After(Duration),
}

impl Failure {
    /// A failure that another try would repeat.
    pub fn lasting(provider: &'static str, what: impl Into<String>) -> Self {
        Self { provider, what: what.into(), again: Again::Never }
    }

    /// A failure that another try may not meet.
    pub fn passing(provider: &'static str, what: impl Into<String>) -> Self {
        Self { provider, what: what.into(), again: Again::Soon }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.provider, self.what)
    }
}

/// A provider's own words, as one short line.
pub(crate) fn words(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(WORDS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
