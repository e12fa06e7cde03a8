//! What the API asks of LiveKit, in its own words: the server's API, tokens and webhooks stand behind this one trait, and
//! a double of it in the tests. Every call is bounded in time by whoever asks.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::refusal::Refusal;

/// The rooms of one LiveKit server, and our agent in them.
#[async_trait]
pub trait Rooms: Send + Sync + 'static {
    /// Where clients connect.
    fn url(&self) -> &str;
    /// A token that lets its holder into a room.
    fn token(&self, pass: &Pass) -> Result<String, RoomsError>;
    /// Makes a room; one that is there already is as good.
    async fn create(&self, room: &str) -> Result<(), RoomsError>;
    /// Ends a room and everyone's stay in it.
    async fn delete(&self, room: &str) -> Result<(), RoomsError>;
    /// Who is in a room.
    async fn participants(&self, room: &str) -> Result<Vec<Participant>, RoomsError>;
    /// Sends the agent to a room unless it is there or on its way, however often and from wherever this is asked.
    async fn dispatch(&self, room: &str, metadata: &str) -> Result<Dispatched, RoomsError>;
    /// Makes the agent leave; it may be sent again.
    async fn remove_agent(&self, room: &str) -> Result<(), RoomsError>;
    /// Changes how a supervisor takes part in a bridged call.
    async fn supervise(&self, room: &str, identity: &str, mode: SupervisorMode) -> Result<(), RoomsError>;
    /// Starts or stops recording.
    async fn record(&self, room: &str, enable: bool) -> Result<(), RoomsError>;
    /// Verifies a webhook by its `Authorization` and reads it. Room endings reach whatever remembers rooms through here.
    fn webhook(&self, authorization: &str, body: &[u8]) -> Result<WebhookEvent, Refused>;

    /// Whether an agent is in a room.
    async fn agent_present(&self, room: &str) -> Result<bool, RoomsError> {
        Ok(self.participants(room).await?.iter().any(|participant| participant.kind == Kind::Agent))
    }
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    pub identity: String,
    /// What others see.
    pub name: String,
    pub room: String,
    pub grants: Grants,
    /// Brings the agent with this metadata if the room closed before its holder came, and their coming makes it anew.
    pub agent_metadata: Option<String>,
}

/// What the holder of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grants {
    /// Speak, hear, send and receive data.
    Talk,
    /// The same, and administer the room.
    Host,
}

/// Whether the agent had to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispatched {
    Now,
    /// It had been.
    Already,
}

/// Someone in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    pub sid: String,
    pub identity: String,
    pub kind: Kind,
    pub attributes: BTreeMap<String, String>,
}

/// What someone in a room is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A person with an app.
    Standard,
    /// A telephone.
    Sip,
    Agent,
    /// Recorders, streams and what is yet to come.
    Other,
}

/// How a supervisor takes part in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SupervisorMode {
    /// Hears both, is heard by none.
    Listen,
    /// Their words reach the agent's prompt only.
    Whisper,
    /// Speaks to the caller.
    Barge,
    /// The agent leaves the floor.
    Takeover,
}

impl SupervisorMode {
    /// The mode of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "listen" => Self::Listen,
            "whisper" => Self::Whisper,
            "barge" => Self::Barge,
            "takeover" => Self::Takeover,
            _ => return None,
        })
    }
}

/// What a webhook tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookEvent {
    pub room: String,
    /// ms since the Unix epoch.
    pub at_unix_ms: u64,
    pub happened: Happened,
}

/// What has happened in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    Joined(Participant),
    Left(Participant),
    Finished,
    /// Nothing that matters here.
    Other,
}

/// Why the server did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomsError {
    /// No such room.
    NotFound,
    /// It cannot be done in this room as it is now.
    Conflict(String),
    /// The server cannot be reached, or failed.
    Unavailable(String),
}

/// A webhook that is not believed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

/// How long the server may take: more than a room's making on a busy server, less than clients' patience.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// Waits for the server; its refusals name the field that holds the room's name.
pub async fn within<T>(field: &str, answer: impl Future<Output = Result<T, RoomsError>>) -> Result<T, Refusal> {
    match tokio::time::timeout(ANSWERS_WITHIN, answer).await {
        Ok(answer) => answer.map_err(|error| error.refusal(field)),
        Err(_) => Err(Refusal::of(StatusCode::GATEWAY_TIMEOUT, format!("LiveKit did not answer within {} s", ANSWERS_WITHIN.as_secs()))),
    }
}

impl RoomsError {
    /// As clients are told.
    pub fn refusal(self, field: &str) -> Refusal {
        match self {
            Self::NotFound => Refusal::unknown(field, "no such room now"),
            Self::Conflict(reason) => Refusal::of(StatusCode::CONFLICT, reason).at(field),
            Self::Unavailable(reason) => Refusal::of(StatusCode::BAD_GATEWAY, format!("LiveKit: {reason}")),
        }
    }
}
