//! Sessions: someone with an app gets a room of their own, a token for it, and the agent.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::agent_config::{AgentConfig, AgentSummary};
use super::api::Api;
use super::body::{Fields, name};
use super::refusal::Refusal;
use super::rooms::{Grants, Pass, within};
use super::source::Source;

/// Who wants to talk, and with what agent.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionRequest {
    /// 1 to 128 letters, digits, `_` and `-`.
    #[serde(default)]
    #[schema(required)]
    user_identity: String,
    /// The same; one is made where none is given.
    room_name: Option<String>,
    agent_config: Option<AgentConfig>,
}

/// All that an app needs to join.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionReply {
    user_token: String,
    room_name: String,
    livekit_url: String,
    /// True: the agent is on its way, or there.
    agent_dispatched: bool,
    agent_config: AgentSummary,
}

/// A room that is to end.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndRequest {
    #[serde(default)]
    #[schema(required)]
    room_name: String,
}

/// Starts a session: makes the room, sends the agent, gives a token for the user.
#[utoipa::path(post, path = "/session", tag = "sessions", request_body = SessionRequest, responses((status = 200, body = SessionReply)))]
pub async fn start(
    State(api): State<Arc<Api>>,
    Extension(source): Extension<Source>,
    Fields(request): Fields<SessionRequest>,
) -> Result<Json<SessionReply>, Refusal> {
    name("userIdentity", &request.user_identity)?;
    let room = request.room_name.unwrap_or_else(generated);
    name("roomName", &room)?;
    let config = request.agent_config.unwrap_or_default();
    config.check()?;
    let metadata = config.metadata();
    api.may_make_room(source)?;
    within("roomName", api.rooms.create(&room)).await?;
    within("roomName", api.rooms.dispatch(&room, &metadata)).await?;
    let pass =
        Pass { name: request.user_identity.clone(), identity: request.user_identity, room: room.clone(), grants: Grants::Talk, agent_metadata: Some(metadata) };
    Ok(Json(SessionReply {
        user_token: api.token(&pass)?,
        livekit_url: api.rooms.url().to_owned(),
        room_name: room,
        agent_dispatched: true,
        agent_config: config.summary(&api.profile),
    }))
}

/// Ends a session: the room and everyone's stay in it.
#[utoipa::path(post, path = "/session/end", tag = "sessions", request_body = EndRequest,
    responses((status = 204, description = "ended"), (status = 404, description = "no such room now")))]
pub async fn end(State(api): State<Arc<Api>>, Fields(request): Fields<EndRequest>) -> Result<StatusCode, Refusal> {
    name("roomName", &request.room_name)?;
    within("roomName", api.rooms.delete(&request.room_name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Not to be guessed: who knows a room's name and has a key can join it.
fn generated() -> String {
    format!("room-{:016x}", rand::random::<u64>())
}
