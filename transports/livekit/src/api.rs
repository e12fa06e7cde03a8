//! The server's API: rooms, who is in them, which agents are sent to them, and recordings.
//!
//! Each request has a limit of time, and an error says what was asked of which server. [`DispatchOnce`] is for triggers
//! that repeat and race (webhooks, clicks): one agent per room, however often it is asked for.

mod egress;
mod once;

pub use egress::{Egress, EgressFile, EgressState, S3Bucket};
pub use once::{DispatchOnce, Dispatched};

use crate::token::{AgentDispatch, Keys};
use livekit_api::services::agent_dispatch::AgentDispatchClient;
use livekit_api::services::egress::EgressClient;
use livekit_api::services::room::{CreateRoomOptions, RoomClient, SendDataOptions};
use livekit_api::services::{ServerError, ServerErrorCode, ServiceError};
use livekit_protocol as proto;
use std::fmt;
use std::time::Duration;
use url::Url;

pub use livekit_protocol::{AgentDispatch as DispatchInfo, ParticipantInfo, Room as RoomInfo};

/// A server's API, with the keys to it.
#[derive(Debug)]
pub struct ServerApi {
    rooms: RoomClient,
    dispatches: AgentDispatchClient,
    egress: EgressClient,
    server: String,
}

/// Longest wait for an answer: a server answers within tens of ms, and a caller may be waiting.
const REQUEST_WAIT: Duration = Duration::from_secs(5);

impl ServerApi {
    /// The API of the server at `url`, `LIVEKIT_URL` as it stands (`wss://` or `https://`). Connects with the first request.
    pub fn new(url: &Url, keys: &Keys) -> Self {
        let (key, secret) = (keys.api_key.as_str(), keys.api_secret.expose());
        Self {
            rooms: RoomClient::with_api_key(url.as_str(), key, secret).with_request_timeout(REQUEST_WAIT),
            dispatches: AgentDispatchClient::with_api_key(url.as_str(), key, secret).with_request_timeout(REQUEST_WAIT),
            egress: EgressClient::with_api_key(url.as_str(), key, secret).with_request_timeout(egress::EGRESS_WAIT),
            server: shown(url),
        }
    }

    /// Makes a room, or finds it; `empty_timeout` is how long it waits for its first participant. Agents are sent to it.
    pub async fn create_room(&self, name: &str, empty_timeout: Duration, agents: &[AgentDispatch]) -> Result<RoomInfo, ApiError> {
        let empty_timeout = u32::try_from(empty_timeout.as_secs()).unwrap_or(u32::MAX);
        let options = CreateRoomOptions { empty_timeout, ..CreateRoomOptions::default() };
        let room = self.rooms.create_room(name, options).await.map_err(|error| self.error("create the room", name, error))?;
        for agent in agents {
            self.create_dispatch(name, agent).await?; // the client has no way to name them with the room
        }
        Ok(room)
    }

    /// The room of this name, if there is one now.
    pub async fn room(&self, name: &str) -> Result<Option<RoomInfo>, ApiError> {
        let mut rooms = self.rooms.list_rooms(vec![name.to_owned()]).await.map_err(|error| self.error("look for the room", name, error))?;
        Ok(rooms.pop())
    }

    /// Ends a room: everybody leaves. [`ApiFailure::NotFound`] when there is none.
    pub async fn delete_room(&self, name: &str) -> Result<(), ApiError> {
        self.rooms.delete_room(name).await.map_err(|error| self.error("delete the room", name, error))
    }

    /// Who is in a room.
    pub async fn list_participants(&self, room: &str) -> Result<Vec<ParticipantInfo>, ApiError> {
        self.rooms.list_participants(room).await.map_err(|error| self.error("list the participants of the room", room, error))
    }

    /// Puts a participant out of a room.
    pub async fn remove_participant(&self, room: &str, identity: &str) -> Result<(), ApiError> {
        self.rooms.remove_participant(room, identity).await.map_err(|error| self.error("remove a participant of the room", room, error))
    }

    /// Sends bytes to participants of a room, reliably; to all when none is named.
    pub async fn send_data(&self, room: &str, topic: &str, data: Vec<u8>, to: Vec<String>) -> Result<(), ApiError> {
        let options = SendDataOptions {
            kind: proto::data_packet::Kind::Reliable,
            destination_identities: to,
            topic: Some(topic.to_owned()),
            ..SendDataOptions::default()
        };
        self.rooms.send_data(room, data, options).await.map_err(|error| self.error("send data to the room", room, error))
    }

    /// Sends an agent to a room, which is made if it is not there. The id of the dispatch.
    pub async fn create_dispatch(&self, room: &str, agent: &AgentDispatch) -> Result<String, ApiError> {
        let request = proto::CreateAgentDispatchRequest {
            agent_name: agent.agent_name.clone(),
            room: room.to_owned(),
            metadata: agent.metadata.clone(),
            ..Default::default()
        };
        let made = self.dispatches.create_dispatch(request).await.map_err(|error| self.error("dispatch an agent to the room", room, error))?;
        Ok(made.id)
    }

    /// The agents sent to a room.
    pub async fn list_dispatch(&self, room: &str) -> Result<Vec<DispatchInfo>, ApiError> {
        self.dispatches.list_dispatch(room).await.map_err(|error| self.error("list the agents sent to the room", room, error))
    }

    /// Calls an agent back: its job is terminated.
    pub async fn delete_dispatch(&self, room: &str, dispatch_id: &str) -> Result<(), ApiError> {
        let deleted = self.dispatches.delete_dispatch(dispatch_id, room).await;
        deleted.map(drop).map_err(|error| self.error("call back an agent of the room", room, error))
    }

    fn error(&self, asked: &'static str, room: &str, error: ServiceError) -> ApiError {
        ApiError { asked, room: room.to_owned(), server: self.server.clone(), failure: ApiFailure::from(error) }
    }
}

/// A request that did not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// What was asked, e.g. `delete the room`.
    pub asked: &'static str,
    /// Which room it was about.
    pub room: String,
    /// Of which server.
    pub server: String,
    /// Why it did not work.
    pub failure: ApiFailure,
}

impl ApiError {
    /// True when the room, the participant or the dispatch is not there.
    pub fn is_not_found(&self) -> bool {
        self.failure == ApiFailure::NotFound
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {} {:?} at {}: {}", self.asked, self.room, self.server, self.failure)
    }
}

impl std::error::Error for ApiError {}

/// Why a request did not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiFailure {
    /// What it is about is not there.
    #[error("not found")]
    NotFound,
    /// The key may not do this.
    #[error("the key was refused: check LIVEKIT_API_KEY and LIVEKIT_API_SECRET")]
    Refused,
    /// The server says no.
    #[error("the server answers {code}: {message}")]
    Rejected {
        /// The server's code.
        code: String,
        /// Its words, shortened.
        message: String,
    },
    /// No connection.
    #[error("the server cannot be reached: check LIVEKIT_URL")]
    Unreachable,
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// Something else answers there, or the server refuses the key before it reads the request.
    #[error("the answer is none of LiveKit's API: check LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET")]
    NotLiveKit,
    /// No token could be made.
    #[error("no token could be signed: check LIVEKIT_API_KEY and LIVEKIT_API_SECRET")]
    NoToken,
}

impl From<ServiceError> for ApiFailure {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Twirp(ServerError::Twirp(error)) => match error.code.as_str() {
                ServerErrorCode::NOT_FOUND => Self::NotFound,
                ServerErrorCode::UNAUTHENTICATED | ServerErrorCode::PERMISSION_DENIED => Self::Refused,
                _ => Self::Rejected { code: shortened(&error.code), message: shortened(&error.msg) },
            },
            ServiceError::Twirp(ServerError::Request(error)) if error.is_timeout() => Self::TimedOut,
            ServiceError::Twirp(ServerError::Request(error)) if error.is_decode() => Self::NotLiveKit,
            ServiceError::Twirp(ServerError::Request(_) | ServerError::Url(_)) => Self::Unreachable,
            ServiceError::Twirp(ServerError::Prost(_)) => Self::NotLiveKit,
            ServiceError::Env(_) | ServiceError::AccessToken(_) => Self::NoToken,
        }
    }
}

/// Longest part of a server's own words in an error, in characters: enough for a sentence.
const WORDS_MAX: usize = 200;

fn shortened(words: &str) -> String {
    words.chars().filter(|character| !character.is_control()).take(WORDS_MAX).collect()
}

/// A server's address as it may be printed: without names, passwords and tokens that somebody put into it.
pub(crate) fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}
