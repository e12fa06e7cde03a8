//! A question's answer as tokens: what the model says, as its transcript comes.

use super::{Command, Growing};
use crate::llm::EVENTS_MAX;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use voiced_core::model::{LlmEvent, LlmRequest};

/// A question that is given up may be asked anew, with its words guessed better: the answer to both is the same, so it is taken
/// back only after this.
const SHARED_WITHIN: Duration = Duration::from_millis(50);
/// While the answer sounds and no words come, a sign of life goes to the conversation this often.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

/// What is said where the session is over.
pub(super) const OVER: &str = "openai: the realtime session is over";

/// Asks; dropping the receiver takes the question back.
pub(super) fn ask(commands: mpsc::Sender<Command>, request: LlmRequest) -> mpsc::Receiver<LlmEvent> {
    let (events, receiver) = mpsc::channel(EVENTS_MAX);
    let (told, answer) = oneshot::channel();
    let asked = commands.try_send(Command::Ask { request, told });
    tokio::spawn(async move {
        let answer = if asked.is_ok() { answer.await.ok() } else { None };
        let Some(answer) = answer else {
            let _ = events.send(LlmEvent::Failed(OVER.into())).await;
            return;
        };
        let number = answer.number;
        let wanted = tokio::select! {
            () = events.closed() => false,
            () = tell(answer, &events) => true,
        };
        if !wanted {
            sleep(SHARED_WITHIN).await;
            let _ = commands.send(Command::Drop { number }).await; // a session that is over has dropped it
        }
    });
    receiver
}

async fn tell(mut answer: Growing, events: &mpsc::Sender<LlmEvent>) {
    let (mut told_bytes, mut told_acts, mut told_at) = (0, 0, Instant::now());
    loop {
        let (text, acts, end) = {
            let speech = answer.speech.borrow_and_update();
            (speech.text[told_bytes..].to_owned(), speech.acts[told_acts..].to_vec(), speech.end.clone())
        };
        (told_bytes, told_acts) = (told_bytes + text.len(), told_acts + acts.len());
        // its sound comes after its words, and may take longer than a model may pause
        let is_alive = told_bytes > 0 && told_at.elapsed() >= SIGN_OF_LIFE;
        let token = (!text.is_empty() || is_alive).then_some(LlmEvent::Token(text));
        if token.is_some() {
            told_at = Instant::now();
        }
        let last = end.map(|end| end.map_or_else(LlmEvent::Failed, |()| LlmEvent::Done));
        let is_last = last.is_some();
        for event in token.into_iter().chain(acts).chain(last) {
            let _ = events.send(event).await; // who has gone is noticed beside this
        }
        if is_last {
            return;
        }
        if answer.speech.changed().await.is_err() {
            let _ = events.send(LlmEvent::Failed(OVER.into())).await;
            return;
        }
    }
}
