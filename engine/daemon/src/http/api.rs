//! What the API's endpoints share.

use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use tokio::sync::Semaphore;
use voiced_config::{Agent, Settings, Telephony};

use super::calls::CallBook;
use super::rate::Rate;
use super::refusal::Refusal;
use super::rooms::{Pass, Rooms};
use super::source::Source;
use super::telephony;

/// Rooms, and the rules for them.
pub struct Api {
    pub rooms: Arc<dyn Rooms>,
    /// The configured agent.
    pub profile: Agent,
    pub telephony: Telephony,
    pub is_production: bool,
    pub calls: CallBook,
    /// Places for callers that wait for their agent.
    pub waiting: Arc<Semaphore>,
    rate: Rate,
    room_url: String,
    /// Where Twilio's callers are bridged to, if anywhere.
    bridge_room_prefix: Option<String>,
}

impl Api {
    /// As configured.
    pub fn new(settings: &Settings, rooms: Arc<dyn Rooms>) -> Self {
        let livekit = &settings.livekit;
        Self {
            rooms,
            profile: settings.agent.clone(),
            telephony: settings.telephony.clone(),
            is_production: settings.http.production,
            calls: CallBook::default(),
            waiting: Arc::new(Semaphore::new(telephony::WAITING_MAX)),
            rate: Rate::new(settings.http.rooms_per_minute, settings.http.rooms_per_minute_per_source),
            room_url: settings.http.room_url.clone(),
            bridge_room_prefix: livekit.bridge_enabled.then(|| livekit.bridge_room_prefix.clone()),
        }
    }

    /// Counts one more room of this source, or says when it may be made.
    pub fn may_make_room(&self, source: Source) -> Result<(), Refusal> {
        self.rate.take(Instant::now(), source).map_err(|wait| {
            let refusal = Refusal::of(StatusCode::TOO_MANY_REQUESTS, "too many rooms this minute (http.rooms_per_minute, http.rooms_per_minute_per_source)");
            refusal.retry_after_s(wait.as_millis().div_ceil(1_000) as u64)
        })
    }

    /// A token for a room.
    pub fn token(&self, pass: &Pass) -> Result<String, Refusal> {
        self.rooms.token(pass).map_err(|error| error.refusal("roomName"))
    }

    /// Where people join a room.
    pub fn room_url(&self, room: &str) -> String {
        if self.room_url.is_empty() { self.rooms.url().to_owned() } else { self.room_url.replace("{room}", room) }
    }

    /// True for the room of a Twilio call, where the agent speaks already.
    pub fn is_bridged(&self, room: &str) -> bool {
        self.bridge_room_prefix.as_deref().is_some_and(|prefix| room.starts_with(prefix))
    }
}
