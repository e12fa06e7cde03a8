//! Rooms for people: someone hosts, others join, the agent is called in or sent out, supervisors listen or step in, and
//! what is said is recorded.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::agent_config::AgentConfig;
use super::api::Api;
use super::body::{Fields, name, person};
use super::refusal::Refusal;
use super::rooms::{Grants, Kind, Pass, SupervisorMode, within};
use super::source::Source;

/// Who hosts which room.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub struct CreateRequest {
    /// 1 to 128 letters, digits, `_` and `-`; the identity likewise.
    #[schema(required)]
    room_name: String,
    #[schema(required)]
    host_identity: String,
    /// What others see; the identity where none is given.
    host_name: Option<String>,
}

/// The host's way in.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateReply {
    room_name: String,
    /// Where people join it.
    room_url: String,
    token: String,
}

/// Who joins which room.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JoinRequest {
    #[schema(required)]
    room_name: String,
    #[schema(required)]
    participant_identity: String,
    /// What others see; the identity where none is given.
    participant_name: Option<String>,
}

/// The participant's way in.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JoinReply {
    token: String,
    agent_present: bool,
}

/// The agent in or out.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentRequest {
    #[schema(required, value_type = bool)]
    enable: Option<bool>,
    agent_config: Option<AgentConfig>,
}

/// Recording on or off.
#[derive(Deserialize, ToSchema)]
pub struct RecordingRequest {
    #[schema(required, value_type = bool)]
    enable: Option<bool>,
}

/// What has been switched.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Switched {
    room_name: String,
    enabled: bool,
}

/// Who supervises, and how.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct SupervisorRequest {
    /// Someone in the room.
    #[serde(default)]
    #[schema(required)]
    identity: String,
    #[schema(required, value_type = SupervisorMode)]
    mode: Option<SupervisorMode>,
}

/// Makes a room; its host may administer it.
#[utoipa::path(post, path = "/room/create", tag = "rooms", request_body = CreateRequest, responses((status = 200, body = CreateReply)))]
pub async fn create(
    State(api): State<Arc<Api>>,
    Extension(source): Extension<Source>,
    Fields(request): Fields<CreateRequest>,
) -> Result<Json<CreateReply>, Refusal> {
    name("roomName", &request.room_name)?;
    name("hostIdentity", &request.host_identity)?;
    let host_name = person("hostName", request.host_name, &request.host_identity)?;
    api.may_make_room(source)?;
    within("roomName", api.rooms.create(&request.room_name)).await?;
    let pass = Pass { identity: request.host_identity, name: host_name, room: request.room_name.clone(), grants: Grants::Host, agent_metadata: None };
    Ok(Json(CreateReply { token: api.token(&pass)?, room_url: api.room_url(&request.room_name), room_name: request.room_name }))
}

/// A token for a room that is there.
#[utoipa::path(post, path = "/room/join", tag = "rooms", request_body = JoinRequest,
    responses((status = 200, body = JoinReply), (status = 404, description = "no such room now")))]
pub async fn join(State(api): State<Arc<Api>>, Fields(request): Fields<JoinRequest>) -> Result<Json<JoinReply>, Refusal> {
    name("roomName", &request.room_name)?;
    name("participantIdentity", &request.participant_identity)?;
    let participant_name = person("participantName", request.participant_name, &request.participant_identity)?;
    let participants = within("roomName", api.rooms.participants(&request.room_name)).await?;
    // a second holder of the agent's identity would throw it out of the room
    if participants.iter().any(|other| other.kind != Kind::Standard && other.identity == request.participant_identity) {
        return Err(Refusal::field("participantIdentity", "is the agent's or a telephone's in this room"));
    }
    let agent_present = within("roomName", api.rooms.agent_present(&request.room_name)).await?;
    let pass = Pass { identity: request.participant_identity, name: participant_name, room: request.room_name, grants: Grants::Talk, agent_metadata: None };
    Ok(Json(JoinReply { token: api.token(&pass)?, agent_present }))
}

/// Sends the agent to a room, or makes it leave.
#[utoipa::path(post, path = "/room/{name}/agent", tag = "rooms", params(("name" = String, Path)), request_body = AgentRequest,
    responses((status = 200, body = Switched), (status = 404, description = "no such room now")))]
pub async fn agent(
    State(api): State<Arc<Api>>,
    Path(room): Path<String>,
    Extension(source): Extension<Source>,
    Fields(request): Fields<AgentRequest>,
) -> Result<Json<Switched>, Refusal> {
    name("name", &room)?;
    let enable = given("enable", request.enable)?;
    let config = request.agent_config.unwrap_or_default();
    config.check()?;
    // asked first: sending the agent to a room that is not there would make one
    let is_present = within("name", api.rooms.agent_present(&room)).await?;
    match (enable, is_present) {
        (true, false) => {
            api.may_make_room(source)?;
            within("name", api.rooms.dispatch(&room, &config.metadata())).await?;
        }
        (false, _) => within("name", api.rooms.remove_agent(&room)).await?,
        (true, true) => {}
    }
    Ok(Json(Switched { room_name: room, enabled: enable }))
}

/// Starts or stops recording a room.
#[utoipa::path(post, path = "/room/{name}/recording", tag = "rooms", params(("name" = String, Path)), request_body = RecordingRequest,
    responses((status = 200, body = Switched), (status = 404, description = "no such room now")))]
pub async fn recording(State(api): State<Arc<Api>>, Path(room): Path<String>, Fields(request): Fields<RecordingRequest>) -> Result<Json<Switched>, Refusal> {
    name("name", &room)?;
    let enable = given("enable", request.enable)?;
    within("name", api.rooms.record(&room, enable)).await?;
    Ok(Json(Switched { room_name: room, enabled: enable }))
}

/// Lets someone in a bridged call listen, whisper to the agent, speak to the caller, or take the agent's place.
#[utoipa::path(post, path = "/room/{name}/supervisor", tag = "rooms", params(("name" = String, Path)), request_body = SupervisorRequest,
    responses((status = 200, body = SupervisorRequest), (status = 404, description = "no such room now"), (status = 409, description = "nothing to supervise there")))]
pub async fn supervisor(
    State(api): State<Arc<Api>>,
    Path(room): Path<String>,
    Fields(request): Fields<SupervisorRequest>,
) -> Result<Json<SupervisorRequest>, Refusal> {
    name("name", &room)?;
    name("identity", &request.identity)?;
    let mode = given("mode", request.mode)?;
    within("name", api.rooms.supervise(&room, &request.identity, mode)).await?;
    Ok(Json(request))
}

fn given<T>(field: &str, value: Option<T>) -> Result<T, Refusal> {
    value.ok_or_else(|| Refusal::field(field, "is missing"))
}
