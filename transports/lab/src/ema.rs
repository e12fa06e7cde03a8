//! A small receiver of EMA webhooks, which can be told to misbehave.

use axum::body::Bytes;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::{Router, routing::post};
use serde_json::{Value, json};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How the receiver misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers 500 so many times, then well.
    Fails {
        /// How many times.
        times: u32,
    },
    /// Answers 200 with `{"success": false}` so many times, then well.
    Unsuccessful {
        /// How many times.
        times: u32,
    },
    /// Answers well, but late.
    Slow {
        /// How late, in ms.
        ms: u64,
    },
    /// Answers 400 for good.
    Refuses,
}

/// A webhook as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// Path of the request.
    pub path: String,
    /// `X-Webhook-Secret`.
    pub secret: Option<String>,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// The body, null when it is not JSON.
    pub body: Value,
    /// The receiver took it: 2xx and success.
    pub accepted: bool,
}

/// A receiver on loopback; it ends when dropped.
#[derive(Debug)]
pub struct EmaReceiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// Webhooks kept; more are answered but forgotten, so that a long load test does not fill the memory.
const RECEIVED_MAX: usize = 100_000;

#[derive(Debug)]
struct Shared {
    behaviour: Mutex<Option<Behaviour>>,
    received: Mutex<Vec<Received>>,
}

impl EmaReceiver {
    /// Listens on a free port of loopback.
    pub async fn start(behaviour: Option<Behaviour>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { behaviour: Mutex::new(behaviour), received: Mutex::default() });
        let routes = Router::new().route("/webhooks/livekit/{event}", post(receive)).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::warn!(%error, "the receiver has ended");
            }
        });
        Ok(Self { address, shared, server })
    }

    /// The base for `EMA_API_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that came, in order of arrival, refused attempts included.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// Changes how it misbehaves.
    pub fn behave(&self, behaviour: Option<Behaviour>) {
        *lock(&self.shared.behaviour) = behaviour;
    }
}

impl Drop for EmaReceiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(State(shared): State<Arc<Shared>>, OriginalUri(uri): OriginalUri, headers: HeaderMap, body: Bytes) -> Response {
    let reaction = react(&mut lock(&shared.behaviour));
    if let Some(Behaviour::Slow { ms }) = reaction {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let received = Received {
        path: uri.path().to_owned(),
        secret: header("x-webhook-secret"),
        idempotency_key: header("idempotency-key"),
        content_type: header("content-type"),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        accepted: matches!(reaction, None | Some(Behaviour::Slow { .. })),
    };
    let mut kept = lock(&shared.received);
    if kept.len() < RECEIVED_MAX {
        kept.push(received);
    }
    match reaction {
        None | Some(Behaviour::Slow { .. }) => Json(json!({"success": true})).into_response(),
        Some(Behaviour::Unsuccessful { .. }) => Json(json!({"success": false})).into_response(),
        Some(Behaviour::Fails { .. }) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Some(Behaviour::Refuses) => (StatusCode::BAD_REQUEST, Json(json!({"error": "refused"}))).into_response(),
    }
}

/// What is to be done this time; a fault that is used up ends.
fn react(behaviour: &mut Option<Behaviour>) -> Option<Behaviour> {
    let now = *behaviour;
    match behaviour {
        Some(Behaviour::Fails { times } | Behaviour::Unsuccessful { times }) if *times > 0 => *times -= 1,
        Some(Behaviour::Fails { .. } | Behaviour::Unsuccessful { .. }) => {
            *behaviour = None;
            return None;
        }
        _ => {}
    }
    now
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fault_is_answered_so_many_times_and_everything_is_kept() {
        let receiver = EmaReceiver::start(Some(Behaviour::Fails { times: 1 })).await.expect("a port");
        let url = format!("{}/webhooks/livekit/utterance", receiver.url());
        let http = reqwest::Client::new();
        let post = || http.post(&url).header("Idempotency-Key", "k").json(&json!({"turn": 1})).send();
        assert_eq!(post().await.expect("an answer").status(), 500);
        assert_eq!(post().await.expect("an answer").status(), 200);
        receiver.behave(Some(Behaviour::Refuses));
        assert_eq!(post().await.expect("an answer").status(), 400);
        let accepted: Vec<_> = receiver.received().iter().map(|received| received.accepted).collect();
        assert_eq!(accepted, [false, true, false]);
        let first = &receiver.received()[0];
        assert_eq!((first.path.as_str(), first.idempotency_key.as_deref()), ("/webhooks/livekit/utterance", Some("k")));
        assert_eq!(first.body, json!({"turn": 1}));
    }
}
