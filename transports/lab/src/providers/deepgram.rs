//! Fake Deepgram: it hears when somebody speaks, not what. While there is sound, words of the script appear one after
//! the other, `stt_interim_ms` behind it; a request to finalise settles those that were spoken, `stt_final_ms` later.
//! With `endpointing=false`, as we ask for, nothing else settles words.

mod hearing;

use super::{Fault, Lab, gate};
use crate::READ_BUFFER_BYTES;
use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
pub(super) use hearing::Hearing;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

pub(super) fn routes(lab: Lab) -> Router {
    Router::new().route("/v1/listen", get(upgrade)).with_state(lab)
}

async fn upgrade(State(lab): State<Lab>, headers: HeaderMap, Query(query): Query<HashMap<String, String>>, upgrade: WebSocketUpgrade) -> Response {
    let guard = lab.fake.request();
    let fault = lab.fake.fault.take();
    if let Some(refusal) = gate(fault, &headers).await {
        guard.complete();
        return refusal;
    }
    let rate_hz = query.get("sample_rate").and_then(|rate| rate.parse().ok()).unwrap_or(8_000);
    let mulaw = query.get("encoding").is_none_or(|encoding| encoding == "mulaw");
    upgrade.read_buffer_size(READ_BUFFER_BYTES).on_upgrade(move |socket| async move {
        let stream = lab.streams.fetch_add(1, Ordering::Relaxed);
        let hearing = Hearing::new(lab.script.clone(), lab.latency, stream, mulaw, rate_hz);
        let mut listener = Listener { socket, fault, hearing, due: VecDeque::new(), interims: 0, said_at: Instant::now() };
        if listener.run().await == Outcome::Closed {
            guard.complete();
        }
    })
}

/// How a stream ended.
#[derive(PartialEq, Eq)]
enum Outcome {
    /// As the client asked, everything settled.
    Closed,
    /// The client left, or we broke the connection.
    Broken,
}

/// What is said after some time.
pub(super) enum Saying {
    /// A message.
    Results(Value),
    /// The last message, then the end.
    Metadata(Value),
}

struct Listener {
    socket: WebSocket,
    fault: Fault,
    hearing: Hearing,
    due: VecDeque<(Instant, Saying)>,
    interims: u32,
    /// When it last said something.
    said_at: Instant,
}

impl Listener {
    async fn run(&mut self) -> Outcome {
        loop {
            let next = self.due.front().map(|(at, _)| (self.said_at + self.fault.pace(Duration::ZERO)).max(*at));
            tokio::select! {
                message = self.socket.recv() => match message {
                    Some(Ok(Message::Binary(sound))) => self.hearing.hear(&sound, Instant::now(), &mut self.due),
                    Some(Ok(Message::Text(text))) => {
                        let request: Value = serde_json::from_str(&text).unwrap_or_default();
                        match request["type"].as_str() {
                            Some("Finalize") => self.hearing.finalize(Instant::now(), &mut self.due),
                            Some("CloseStream") => self.hearing.close(Instant::now(), &mut self.due),
                            _ => {}
                        }
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Outcome::Broken,
                    Some(Ok(_)) => {}
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    let Some((_, saying)) = self.due.pop_front() else { continue };
                    if let Some(outcome) = self.say(saying).await {
                        return outcome;
                    }
                }
            }
        }
    }

    async fn say(&mut self, saying: Saying) -> Option<Outcome> {
        self.said_at = Instant::now();
        let (value, last) = match saying {
            Saying::Results(value) => (value, false),
            Saying::Metadata(value) => (value, true),
        };
        let has_words = value["channel"]["alternatives"][0]["transcript"] != "" && !last;
        self.interims += u32::from(has_words);
        let text = match self.fault {
            Fault::HalfOpen => return None,
            Fault::StallsMidReply if self.interims > 1 => return None,
            Fault::DiesMidReply if self.interims > 1 => return Some(Outcome::Broken),
            Fault::Garbage => "<html>".to_owned(),
            _ => value.to_string(),
        };
        if self.socket.send(Message::text(text)).await.is_err() {
            return Some(Outcome::Broken);
        }
        if last {
            let _ = self.socket.send(Message::Close(None)).await;
            return Some(Outcome::Closed);
        }
        None
    }
}

/// A result as Deepgram words it.
pub(super) fn results(text: &str, span_s: (f64, f64), is_final: bool, from_finalize: bool) -> Saying {
    Saying::Results(json!({
        "type": "Results", "channel_index": [0, 1], "start": span_s.0, "duration": span_s.1 - span_s.0,
        "is_final": is_final, "speech_final": false, "from_finalize": from_finalize,
        "channel": {"alternatives": [{"transcript": text, "confidence": 0.9, "words": []}]},
        "metadata": {"request_id": "lab"},
    }))
}
