//! A call's events on their way to disk, in order and off the call's own task.

use tokio::sync::mpsc;
use voiced_core::event::{CallEvent, CallEventKind};

use super::CallContext;

/// Events waiting for the disk: a call makes one every few seconds.
const REPORTS_MAX: usize = 64;

/// Writes a call's events in order; ends when the call does.
pub fn reporter(context: &CallContext) -> (mpsc::Sender<(u64, CallEventKind)>, tokio::task::JoinHandle<()>) {
    let (reports, mut waiting) = mpsc::channel::<(u64, CallEventKind)>(REPORTS_MAX);
    let (outbox, session_id, call_sid) = (context.outbox.clone(), context.session_id.clone(), context.call_sid.clone());
    let task = tokio::spawn(async move {
        // a call that is connected once more goes on in its session: two events of one number would be one
        let session = session_id.clone();
        let counted = outbox.with(move |store| store.next_sequence(&session)).await;
        let mut sequence = counted.and_then(|next| next).unwrap_or(0);
        while let Some((at_unix_ms, kind)) = waiting.recv().await {
            let event = CallEvent { session_id: session_id.clone(), call_sid: call_sid.clone(), at_unix_ms, sequence, kind };
            outbox.record(event).await; // a refusal of the disk is logged there
            sequence += 1;
        }
    });
    (reports, task)
}
