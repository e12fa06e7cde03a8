//! Calls after the fact, from their records.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use tokio::task::spawn_blocking;
use utoipa::ToSchema;

use super::refusal::Refusal;
use super::status::Status;
use crate::flight::story::{self, Story};

/// Calls told at once, newest first.
const CALLS_MAX: usize = 100;

/// The newest calls.
#[derive(Serialize, ToSchema)]
pub struct CallList {
    calls: Vec<CallSummary>,
    /// Records among them that are damaged and not told; `voiced calls list` says which, and why.
    unreadable: usize,
}

/// One of them.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallSummary {
    session_id: String,
    from: String,
    to: String,
    started_at_unix_ms: u64,
    duration_ms: u64,
    /// None: it goes on, or was cut off with the daemon.
    ended: Option<String>,
    utterances: usize,
    faults: usize,
}

/// The newest hundred calls that were recorded.
#[utoipa::path(get, path = "/calls", tag = "host", responses((status = 200, body = CallList)))]
pub async fn list(State(status): State<Arc<Status>>) -> Result<Json<CallList>, Refusal> {
    let folder = status.sessions.recorder.folder().to_owned();
    let list = spawn_blocking(move || {
        let (told, damaged): (Vec<_>, Vec<_>) = story::list(&folder, CALLS_MAX).partition(Result::is_ok);
        CallList { calls: told.into_iter().flatten().map(CallSummary::from).collect(), unreadable: damaged.len() }
    });
    Ok(Json(list.await.map_err(|_| unreadable())?))
}

/// One call: every decision with its reason, the latencies of each turn, the faults met.
#[utoipa::path(get, path = "/calls/{id}", tag = "host", params(("id" = String, Path, description = "session id or CallSid")),
    responses((status = 200, body = Story), (status = 404, description = "no record of this call")))]
pub async fn one(State(status): State<Arc<Status>>, Path(id): Path<String>) -> Result<Json<Story>, Refusal> {
    let folder = status.sessions.recorder.folder().to_owned();
    let record = spawn_blocking(move || story::find(&folder, &id)).await.map_err(|_| unreadable())?;
    Ok(Json(record.map_err(|_| Refusal::unknown("callId", "no record of such a call"))?.story()))
}

fn unreadable() -> Refusal {
    Refusal::of(StatusCode::INTERNAL_SERVER_ERROR, "the records could not be read")
}

impl From<Story> for CallSummary {
    fn from(story: Story) -> Self {
        let Story { session_id, from, to, started_at_unix_ms, duration_ms, ended, utterances, faults, .. } = story;
        Self { session_id, from, to, started_at_unix_ms, duration_ms, ended, utterances, faults: faults.len() }
    }
}
