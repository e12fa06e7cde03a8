//! Access tokens: who may do what in which room, signed with the server's key.
//!
//! A participant's token names its room, its identity and what it may do there; it may also name agents, which the server
//! then dispatches to the room. A worker's token opens `/agent` and nothing else.

use livekit_protocol as proto;
use livekit_token::{AccessToken, AccessTokenError, VideoGrants};
use std::collections::BTreeMap;
use std::time::Duration;

pub use voiced_secret::Secret;

/// The server's key with its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Names the key, e.g. `APIexample123`; no secret.
    pub api_key: String,
    /// Signs with it.
    pub api_secret: Secret,
}

impl Keys {
    /// Takes a key and its secret; white space around them (a newline from a file) is no part of them.
    pub fn new(api_key: impl AsRef<str>, api_secret: impl Into<Secret>) -> Self {
        Self { api_key: api_key.as_ref().trim().to_owned(), api_secret: api_secret.into() }
    }

    /// A token with which `participant` may join its room.
    pub fn participant_token(&self, participant: &ParticipantToken) -> Result<Secret, TokenError> {
        let grants = VideoGrants {
            room_join: true,
            room: participant.room.clone(),
            room_admin: participant.grants.room_admin,
            can_publish: Some(participant.grants.publish),
            can_subscribe: Some(participant.grants.subscribe),
            can_publish_data: Some(participant.grants.publish_data),
            can_update_own_metadata: Some(participant.grants.update_own_metadata),
            hidden: participant.grants.hidden,
            agent: participant.kind == TokenKind::Agent,
            ..VideoGrants::default()
        };
        let mut token = self
            .token(participant.ttl, grants)
            .with_identity(&participant.identity)
            .with_name(&participant.name)
            .with_kind(participant.kind.claim())
            .with_metadata(&participant.metadata)
            .with_attributes(participant.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        if !participant.agents.is_empty() {
            let agents = participant.agents.iter().map(AgentDispatch::to_room_agent).collect();
            token = token.with_room_config(proto::RoomConfiguration { agents, ..Default::default() });
        }
        sign(token)
    }

    /// A token with which a worker may register.
    pub fn worker_token(&self) -> Result<Secret, TokenError> {
        sign(self.token(WORKER_TTL, VideoGrants { agent: true, ..VideoGrants::default() }))
    }

    fn token(&self, ttl: Duration, grants: VideoGrants) -> AccessToken {
        AccessToken::with_api_key(&self.api_key, self.api_secret.expose()).with_ttl(ttl.min(TTL_MAX)).with_grants(grants)
    }
}

/// How long a worker's token is good for: each connection gets its own, so this only covers clocks that differ.
const WORKER_TTL: Duration = Duration::from_mins(10);
/// Longest life of any token: keys are changed more often than this.
const TTL_MAX: Duration = Duration::from_hours(30 * 24);

/// What a participant's token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParticipantToken {
    /// Who it is, once per room.
    pub identity: String,
    /// What people see.
    pub name: String,
    /// The only room it opens.
    pub room: String,
    /// What sort of participant it is.
    pub kind: TokenKind,
    /// What it may do there.
    pub grants: Grants,
    /// Shown to all participants as it stands.
    pub attributes: BTreeMap<String, String>,
    /// Shown to all participants as it stands.
    pub metadata: String,
    /// How long it may be used to join; a participant that is in stays in.
    pub ttl: Duration,
    /// Agents that the server dispatches when this token creates the room.
    pub agents: Vec<AgentDispatch>,
}

impl ParticipantToken {
    /// A person's token: may speak, hear and write, for six hours.
    pub fn new(room: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            identity: identity.into(),
            name: String::new(),
            room: room.into(),
            kind: TokenKind::Standard,
            grants: Grants::default(),
            attributes: BTreeMap::new(),
            metadata: String::new(),
            ttl: livekit_token::DEFAULT_TTL,
            agents: Vec::new(),
        }
    }
}

/// What sort of participant a token makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenKind {
    /// A person.
    #[default]
    Standard,
    /// A telephone caller.
    Sip,
    /// An agent.
    Agent,
}

impl TokenKind {
    /// As the token's `kind` claim has it; none is a person.
    fn claim(self) -> &'static str {
        match self {
            Self::Standard => "",
            Self::Sip => "sip",
            Self::Agent => "agent",
        }
    }
}

/// What a participant may do in its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grants {
    /// Publish tracks.
    pub publish: bool,
    /// Hear and see others.
    pub subscribe: bool,
    /// Send data: text streams, RPC.
    pub publish_data: bool,
    /// Change its own name, metadata and attributes.
    pub update_own_metadata: bool,
    /// Remove and mute others.
    pub room_admin: bool,
    /// Not shown to others.
    pub hidden: bool,
}

impl Default for Grants {
    fn default() -> Self {
        Self { publish: true, subscribe: true, publish_data: true, update_own_metadata: true, room_admin: false, hidden: false }
    }
}

/// An agent to send to a room, and what it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentDispatch {
    /// The name that its workers register with.
    pub agent_name: String,
    /// What the job carries.
    pub metadata: String,
}

impl AgentDispatch {
    fn to_room_agent(&self) -> proto::RoomAgentDispatch {
        proto::RoomAgentDispatch { agent_name: self.agent_name.clone(), metadata: self.metadata.clone(), ..Default::default() }
    }
}

/// A token that cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No key or no secret.
    #[error("LIVEKIT_API_KEY and LIVEKIT_API_SECRET are both needed to sign a token")]
    NoKeys,
    /// Nobody or nowhere.
    #[error("a participant's token needs an identity and a room")]
    Incomplete,
    /// The claims are no JSON.
    #[error("the token could not be encoded")]
    Encoding,
}

fn sign(token: AccessToken) -> Result<Secret, TokenError> {
    token.to_jwt().map(Secret::new).map_err(|error| match error {
        AccessTokenError::InvalidKeys | AccessTokenError::InvalidEnv(_) => TokenError::NoKeys,
        AccessTokenError::InvalidClaims(_) => TokenError::Incomplete,
        AccessTokenError::Encoding(_) => TokenError::Encoding,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use livekit_token::TokenVerifier;

    const SECRET: &str = "made-up-secret-that-is-32-bytes-long!!";

    fn keys() -> Keys {
        Keys::new("APIexample123", format!("{SECRET}\n"))
    }

    fn claims(token: &Secret) -> livekit_token::Claims {
        TokenVerifier::with_api_key("APIexample123", SECRET).verify(token.expose()).unwrap()
    }

    #[test]
    fn a_participants_token_says_who_where_and_which_agent() {
        let mut caller = ParticipantToken::new("room-1", "sip_+551199");
        caller.name = "Ana".to_owned();
        caller.kind = TokenKind::Sip;
        caller.grants.subscribe = false;
        caller.attributes.insert("sip.phoneNumber".to_owned(), "+551199".to_owned());
        caller.agents.push(AgentDispatch { agent_name: "voiced".to_owned(), metadata: "{}".to_owned() });
        let claims = claims(&keys().participant_token(&caller).unwrap());
        assert_eq!((claims.sub.as_str(), claims.name.as_str(), claims.kind.as_str()), ("sip_+551199", "Ana", "sip"));
        assert_eq!((claims.video.room.as_str(), claims.video.room_join, claims.video.room_admin), ("room-1", true, false));
        assert_eq!((claims.video.can_publish(), claims.video.can_subscribe()), (true, false));
        assert_eq!(claims.attributes["sip.phoneNumber"], "+551199");
        assert_eq!(claims.room_config.unwrap().agents[0].agent_name, "voiced");
    }

    #[test]
    fn a_workers_token_opens_no_room() {
        let claims = claims(&keys().worker_token().unwrap());
        assert!(claims.video.agent && !claims.video.room_join);
    }

    #[test]
    fn an_incomplete_token_is_refused() {
        assert_eq!(keys().participant_token(&ParticipantToken::new("room", "")), Err(TokenError::Incomplete));
        assert_eq!(Keys::new("", "").worker_token(), Err(TokenError::NoKeys));
    }

    #[test]
    fn keys_and_tokens_cannot_be_printed() {
        let printed = format!("{:?} {:?}", keys(), keys().worker_token());
        assert!(printed.contains("APIexample123") && !printed.contains("made-up") && !printed.contains("eyJ"), "{printed}");
    }
}
