//! Telephone callers in rooms. LiveKit tells by webhook who comes and goes: it is answered at once, and the work comes
//! after. A telephone that joins gets the agent; whether webhooks repeat or race, once per room. What is to be done at a
//! time is bounded: beyond that a webhook is answered 503, and the server sends it again.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use tokio::sync::OwnedSemaphorePermit;

use super::api::Api;
use super::body;
use super::calls::Call;
use super::refusal::Refusal;
use super::rooms::{Happened, Kind, Participant, within};

/// Callers that wait for their agent at a time: far more than join in the few ms that one takes; an outage fills it.
pub const WAITING_MAX: usize = 256;
/// Longest webhook, in bytes: rooms and participants may carry metadata of 64 KiB each, and tracks.
pub const WEBHOOK_BYTES_MAX: usize = 1_024 * 1_024;
/// Tries to bring the agent to a caller, who hears silence meanwhile.
const TRIES_MAX: u32 = 4;
/// Pause before the second try; each later one is four times as long: 0.25, 1 and 4 s.
const PAUSE: Duration = Duration::from_millis(250);

/// What LiveKit has to tell; believed by the signature in `Authorization`.
#[utoipa::path(post, path = "/telephony/livekit-webhook", tag = "telephony",
    request_body(content = String, content_type = "application/webhook+json"),
    responses((status = 200, description = "taken"), (status = 401, description = "not LiveKit's"), (status = 503, description = "too many at once: send it again")))]
pub async fn webhook(State(api): State<Arc<Api>>, request: Request) -> Result<StatusCode, Refusal> {
    api.telephony_is_on()?;
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let body = body::read(request, &()).await?;
    // before it is read: what was read once is no news when it is sent again
    let place = Arc::clone(&api.waiting)
        .try_acquire_owned()
        .map_err(|_| Refusal::of(StatusCode::SERVICE_UNAVAILABLE, "too many callers wait for their agent: send this again").retry_after_s(1))?;
    let event = api.rooms.webhook(&authorization, &body).map_err(|refused| {
        tracing::warn!(reason = refused.0, "a webhook is not believed");
        Refusal::of(StatusCode::UNAUTHORIZED, refused.0).at("Authorization")
    })?;
    match event.happened {
        Happened::Joined(participant) if api.is_caller(&participant) => {
            api.calls.joined(&event.room, &participant, event.at_unix_ms);
            if !api.is_bridged(&event.room) {
                bring_agent(api, place, event.room, participant);
            }
        }
        Happened::Left(participant) => api.calls.left(&participant, event.at_unix_ms),
        Happened::Finished => api.calls.finished(&event.room, event.at_unix_ms),
        Happened::Joined(_) | Happened::Other => {}
    }
    Ok(StatusCode::OK)
}

/// A call by the telephone network's id, or the participant's; not in production.
#[utoipa::path(get, path = "/telephony/calls/{callId}", tag = "telephony", params(("callId" = String, Path)),
    responses((status = 200, body = Call), (status = 404, description = "no such call is remembered, or this is production")))]
pub async fn call(State(api): State<Arc<Api>>, Path(call_id): Path<String>) -> Result<Json<Call>, Refusal> {
    api.calls_are_shown()?;
    api.calls.find(|call| call.is(&call_id)).map(Json).ok_or_else(|| Refusal::unknown("callId", "no such call is remembered"))
}

/// The newest call in a room; not in production.
#[utoipa::path(get, path = "/telephony/calls/by-room/{roomName}", tag = "telephony", params(("roomName" = String, Path)),
    responses((status = 200, body = Call), (status = 404, description = "no call in this room is remembered, or this is production")))]
pub async fn call_by_room(State(api): State<Arc<Api>>, Path(room): Path<String>) -> Result<Json<Call>, Refusal> {
    api.calls_are_shown()?;
    api.calls.find(|call| call.is_in(&room)).map(Json).ok_or_else(|| Refusal::unknown("roomName", "no call in this room is remembered"))
}

fn bring_agent(api: Arc<Api>, place: OwnedSemaphorePermit, room: String, caller: Participant) {
    tokio::spawn(async move {
        let _place = place;
        let mut pause = PAUSE;
        for try_number in 1..=TRIES_MAX {
            match dispatch(&api, &room, &caller).await {
                Ok(()) => return,
                Err(reason) => tracing::warn!(room, caller = caller.identity, try_number, ?reason, "the agent cannot be sent"),
            }
            if try_number < TRIES_MAX {
                tokio::time::sleep(pause).await;
                pause *= 4;
            }
        }
        tracing::error!(room, caller = caller.identity, "a caller gets no agent");
    });
}

/// Sends the agent, unless the caller has gone: a webhook may be late, and sending would make the room anew.
async fn dispatch(api: &Api, room: &str, caller: &Participant) -> Result<(), Refusal> {
    let present = match within("room", api.rooms.participants(room)).await {
        Err(refusal) if refusal.is_unknown() => Vec::new(),
        present => present?,
    };
    if !present.iter().any(|participant| participant.identity == caller.identity) {
        tracing::info!(room, caller = caller.identity, "the caller has gone before the agent was sent");
        return Ok(());
    }
    let dispatched = within("room", api.rooms.dispatch(room, "{}")).await?;
    tracing::info!(room, caller = caller.identity, ?dispatched, "a telephone caller meets the agent");
    Ok(())
}

impl Api {
    fn is_caller(&self, participant: &Participant) -> bool {
        let prefix = self.telephony.sip_identity_prefix.as_str();
        match participant.kind {
            Kind::Sip => true,
            Kind::Standard => self.telephony.dispatch_on_any_participant_join || (!prefix.is_empty() && participant.identity.starts_with(prefix)),
            Kind::Agent | Kind::Other => false,
        }
    }

    fn telephony_is_on(&self) -> Result<(), Refusal> {
        if self.telephony.enabled { Ok(()) } else { Err(Refusal::of(StatusCode::NOT_FOUND, "telephony is off here (TELEPHONY_ENABLED)")) }
    }

    fn calls_are_shown(&self) -> Result<(), Refusal> {
        self.telephony_is_on()?;
        if self.is_production { Err(Refusal::of(StatusCode::NOT_FOUND, "not in production (http.production)")) } else { Ok(()) }
    }
}
