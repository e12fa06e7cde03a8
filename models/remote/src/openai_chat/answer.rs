//! The task of one answer: ask, stream the text out as it comes, carry out calls of the agent's own tools, and ask again
//! when the model only called those. Calls of the operator's tools end the answer: the conversation asks behind them.

use super::{BadChunk, Delta, Shared, decode, request_body};
use crate::account::OPENAI;
use crate::failure::Failure;
use crate::http::Body;
use crate::retry::Retries;
use crate::sse::SseDecoder;
use crate::tools::Round;
use tokio::sync::mpsc;
use voiced_core::model::{LlmEvent, LlmRequest, TOOL_ROUNDS_MAX};

/// Further requests after an answer that only called tools. In the last one the model may not call any.
const FOLLOW_UPS_MAX: usize = 2;
/// Retries of one request before its first token: a second silence would be too long for a caller.
const RETRIES_MAX: u32 = 1;
/// Longest answer, in bytes: several minutes of speech. A model that goes on is cut.
const TEXT_BYTES_MAX: usize = 16 * 1024;

type Events = mpsc::Sender<LlmEvent>;

pub(super) async fn run(shared: &Shared, request: &LlmRequest, events: &Events) {
    let last = match answer(shared, request, events).await {
        Ok(()) => LlmEvent::Done,
        Err(failure) => LlmEvent::Failed(failure.to_string()),
    };
    say(events, last).await;
}

async fn answer(shared: &Shared, request: &LlmRequest, events: &Events) -> Result<(), Failure> {
    let mut rounds = Vec::new();
    let (mut acted, mut hangs_up) = (false, false);
    for follow_up in 0..=FOLLOW_UPS_MAX {
        let mut answer = ask(shared, request, &rounds, follow_up < FOLLOW_UPS_MAX, events).await?;
        for event in answer.round.carry_out(&shared.settings.stages) {
            acted = true;
            if event != LlmEvent::HangUp || !std::mem::replace(&mut hangs_up, true) {
                say(events, event).await;
            }
        }
        let calls = if request.rounds.len() < TOOL_ROUNDS_MAX { answer.round.calls_of(&shared.settings.tools) } else { Vec::new() };
        if !calls.is_empty() {
            say(events, LlmEvent::Calls(calls)).await;
            return Ok(());
        }
        if answer.text_bytes > 0 {
            return Ok(());
        }
        if answer.round.is_empty() {
            break;
        }
        rounds.push(answer.round);
    }
    if acted { Ok(()) } else { Err(Failure::lasting(OPENAI.name, "the answer was empty")) }
}

/// What one request brought.
#[derive(Default)]
struct Answer {
    text_bytes: usize,
    round: Round,
    finished: bool,
}

/// One request, tried again when it fails before its first token.
async fn ask(shared: &Shared, request: &LlmRequest, rounds: &[Round], may_call: bool, events: &Events) -> Result<Answer, Failure> {
    let body = request_body(&shared.settings, request, rounds, may_call);
    let retries_max = if shared.settings.account.timeouts.may_wait_again { RETRIES_MAX } else { 0 };
    let mut retries = Retries::new(retries_max, &shared.settings.account.timeouts);
    loop {
        let mut answer = Answer::default();
        let went = match shared.http.post(&body).await {
            Ok(mut stream) => answer.read(&mut stream, events).await,
            Err(failure) => Err(failure),
        };
        match went {
            Ok(()) => return Ok(answer),
            Err(failure) if answer.text_bytes > 0 || !retries.again(&failure).await => return Err(failure),
            Err(_) => {}
        }
    }
}

impl Answer {
    async fn read(&mut self, body: &mut Body<'_>, events: &Events) -> Result<(), Failure> {
        let (mut sse, mut chunks) = (SseDecoder::default(), Vec::new());
        while let Some(bytes) = body.next().await? {
            sse.push(&bytes, &mut chunks).map_err(|_| unreadable())?;
            for data in chunks.drain(..) {
                if self.take(&data, events).await.map_err(|failure| body.redacted(failure))? {
                    return Ok(());
                }
                body.answered();
            }
        }
        if let Some(data) = sse.finish() {
            self.take(&data, events).await.map_err(|failure| body.redacted(failure))?;
        }
        if self.finished { Ok(()) } else { Err(Failure::passing(OPENAI.name, "the answer broke off")) }
    }

    /// Takes one chunk; true when it was the last that matters.
    async fn take(&mut self, data: &str, events: &Events) -> Result<bool, Failure> {
        if data.trim() == "[DONE]" {
            self.finished = true;
            return Ok(true);
        }
        let Delta { text, tools, finish } = decode(data).map_err(|bad| match bad {
            BadChunk::Error(words) => Failure::passing(OPENAI.name, words),
            BadChunk::Unreadable => unreadable(),
        })?;
        self.round.add(&tools);
        self.finished |= finish.is_some();
        if !text.is_empty() {
            self.text_bytes += text.len();
            say(events, LlmEvent::Token(text)).await;
        }
        Ok(self.text_bytes > TEXT_BYTES_MAX)
    }
}

fn unreadable() -> Failure {
    Failure::passing(OPENAI.name, "the answer is no chat completion stream")
}

/// Tells the conversation; one that has gone cancels this task at its next wait.
async fn say(events: &Events, event: LlmEvent) {
    let _ = events.send(event).await;
}
