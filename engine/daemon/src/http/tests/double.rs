//! A `LiveKit` server in memory, and the API before it on a port of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use voiced_config::Settings;

use super::super::frontend;
use super::super::gate::Gate;
use super::super::listener;
use super::super::rooms::{Dispatched, Happened, Kind, Participant, Pass, Refused, Rooms, RoomsError, SupervisorMode, WebhookEvent};

/// What has not happened after this long does not happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// What the double's webhooks are signed with.
const SIGNATURE: &str = "signed";

#[derive(Default)]
pub struct Room {
    pub participants: Vec<Participant>,
    /// The metadata of each dispatch of the agent.
    pub dispatches: Vec<String>,
    pub recorded: bool,
    pub supervised: Vec<(String, SupervisorMode)>,
}

pub struct Double {
    pub rooms: Mutex<BTreeMap<String, Room>>,
    pub passes: Mutex<Vec<Pass>>,
    /// Answers of the server that fail from now on.
    pub failures: Mutex<u32>,
    /// Webhooks read so far that have an id.
    read: Mutex<BTreeSet<String>>,
    /// Without permits the server does not answer.
    pub answers: Semaphore,
}

impl Double {
    /// A server without rooms that answers.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { rooms: Mutex::default(), passes: Mutex::default(), failures: Mutex::default(), read: Mutex::default(), answers: Semaphore::new(1_000) })
    }

    pub fn rooms(&self) -> MutexGuard<'_, BTreeMap<String, Room>> {
        self.rooms.lock().unwrap()
    }

    /// Someone comes into a room, which is made where there is none.
    pub fn enters(&self, room: &str, identity: &str, kind: Kind) {
        let participant = Participant { sid: format!("PA_{identity}"), identity: identity.into(), kind, attributes: BTreeMap::new() };
        self.rooms().entry(room.into()).or_default().participants.push(participant);
    }

    pub fn dispatches(&self, room: &str) -> usize {
        self.rooms().get(room).map_or(0, |room| room.dispatches.len())
    }

    async fn answer<T>(&self, room: &str, apply: impl FnOnce(&mut Room) -> T) -> Result<T, RoomsError> {
        let _answers = self.answers.acquire().await.unwrap();
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err(RoomsError::Unavailable("connection refused".into()));
        }
        self.rooms().get_mut(room).map(apply).ok_or(RoomsError::NotFound)
    }
}

#[async_trait]
impl Rooms for Double {
    fn url(&self) -> &'static str {
        "wss://rooms.example.test"
    }

    fn token(&self, pass: &Pass) -> Result<String, RoomsError> {
        self.passes.lock().unwrap().push(pass.clone());
        Ok(format!("token of {}", pass.identity))
    }

    async fn create(&self, room: &str) -> Result<(), RoomsError> {
        self.rooms().entry(room.into()).or_default();
        self.answer(room, |_| ()).await
    }

    async fn delete(&self, room: &str) -> Result<(), RoomsError> {
        self.answer(room, |_| ()).await?;
        self.rooms().remove(room);
        Ok(())
    }

    async fn participants(&self, room: &str) -> Result<Vec<Participant>, RoomsError> {
        self.answer(room, |room| room.participants.clone()).await
    }

    async fn dispatch(&self, room: &str, metadata: &str) -> Result<Dispatched, RoomsError> {
        let dispatched = |room: &mut Room| {
            if !room.dispatches.is_empty() {
                return Dispatched::Already;
            }
            room.dispatches.push(metadata.into());
            Dispatched::Now
        };
        self.answer(room, dispatched).await
    }

    async fn remove_agent(&self, room: &str) -> Result<(), RoomsError> {
        let removed = |room: &mut Room| {
            room.dispatches.clear();
            room.participants.retain(|participant| participant.kind != Kind::Agent);
        };
        self.answer(room, removed).await
    }

    async fn supervise(&self, room: &str, identity: &str, mode: SupervisorMode) -> Result<(), RoomsError> {
        let is_bridged = room.starts_with("twilio-");
        self.answer(room, |room| room.supervised.push((identity.into(), mode))).await?;
        if is_bridged { Ok(()) } else { Err(RoomsError::Conflict("no call is bridged into this room".into())) }
    }

    async fn record(&self, room: &str, enable: bool) -> Result<(), RoomsError> {
        self.answer(room, |room| room.recorded = enable).await
    }

    fn webhook(&self, authorization: &str, body: &[u8]) -> Result<WebhookEvent, Refused> {
        if authorization != SIGNATURE {
            return Err(Refused("the signature is wrong".into()));
        }
        let told: Value = serde_json::from_slice(body).map_err(|error| Refused(error.to_string()))?;
        let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
        let attributes = told["attributes"].as_object().into_iter().flatten();
        let participant = Participant {
            sid: format!("PA_{}", text("identity")),
            identity: text("identity"),
            kind: match told["kind"].as_str() {
                Some("SIP") => Kind::Sip,
                Some("STANDARD") => Kind::Standard,
                Some("AGENT") => Kind::Agent,
                _ => Kind::Other,
            },
            attributes: attributes.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect(),
        };
        let happened = match told["event"].as_str() {
            _ if told["id"].is_string() && !self.read.lock().unwrap().insert(text("id")) => Happened::Other,
            Some("participant_joined") => Happened::Joined(participant),
            Some("participant_left") => Happened::Left(participant),
            Some("room_finished") => Happened::Finished,
            _ => Happened::Other,
        };
        Ok(WebhookEvent { room: text("room"), at_unix_ms: told["at"].as_u64().unwrap_or_default(), happened })
    }
}

/// The API, on a port.
pub struct Front {
    pub rooms: Arc<Double>,
    url: String,
    pub client: reqwest::Client,
}

impl Front {
    /// As a daemon on loopback has it, with these settings.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_at("127.0.0.1:8080", settings).await
    }

    /// The same for a daemon that believes to listen at another address.
    pub async fn start_at(address: &str, settings: &[(&str, &str)]) -> Self {
        let rooms = Double::new();
        let url = serve(address, settings, Some(rooms.clone())).await;
        Self { rooms, url, client: reqwest::Client::new() }
    }

    pub fn request(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.client.post(format!("{}{path}", self.url)).json(body)
    }

    /// Status and body of a POST.
    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        answer(self.request(path, &body)).await
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.client.get(format!("{}{path}", self.url))).await
    }

    /// The status of a webhook's answer.
    pub async fn webhook(&self, told: &Value) -> u16 {
        let request = self.client.post(format!("{}/telephony/livekit-webhook", self.url));
        let request = request.header("Content-Type", "application/webhook+json").header("Authorization", SIGNATURE);
        answer(request.body(told.to_string())).await.0
    }

    /// A telephone that has come into a room, and what the server tells of it.
    pub fn telephone(&self, room: &str, identity: &str) -> Value {
        self.rooms.enters(room, identity, Kind::Sip);
        json!({ "event": "participant_joined", "room": room, "identity": identity, "kind": "SIP", "at": 1_000 })
    }
}

/// Starts the API with these settings and rooms; gives its address.
pub async fn serve(address: &str, settings: &[(&str, &str)], rooms: Option<Arc<dyn Rooms>>) -> String {
    let settings = read(settings);
    let (router, gate) = (frontend(&settings, address.parse().unwrap(), rooms).unwrap(), Gate::new(&settings.server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { listener::serve(listener, router, gate, tokio::sync::watch::channel(false).1).await });
    url
}

fn read(settings: &[(&str, &str)]) -> Settings {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    voiced_config::load(None, settings).unwrap_or_else(|problems| panic!("{problems:?}"))
}

pub async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap_or_default())
}

/// Waits until it holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
