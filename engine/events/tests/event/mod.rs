//! Events of nobody in particular, and patience.

use std::time::{Duration, Instant};

use voiced_core::event::{CallEvent, CallEventKind, EventSpeaker};

/// More entries than any of these tests makes.
#[allow(dead_code)] // each test file uses what it needs
pub const LIMIT: usize = 100_000;
const PATIENCE: Duration = Duration::from_mins(1);

/// Something said in a call.
pub fn said(session: &str, sequence: u32) -> CallEvent {
    CallEvent {
        session_id: session.to_owned(),
        call_sid: None,
        at_unix_ms: 1_790_000_000_000 + u64::from(sequence),
        sequence,
        kind: CallEventKind::Utterance {
            speaker: EventSpeaker::Tenant,
            text: format!("The sink of flat {sequence} leaks, and nobody has come to look at it since last Tuesday."),
            turn_index: sequence,
            stage: "issue".into(),
        },
    }
}

/// Waits until it holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
