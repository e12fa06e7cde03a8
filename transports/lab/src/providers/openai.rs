//! Fake `OpenAI`: chat completions as an event stream, and speech as bare 24 kHz sound.

use super::{Answer, Fault, Lab, gate, ms, voice};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::stream;
use serde_json::{Value, json};
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// Sound is this many times faster than it is played: 100 ms come each 10 ms.
const PIECE_EVERY_MS: u64 = 10;
/// Pause before a connection is broken, so that what was said before has left.
const FLUSHED_AFTER: Duration = Duration::from_millis(20);
/// Pieces of an answer that wait for the client.
const PIECES_MAX: usize = 16;

pub(super) fn chat_routes(lab: Lab) -> Router {
    Router::new().route("/v1/chat/completions", post(chat)).with_state(lab)
}

pub(super) fn speech_routes(lab: Lab) -> Router {
    Router::new().route("/v1/audio/speech", post(speech)).with_state(lab)
}

async fn chat(State(lab): State<Lab>, headers: HeaderMap, axum::Json(request): axum::Json<Value>) -> Response {
    let guard = lab.fake.request();
    let fault = lab.fake.fault.take();
    if let Some(refusal) = gate(fault, &headers).await {
        guard.complete();
        return refusal;
    }
    let mut parts = chat_chunks(&(lab.script.agent)(&request));
    let first = Duration::from_millis(lab.latency.llm_first_ms);
    if fault == Fault::Garbage {
        parts = vec!["data: <html>not a chunk</html>\n\n".into()];
    }
    let parts = parts.into_iter().map(Bytes::from).collect();
    ([("content-type", "text/event-stream")], streamed(parts, first, ms(lab.latency.llm_word_ms), fault, guard)).into_response()
}

async fn speech(State(lab): State<Lab>, headers: HeaderMap, axum::Json(request): axum::Json<Value>) -> Response {
    let guard = lab.fake.request();
    let fault = lab.fake.fault.take();
    if let Some(refusal) = gate(fault, &headers).await {
        guard.complete();
        return refusal;
    }
    if fault == Fault::Garbage {
        guard.complete();
        return axum::Json(json!({"hello": "world"})).into_response();
    }
    let pieces = voice::pieces(request["input"].as_str().unwrap_or_default(), 24_000);
    let pieces = pieces.into_iter().map(Bytes::from).collect();
    let first = ms(lab.latency.tts_first_ms);
    ([("content-type", "audio/pcm")], streamed(pieces, first, ms(PIECE_EVERY_MS), fault, guard)).into_response()
}

/// A body that comes piece by piece and goes wrong as it is told to.
fn streamed(pieces: Vec<Bytes>, first: Duration, every: Duration, fault: Fault, guard: super::RequestGuard) -> Body {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES_MAX);
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {} // the client has gone; the guard counts it
            () = async {
                if fault == Fault::HalfOpen {
                    std::future::pending::<()>().await;
                }
                for (index, piece) in pieces.into_iter().enumerate() {
                    sleep(if index == 0 { first } else { fault.pace(every) }).await;
                    let _ = sender.send(Ok(piece)).await;
                    if index == 1 && fault == Fault::StallsMidReply {
                        std::future::pending::<()>().await;
                    }
                    if index == 1 && fault == Fault::DiesMidReply {
                        sleep(FLUSHED_AFTER).await;
                        let _ = sender.send(Err(io::ErrorKind::ConnectionReset.into())).await;
                        return;
                    }
                }
            } => guard.complete(),
        }
    });
    Body::from_stream(stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|piece| (piece, receiver)) }))
}

/// The events of an answer: a chunk a word, then the tool calls in pieces, then the end.
fn chat_chunks(answer: &Answer) -> Vec<String> {
    let words = answer.text.split_inclusive(' ').map(|word| json!({"content": word}));
    let mut calls = Vec::new();
    if let Some(stage) = &answer.stage {
        calls.push(("set_stage", json!({"stage": stage}).to_string()));
    }
    if answer.hang_up {
        calls.push(("end_call", "{}".to_owned()));
    }
    calls.extend(answer.calls.iter().map(|(name, arguments)| (name.as_str(), arguments.clone())));
    let finish = if calls.is_empty() { "stop" } else { "tool_calls" };
    let calls = calls.iter().enumerate().flat_map(|(index, (name, arguments))| {
        let (front, back) = arguments.split_at(arguments.floor_char_boundary(arguments.len() / 2));
        let call = |call: Value| json!({"tool_calls": [call]});
        let id = format!("call_{index}");
        [
            call(json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": front}})),
            call(json!({"index": index, "function": {"arguments": back}})),
        ]
    });
    let deltas = words.chain(calls).map(|delta| (delta, Value::Null));
    let chunks = deltas.chain([(json!({}), json!(finish))]).map(|(delta, finish_reason)| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason});
        let chunk = json!({"id": "chatcmpl-lab", "object": "chat.completion.chunk", "created": 0, "model": "lab",
                           "choices": [choice]});
        format!("data: {chunk}\n\n")
    });
    chunks.chain(["data: [DONE]\n\n".to_owned()]).collect()
}
