//! Fake Cartesia: contexts over one WebSocket, each a phrase, all speaking at once as the real one does.

use super::{Fault, Lab, RequestGuard, gate, ms, voice};
use crate::READ_BUFFER_BYTES;
use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::HashMap;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Sound is this many times faster than it is played: 100 ms come each 10 ms.
const PIECE_EVERY_MS: u64 = 10;
/// Messages that wait for the socket.
const MESSAGES_MAX: usize = 64;

/// What a context's task tells the socket.
enum Out {
    Text(Value),
    Garbage,
    /// Break the connection.
    Die,
}

pub(super) fn routes(lab: Lab) -> Router {
    Router::new().route("/tts/websocket", get(upgrade)).with_state(lab)
}

async fn upgrade(State(lab): State<Lab>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    let fault = if lab.fake.fault.peek().is_at_upgrade() { lab.fake.fault.take() } else { Fault::None };
    match gate(fault, &headers).await {
        Some(refusal) => refusal,
        None => upgrade.read_buffer_size(READ_BUFFER_BYTES).on_upgrade(move |socket| serve(lab, socket)),
    }
}

async fn serve(lab: Lab, mut socket: WebSocket) {
    let (out, mut outgoing) = mpsc::channel(MESSAGES_MAX);
    let mut contexts = HashMap::<String, JoinHandle<()>>::new();
    loop {
        tokio::select! {
            message = outgoing.recv() => {
                let text = match message {
                    Some(Out::Text(value)) => value.to_string(),
                    Some(Out::Garbage) => "<html>".to_owned(),
                    Some(Out::Die) | None => break,
                };
                if socket.send(Message::text(text)).await.is_err() {
                    break;
                }
            }
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    let request: Value = serde_json::from_str(&text).unwrap_or_default();
                    let id = request["context_id"].as_str().unwrap_or_default().to_owned();
                    if request["cancel"] == true {
                        contexts.remove(&id).iter().for_each(JoinHandle::abort);
                    } else {
                        let guard = lab.fake.request();
                        contexts.insert(id.clone(), tokio::spawn(speak(lab.clone(), id, request, out.clone(), guard)));
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    contexts.values().for_each(JoinHandle::abort);
}

async fn speak(lab: Lab, id: String, request: Value, out: mpsc::Sender<Out>, guard: RequestGuard) {
    let fault = lab.fake.fault.take();
    let rate_hz = request["output_format"]["sample_rate"].as_u64().unwrap_or(24_000) as u32;
    let pieces = voice::pieces(request["transcript"].as_str().unwrap_or_default(), rate_hz);
    for (index, piece) in pieces.into_iter().enumerate() {
        sleep(if index == 0 { ms(lab.latency.tts_first_ms) } else { fault.pace(ms(PIECE_EVERY_MS)) }).await;
        let message = match (fault, index) {
            (Fault::HalfOpen, _) | (Fault::StallsMidReply, 2..) => std::future::pending().await,
            (Fault::Garbage, _) => Out::Garbage,
            (Fault::DiesMidReply, 2..) => Out::Die,
            _ => Out::Text(json!({"type": "chunk", "data": STANDARD.encode(piece), "done": false, "step_time": 1.0,
                                  "status_code": 206, "context_id": id})),
        };
        if out.send(message).await.is_err() {
            return;
        }
    }
    let done = json!({"type": "done", "done": true, "status_code": 200, "context_id": id});
    if out.send(Out::Text(done)).await.is_ok() {
        guard.complete();
    }
}
