//! Where events go.

use voiced_core::event::CallEvent;

pub mod ema;
pub mod file;

/// What came of one try to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Taken.
    Sent,
    /// Not now; the reason names what was answered.
    Later(String),
    /// Never: trying again cannot help.
    Refused(String),
}

/// A closed set: each sink is a file of this folder.
pub enum Sink {
    /// The EMA API's webhooks.
    Ema(ema::Ema),
    /// A JSON-lines file.
    File(file::JsonLines),
}

impl Sink {
    /// The name under which the outbox owes it events.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ema(_) => "ema",
            Self::File(_) => "file",
        }
    }

    /// One try.
    pub async fn deliver(&self, event: &CallEvent) -> Outcome {
        match self {
            Self::Ema(ema) => ema.deliver(event).await,
            Self::File(file) => file.deliver(event),
        }
    }
}
