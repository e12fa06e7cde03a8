//! Webhooks: what the server tells of its rooms.
//!
//! A webhook is JSON with a token in `Authorization`, raw, that the server signed with its key. The token holds for five
//! minutes and names the SHA-256 of the body, so that neither can be altered alone. Servers send an event again when our
//! answer was lost; the second is known by its id. Only what the engine acts on is read. The generated protocol types are
//! not used here: they refuse the whole event for one name of a newer server.

use crate::token::Keys;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use livekit_token::TokenVerifier;
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

pub use crate::room::ParticipantKind;

/// The content type of webhooks.
pub const WEBHOOK_CONTENT_TYPE: &str = "application/webhook+json";
/// Longest body, in bytes: an event with its participant's metadata and attributes (64 KiB each, as servers allow) and
/// room for growth.
pub const WEBHOOK_BYTES_MAX: usize = 1024 * 1024;

/// Verifies and reads webhooks, and knows those that come again.
#[derive(Debug)]
pub struct WebhookReceiver {
    api_key: String,
    verifier: TokenVerifier,
    seen: Mutex<Seen>,
}

/// What a webhook that holds brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// Something that we did not know.
    News(Box<WebhookEvent>),
    /// An event that came before.
    Again,
}

/// Why a webhook is not believed or not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// No token.
    #[error("the Authorization header is missing")]
    Unsigned,
    /// Not our key's signature, or out of its time.
    #[error("the token in Authorization is not signed with this key, or has expired")]
    Forged,
    /// Signed, but for another body.
    #[error("the body is not the one that was signed")]
    Altered,
    /// Longer than any event.
    #[error("the body is longer than {WEBHOOK_BYTES_MAX} bytes")]
    TooLong,
    /// Signed, but no event.
    #[error("the body is no LiveKit event")]
    Malformed,
}

impl WebhookReceiver {
    /// Believes what is signed with these keys: those of the server's `webhook.api_key`.
    pub fn new(keys: &Keys) -> Self {
        let verifier = TokenVerifier::with_api_key(&keys.api_key, keys.api_secret.expose());
        Self { api_key: keys.api_key.clone(), verifier, seen: Mutex::default() }
    }

    /// Verifies `body`, exactly as it came, against the `Authorization` header, and reads it.
    pub fn receive(&self, authorization: Option<&str>, body: &[u8]) -> Result<Received, WebhookError> {
        if body.len() > WEBHOOK_BYTES_MAX {
            return Err(WebhookError::TooLong);
        }
        self.verify(authorization.unwrap_or_default(), body)?;
        let event = read(body)?;
        let is_new = self.seen.lock().unwrap_or_else(PoisonError::into_inner).is_new(&event.id);
        Ok(if is_new { Received::News(Box::new(event)) } else { Received::Again })
    }

    /// The token library allows a minute for clocks that differ.
    fn verify(&self, token: &str, body: &[u8]) -> Result<(), WebhookError> {
        let token = token.trim();
        if token.is_empty() {
            return Err(WebhookError::Unsigned);
        }
        let token = token.strip_prefix("Bearer ").unwrap_or(token); // as some proxies and older servers have it
        let claims = self.verifier.verify(token).map_err(|_| WebhookError::Forged)?;
        if claims.iss != self.api_key || claims.sha256.is_empty() {
            return Err(WebhookError::Forged); // some other token of this key, such as a participant's
        }
        let signed = STANDARD.decode(&claims.sha256).map_err(|_| WebhookError::Altered)?;
        if signed == Sha256::digest(body)[..] { Ok(()) } else { Err(WebhookError::Altered) }
    }
}

/// Reads an event that is believed.
pub(crate) fn read(body: &[u8]) -> Result<WebhookEvent, WebhookError> {
    serde_json::from_slice::<WireEvent>(body).map(WebhookEvent::from).map_err(|_| WebhookError::Malformed)
}

/// What the server tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookEvent {
    /// The server's name of this event; the same when it is sent again.
    pub id: String,
    /// What has happened.
    pub kind: WebhookKind,
    /// When, in seconds since the Unix epoch.
    pub created_at: i64,
    /// Where.
    pub room: Option<WebhookRoom>,
    /// To whom.
    pub participant: Option<WebhookParticipant>,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookKind {
    /// A room was made.
    RoomStarted,
    /// A room is gone.
    RoomFinished,
    /// A participant is in and connected.
    ParticipantJoined,
    /// A participant has gone.
    ParticipantLeft,
    /// A participant never got connected.
    ParticipantConnectionAborted,
    /// A track can be heard or seen.
    TrackPublished,
    /// A track is gone.
    TrackUnpublished,
    /// Something else, under the server's name.
    Other(String),
}

/// A room, as a webhook names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct WebhookRoom {
    /// The server's name of this life of the room.
    pub sid: String,
    /// Our name of the room.
    pub name: String,
}

/// A participant, as a webhook names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct WebhookParticipant {
    /// The server's name of this stay.
    pub sid: String,
    /// Who it is, as its token says.
    pub identity: String,
    /// What people see.
    pub name: String,
    /// What sort of participant it is.
    #[serde(deserialize_with = "kind")]
    pub kind: ParticipantKind,
    /// E.g. `sip.phoneNumber`.
    pub attributes: BTreeMap<String, String>,
}

/// The JSON of an event; what is not named here is passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEvent {
    event: String,
    #[serde(default)]
    id: String,
    #[serde(default, deserialize_with = "number")]
    created_at: i64,
    #[serde(default)]
    room: Option<WebhookRoom>,
    #[serde(default)]
    participant: Option<WebhookParticipant>,
}

impl From<WireEvent> for WebhookEvent {
    fn from(wire: WireEvent) -> Self {
        let kind = match wire.event.as_str() {
            "room_started" => WebhookKind::RoomStarted,
            "room_finished" => WebhookKind::RoomFinished,
            "participant_joined" => WebhookKind::ParticipantJoined,
            "participant_left" => WebhookKind::ParticipantLeft,
            "participant_connection_aborted" => WebhookKind::ParticipantConnectionAborted,
            "track_published" => WebhookKind::TrackPublished,
            "track_unpublished" => WebhookKind::TrackUnpublished,
            _ => WebhookKind::Other(wire.event),
        };
        Self { id: wire.id, kind, created_at: wire.created_at, room: wire.room, participant: wire.participant }
    }
}

/// 64-bit numbers and enums come as text or as numbers, as the sender's JSON library likes.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(i64),
    Text(String),
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Ok(match NumberOrText::deserialize(deserializer)? {
        NumberOrText::Number(number) => number,
        NumberOrText::Text(text) => text.parse().map_err(serde::de::Error::custom)?,
    })
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ParticipantKind, D::Error> {
    Ok(match NumberOrText::deserialize(deserializer)? {
        NumberOrText::Number(number) => ParticipantKind::from_number(number),
        NumberOrText::Text(name) => ParticipantKind::from_name(&name),
    })
}

/// The ids of the last events.
#[derive(Debug, Default)]
struct Seen {
    order: VecDeque<String>,
    ids: HashSet<String>,
}

/// Events remembered: a server gives up on a webhook within a minute, in which a full host sees fewer.
const SEEN_MAX: usize = 4_096;
/// Longest id remembered, in bytes; servers' have 23. A longer one is always news.
const ID_BYTES_MAX: usize = 128;

impl Seen {
    /// An event without an id cannot be known again.
    fn is_new(&mut self, id: &str) -> bool {
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return true;
        }
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use livekit_token::{AccessToken, VideoGrants};
    use std::time::Duration;

    const SECRET: &str = "made-up-secret-that-is-32-bytes-long!!";
    const JOINED: &str = r#"{"event":"participant_joined","id":"EV_1","createdAt":"1790000000","numDropped":0,"newField":{"a":1},
        "room":{"sid":"RM_1","name":"call-1","creationTimeMs":"1790000000000","enabledCodecs":[]},
        "participant":{"sid":"PA_1","identity":"sip_+551199","kind":"SIP","attributes":{"sip.phoneNumber":"+551199"},"state":"NEW_STATE"}}"#;

    fn receiver() -> WebhookReceiver {
        WebhookReceiver::new(&Keys::new("devkey", SECRET))
    }

    fn signed(key: &str, secret: &str, body: &str, ttl: Duration) -> String {
        let sum = STANDARD.encode(Sha256::digest(body.as_bytes()));
        AccessToken::with_api_key(key, secret).with_ttl(ttl).with_sha256(&sum).to_jwt().unwrap()
    }

    fn news(body: &str) -> WebhookEvent {
        match receiver().receive(Some(&signed("devkey", SECRET, body, Duration::from_mins(5))), body.as_bytes()) {
            Ok(Received::News(event)) => *event,
            other => panic!("{other:?} for {body}"),
        }
    }

    #[test]
    fn an_event_is_read_past_fields_and_names_of_a_newer_server() {
        let event = news(JOINED);
        assert_eq!((event.kind, event.id.as_str(), event.created_at), (WebhookKind::ParticipantJoined, "EV_1", 1_790_000_000));
        assert_eq!(event.room.unwrap(), WebhookRoom { sid: "RM_1".to_owned(), name: "call-1".to_owned() });
        let participant = event.participant.unwrap();
        assert_eq!((participant.kind, participant.attributes["sip.phoneNumber"].as_str()), (ParticipantKind::Sip, "+551199"));
        let kind = |body| news(body).participant.unwrap().kind;
        assert_eq!(kind(r#"{"event":"participant_left","participant":{"kind":3}}"#), ParticipantKind::Sip);
        assert_eq!(kind(r#"{"event":"participant_left","participant":{"kind":"HOLOGRAM"}}"#), ParticipantKind::Other);
        assert_eq!(kind(r#"{"event":"participant_left","participant":{}}"#), ParticipantKind::Standard);
        assert_eq!(news(r#"{"event":"moon_rose","createdAt":5}"#).kind, WebhookKind::Other("moon_rose".to_owned()));
    }

    #[test]
    fn only_this_body_signed_with_this_key_in_its_time_is_believed() {
        let receiver = receiver();
        let mins = Duration::from_mins;
        let take = |token: Option<&str>, body: &str| receiver.receive(token, body.as_bytes());
        let good = signed("devkey", SECRET, JOINED, mins(5));
        assert_eq!(take(Some(&good), &JOINED.replace("SIP", "SIQ")), Err(WebhookError::Altered));
        assert_eq!(take(Some(&signed("devkey", "another secret", JOINED, mins(5))), JOINED), Err(WebhookError::Forged));
        assert_eq!(take(Some(&signed("otherkey", SECRET, JOINED, mins(5))), JOINED), Err(WebhookError::Forged));
        let participant = AccessToken::with_api_key("devkey", SECRET).with_grants(VideoGrants::default()).to_jwt().unwrap();
        assert_eq!(take(Some(&participant), JOINED), Err(WebhookError::Forged));
        assert_eq!(take(Some(&format!("{good}x")), JOINED), Err(WebhookError::Forged));
        assert_eq!(take(None, JOINED), Err(WebhookError::Unsigned));
        assert_eq!(take(Some(&signed("devkey", SECRET, "[]", mins(5))), "[]"), Err(WebhookError::Malformed));
        assert_eq!(receiver.receive(Some(&good), &vec![b' '; WEBHOOK_BYTES_MAX + 1]), Err(WebhookError::TooLong));
        assert!(matches!(take(Some(&good), JOINED), Ok(Received::News(_))));
    }

    #[test]
    fn an_event_that_comes_again_is_no_news() {
        let receiver = receiver();
        let token = signed("devkey", SECRET, JOINED, Duration::from_mins(5));
        assert!(matches!(receiver.receive(Some(&token), JOINED.as_bytes()), Ok(Received::News(_))));
        assert_eq!(receiver.receive(Some(&token), JOINED.as_bytes()), Ok(Received::Again));
        let mut seen = Seen::default();
        for event in 0..=SEEN_MAX {
            assert!(seen.is_new(&event.to_string()));
        }
        assert_eq!((seen.order.len(), seen.ids.len()), (SEEN_MAX, SEEN_MAX));
        assert!(seen.is_new("0") && !seen.is_new("100"));
    }
}
