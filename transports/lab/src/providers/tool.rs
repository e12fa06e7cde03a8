//! A server of tools for language models, which keeps what it was asked and goes wrong as it is told to.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Fault, FaultSwitch};

/// Calls that are kept; a test makes a few.
const CALLS_MAX: usize = 1_000;
/// Bytes of an answer without an end.
const ENDLESS_BYTES: usize = 1024 * 1024;

/// A call as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCalled {
    /// `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// `Authorization`.
    pub authorization: Option<String>,
    /// The body, null when it is not JSON.
    pub body: Value,
}

/// A tool on loopback; it ends when dropped.
#[derive(Debug)]
pub struct FakeTool {
    /// How it goes wrong: [`Fault::DiesMidReply`] is an answer without an end, [`Fault::Garbage`] a page for people.
    pub fault: FaultSwitch,
    address: SocketAddr,
    answer: Value,
    called: Mutex<Vec<ToolCalled>>,
}

/// Serves it until dropped.
#[derive(Debug)]
pub struct ToolServer {
    /// The tool.
    pub tool: Arc<FakeTool>,
    server: JoinHandle<()>,
}

impl ToolServer {
    /// A tool that always answers this.
    pub async fn start(answer: Value) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let tool = Arc::new(FakeTool { fault: FaultSwitch::default(), address: listener.local_addr()?, answer, called: Mutex::default() });
        let routes = Router::new().route("/tool", post(called)).with_state(Arc::clone(&tool));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::warn!(%error, "a fake tool stopped");
            }
        });
        Ok(Self { tool, server })
    }
}

impl Drop for ToolServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl FakeTool {
    /// Where its calls go.
    pub fn url(&self) -> String {
        format!("http://{}/tool", self.address)
    }

    /// What it was asked, in order of arrival.
    pub fn called(&self) -> Vec<ToolCalled> {
        self.called.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn called(State(tool): State<Arc<FakeTool>>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let call = ToolCalled {
        idempotency_key: header("idempotency-key"),
        authorization: header("authorization"),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    };
    {
        let mut kept = tool.called.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < CALLS_MAX {
            kept.push(call);
        }
    }
    match tool.fault.take() {
        Fault::None | Fault::Drips => Json(tool.answer.clone()).into_response(),
        Fault::NeverAnswers | Fault::HalfOpen | Fault::StallsMidReply => std::future::pending().await,
        Fault::DiesMidReply => "endless ".repeat(ENDLESS_BYTES / 8).into_response(),
        Fault::TooManyRequests => (axum::http::StatusCode::TOO_MANY_REQUESTS, "later").into_response(),
        Fault::Unavailable(after_s) => (axum::http::StatusCode::SERVICE_UNAVAILABLE, [("retry-after", after_s.to_string())], "later").into_response(),
        // it repeats the key, as some do
        Fault::ServerError => (axum::http::StatusCode::INTERNAL_SERVER_ERROR, header("authorization").unwrap_or_default()).into_response(),
        Fault::Garbage | Fault::WrongContentType => ([("content-type", "text/html")], "<html>Log in first</html>").into_response(),
    }
}
