//! What the host is doing: its health for everyone, its calls, counts and events for whoever runs it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;
use utoipa::ToSchema;
use voiced_rt::HearingReading;
use voiced_twilio::TwilioCounters;

use super::gate::Gate;
use super::refusal::Refusal;
use crate::metrics;
use crate::rooms::RoomHost;
use crate::sessions::{Session, Sessions};

/// Longest message of a listener, in bytes: it has nothing to say but pings.
const HEARD_BYTES_MAX: usize = 1_024;
/// A listener that takes nothing for this long, its socket's buffers full, has stopped reading.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// Whom to ask.
pub struct Status {
    pub sessions: Arc<Sessions>,
    pub twilio: Arc<TwilioCounters>,
    pub rooms: Option<Arc<RoomHost>>,
    pub phone_number: String,
    pub gate: Arc<Gate>,
}

/// How the host is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `ok`, `degraded` (calls go on, something needs the operator) or `draining`.
    status: &'static str,
    /// What is degraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    version: &'static str,
    calls: usize,
    calls_max: usize,
    phone_number: String,
}

/// The sessions now.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionList {
    total: usize,
    by_type: BTreeMap<&'static str, usize>,
    #[schema(value_type = Vec<Object>)]
    sessions: Vec<Session>,
}

/// A session, and how well its caller comes through.
#[derive(Serialize)]
pub struct SessionNow {
    #[serde(flatten)]
    session: Session,
    hearing: HearingNow,
}

/// How the session comes through, since it began: the caller's packets, and the agent's sound.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HearingNow {
    packets: u32,
    late: u32,
    lost: u32,
    /// Of the lost ones, those rebuilt from the next one's FEC.
    recovered: u32,
    concealed_ms: u32,
    skipped_ms: u32,
    /// What the jitter buffer aims at now; 0 on a telephone line, whose packets are never lost.
    jitter_target_ms: u32,
    /// Times the caller's end ran dry within a reply.
    underruns: u32,
}

impl From<HearingReading> for HearingNow {
    fn from(HearingReading { packets, late, lost, recovered, concealed_ms, skipped_ms, target_ms, underruns }: HearingReading) -> Self {
        Self { packets, late, lost, recovered, concealed_ms, skipped_ms, jitter_target_ms: target_ms, underruns }
    }
}

/// 200, or 503 while draining.
#[utoipa::path(get, path = "/health", tag = "host", responses((status = 200, body = Health), (status = 503, body = Health)))]
pub async fn health(State(status): State<Arc<Status>>) -> (StatusCode, Json<Health>) {
    let sessions = &status.sessions;
    let draining = sessions.is_draining();
    let reason = sessions.outbox.health().trouble();
    let health = Health {
        status: if draining {
            "draining"
        } else if reason.is_some() {
            "degraded"
        } else {
            "ok"
        },
        reason,
        version: env!("CARGO_PKG_VERSION"),
        calls: sessions.engine.calls(),
        calls_max: sessions.engine.limit(),
        phone_number: status.phone_number.clone(),
    };
    (if draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, Json(health))
}

/// The sessions now, of every kind.
#[utoipa::path(get, path = "/sessions", tag = "host", responses((status = 200, body = SessionList)))]
pub async fn list(State(status): State<Arc<Status>>) -> Json<SessionList> {
    let sessions = status.sessions.list();
    let mut by_type = BTreeMap::new();
    for session in &sessions {
        *by_type.entry(session.r#type).or_default() += 1;
    }
    Json(SessionList { total: sessions.len(), by_type, sessions })
}

/// One session, while it lasts.
#[utoipa::path(get, path = "/sessions/{id}", tag = "host", params(("id" = String, Path)),
    responses((status = 200, body = Object), (status = 404, description = "no such session now")))]
pub async fn one(State(status): State<Arc<Status>>, Path(id): Path<String>) -> Result<Json<SessionNow>, Refusal> {
    let (session, hearing) = status.sessions.get(&id).ok_or_else(|| Refusal::unknown("sessionId", "no such session now"))?;
    Ok(Json(SessionNow { session, hearing: hearing.into() }))
}

/// Counts, gauges and histograms for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "host", responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn metrics(State(status): State<Arc<Status>>) -> Response {
    // a store that fails must not hide everything else
    let backlog = status.sessions.outbox.with(|store| store.backlog()).await.and_then(|backlog| backlog).unwrap_or_default();
    let rooms = status.rooms.as_ref().map(|rooms| rooms.counts()).unwrap_or_default();
    let Sessions { metrics, engine, headroom, agents, .. } = &*status.sessions;
    let mut text = metrics.render(&engine.meters(), headroom, &backlog, &status.twilio, &rooms, &agents.breakers());
    metrics::store(&mut text, status.sessions.outbox.health());
    text.push_str(&status.gate.render());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// WebSocket: every event as it becomes safe, a JSON text each, and what this host leaves out under too much load; a listener
/// that falls behind is told how many it missed.
#[utoipa::path(get, path = "/events", tag = "host", responses((status = 101, description = "events follow")))]
pub async fn events(State(status): State<Arc<Status>>, upgrade: WebSocketUpgrade) -> Response {
    let (mut events, mut left_out) = (status.sessions.outbox.live(), status.sessions.headroom.changes());
    upgrade.max_message_size(HEARD_BYTES_MAX).max_frame_size(HEARD_BYTES_MAX).on_upgrade(move |mut socket| async move {
        loop {
            let text = tokio::select! {
                event = events.recv() => match event {
                    Ok(event) => serde_json::to_string(&event).unwrap_or_default(),
                    Err(RecvError::Lagged(missed)) => json!({ "missed": missed }).to_string(),
                    Err(RecvError::Closed) => return,
                },
                Ok(()) = left_out.changed() => serde_json::to_string(&*left_out.borrow_and_update()).unwrap_or_default(),
                // the listener says nothing that matters; this notices that it left
                heard = socket.recv() => match heard { Some(Ok(_)) => continue, _ => return },
            };
            if !matches!(timeout(TAKEN_WITHIN, socket.send(Message::Text(text.into()))).await, Ok(Ok(()))) {
                return;
            }
        }
    })
}
