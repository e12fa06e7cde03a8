//! What the HTTP side asks of rooms, answered by the server's API and by this host.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use async_trait::async_trait;
use voiced_core::conversation::Input;
use voiced_core::packet::Packet;
use voiced_events::deliver::unix_ms;
use voiced_livekit::api::{self, ApiError, EgressFile, S3Bucket};
use voiced_livekit::token::{AgentDispatch, Grants as TokenGrants, ParticipantToken};
use voiced_livekit::webhook::{ParticipantKind, Received, WebhookKind};

use super::bridge::Order;
use super::{EgressPlace, RoomHost};
use crate::call::Request;
use crate::http::rooms::{Dispatched, Grants, Happened, Kind, Participant, Pass, Refused, Rooms, RoomsError, SupervisorMode, WebhookEvent};
use crate::recording::Recorder;

/// A room waits this long for its first participant.
const EMPTY: std::time::Duration = std::time::Duration::from_mins(5);
/// Recordings of the Egress service that are remembered: more than any server has rooms for. A forgotten one ends with its room.
const EGRESS_MAX: usize = 10_000;

#[async_trait]
impl Rooms for RoomHost {
    fn url(&self) -> &str {
        &self.settings.url
    }

    fn token(&self, pass: &Pass) -> Result<String, RoomsError> {
        let agents = pass.agent_metadata.iter().map(|metadata| self.agent(metadata)).collect();
        let token = ParticipantToken {
            name: pass.name.clone(),
            grants: TokenGrants { room_admin: pass.grants == Grants::Host, ..TokenGrants::default() },
            agents,
            ..ParticipantToken::new(&pass.room, &pass.identity)
        };
        let token = self.keys.participant_token(&token).map_err(|error| RoomsError::Unavailable(error.to_string()))?;
        Ok(token.expose().to_owned())
    }

    async fn create(&self, room: &str) -> Result<(), RoomsError> {
        self.api.create_room(room, EMPTY, &[]).await.map(drop).map_err(told)
    }

    async fn delete(&self, room: &str) -> Result<(), RoomsError> {
        self.api.delete_room(room).await.map_err(told)?;
        self.egress().remove(room);
        Ok(())
    }

    async fn participants(&self, room: &str) -> Result<Vec<Participant>, RoomsError> {
        let there = self.api.list_participants(room).await.map_err(told)?;
        // of a room that is not there the server says that nobody is in it
        if there.is_empty() && self.api.room(room).await.map_err(told)?.is_none() {
            return Err(RoomsError::NotFound);
        }
        let seen = |info: api::ParticipantInfo| Participant {
            sid: info.sid,
            identity: info.identity,
            kind: kind(ParticipantKind::from_number(i64::from(info.kind))),
            attributes: info.attributes.into_iter().collect(),
        };
        Ok(there.into_iter().map(seen).collect())
    }

    async fn agent_present(&self, room: &str) -> Result<bool, RoomsError> {
        let without = self.live().get(room).is_some_and(|live| live.without_agent || live.taken_over);
        Ok(!without && self.participants(room).await?.iter().any(|participant| participant.kind == Kind::Agent))
    }

    async fn dispatch(&self, room: &str, metadata: &str) -> Result<Dispatched, RoomsError> {
        if self.agent_in_call(room, true).await? {
            return Ok(Dispatched::Now);
        }
        self.registered().await;
        match self.dispatch.dispatch(room, &self.agent(metadata)).await.map_err(told)? {
            api::Dispatched::Now(_) => Ok(Dispatched::Now),
            api::Dispatched::Before(_) => Ok(Dispatched::Already),
        }
    }

    async fn remove_agent(&self, room: &str) -> Result<(), RoomsError> {
        if self.agent_in_call(room, false).await? {
            return Ok(());
        }
        self.dispatch.forget(room);
        let ours = self.api.list_dispatch(room).await.map_err(told)?;
        for dispatch in ours.iter().filter(|dispatch| dispatch.agent_name == self.settings.agent_name) {
            self.api.delete_dispatch(room, &dispatch.id).await.map_err(told)?;
        }
        self.dismiss(room);
        Ok(())
    }

    async fn supervise(&self, room: &str, identity: &str, mode: SupervisorMode) -> Result<(), RoomsError> {
        let orders = self.live().get(room).map(|live| live.orders.clone()).ok_or(RoomsError::NotFound)?;
        let orders = orders.ok_or_else(|| RoomsError::Conflict("only phone calls have supervisors; here people talk with the agent".into()))?;
        orders.send(Order::TakePart(identity.to_owned(), mode)).await.map_err(|_| RoomsError::NotFound)
    }

    async fn record(&self, room: &str, enable: bool) -> Result<(), RoomsError> {
        if !self.settings.egress_path.is_empty() {
            return self.record_by_egress(room, enable).await;
        }
        if enable {
            return self.record_to(room, self.recordings.join(format!("{room}-{}.wav", unix_ms()))).await;
        }
        let mut live = self.live();
        let room = live.get_mut(room).ok_or(RoomsError::NotFound)?;
        if let Some(stop) = room.recording.upgrade() {
            stop.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn webhook(&self, authorization: &str, body: &[u8]) -> Result<WebhookEvent, Refused> {
        let refused = |error: voiced_livekit::webhook::WebhookError| Refused(error.to_string());
        let event = match self.webhooks.receive(Some(authorization), body).map_err(refused)? {
            Received::News(event) => event,
            Received::Again => return Ok(WebhookEvent { room: String::new(), at_unix_ms: 0, happened: Happened::Other }),
        };
        let room = event.room.map(|room| room.name).unwrap_or_default();
        let participant = event.participant.map(|who| Participant { sid: who.sid, identity: who.identity, kind: kind(who.kind), attributes: who.attributes });
        let happened = match (event.kind, participant) {
            (WebhookKind::ParticipantJoined, Some(who)) => Happened::Joined(who),
            (WebhookKind::ParticipantLeft, Some(who)) => Happened::Left(who),
            (WebhookKind::RoomFinished, _) => {
                self.dispatch.forget(&room);
                self.egress().remove(&room);
                Happened::Finished
            }
            _ => Happened::Other,
        };
        Ok(WebhookEvent { room, at_unix_ms: u64::try_from(event.created_at).unwrap_or(0) * 1_000, happened })
    }
}

impl RoomHost {
    /// Records the call in this room, once at a time: caller left, agent right.
    pub async fn record_to(&self, room: &str, path: PathBuf) -> Result<(), RoomsError> {
        let stop = Arc::new(AtomicBool::new(false));
        let requests = {
            let mut live = self.live();
            let room = live.get_mut(room).ok_or(RoomsError::NotFound)?;
            if room.recording.upgrade().is_some_and(|stop| !stop.load(Ordering::Relaxed)) {
                return Ok(());
            }
            room.recording = Arc::downgrade(&stop);
            room.requests.clone()
        };
        let recorder = Recorder::start(&path).map_err(|error| RoomsError::Unavailable(format!("{error:#}")))?;
        tracing::info!(room, path = %path.display(), "recording");
        let tap = move |side, packet: &Packet| !stop.load(Ordering::Relaxed) && recorder.take(side, packet);
        requests.send(Request::Tap(Box::new(tap))).await.map_err(|_| RoomsError::NotFound)
    }

    /// Calls the agent back into a bridged call, or sends it out of it; false where no call of ours is bridged into this room.
    async fn agent_in_call(&self, room: &str, may_speak: bool) -> Result<bool, RoomsError> {
        let (requests, orders) = {
            let mut live = self.live();
            let Some(live) = live.get_mut(room) else { return Ok(false) };
            let Some(orders) = live.orders.clone() else { return Ok(false) };
            live.without_agent = !may_speak;
            (live.requests.clone(), orders)
        };
        requests.send(Request::Tell(Input::AgentMaySpeak(may_speak))).await.map_err(|_| RoomsError::NotFound)?;
        if may_speak {
            orders.send(Order::CallBack).await.map_err(|_| RoomsError::NotFound)?;
        }
        Ok(true)
    }

    /// LiveKit's Egress service records the room, once at a time, whoever is in it.
    async fn record_by_egress(&self, room: &str, enable: bool) -> Result<(), RoomsError> {
        let place = {
            let mut egress = self.egress();
            if !enable && !egress.contains_key(room) {
                return Ok(());
            }
            if egress.len() >= EGRESS_MAX {
                egress.pop_first();
            }
            Arc::clone(egress.entry(room.to_owned()).or_default())
        };
        let settings = &self.settings;
        let bucket = (!settings.egress_bucket.is_empty()).then(|| S3Bucket {
            name: settings.egress_bucket.clone(),
            region: settings.egress_region.clone(),
            endpoint: Some(settings.egress_endpoint.clone()).filter(|endpoint| !endpoint.is_empty()),
            access_key: settings.egress_access_key.clone(),
            secret: settings.egress_secret.clone(),
        });
        let path = settings.egress_path.replace("{room}", room).replace("{time}", &unix_ms().to_string());
        let (api, room) = (Arc::clone(&self.api), room.to_owned());
        // to its end, though nobody waits so long: or a recording would begin whose id nobody knows
        let switched = tokio::spawn(async move {
            let mut under_way = place.lock().await;
            match (enable, under_way.clone()) {
                (true, None) => {
                    let started = api.start_egress(&room, &EgressFile { path, bucket }).await?;
                    tracing::info!(room, egress = started.id, "recording by Egress");
                    *under_way = Some(started.id);
                }
                (false, Some(id)) => match api.stop_egress(&room, &id).await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => *under_way = None,
                },
                (true, Some(_)) | (false, None) => {}
            }
            Ok(())
        });
        switched.await.map_err(|error| RoomsError::Unavailable(error.to_string()))?.map_err(told)
    }

    fn egress(&self) -> MutexGuard<'_, BTreeMap<String, EgressPlace>> {
        self.egress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn agent(&self, metadata: &str) -> AgentDispatch {
        AgentDispatch { agent_name: self.settings.agent_name.clone(), metadata: metadata.to_owned() }
    }
}

fn kind(kind: ParticipantKind) -> Kind {
    match kind {
        ParticipantKind::Standard => Kind::Standard,
        ParticipantKind::Sip => Kind::Sip,
        ParticipantKind::Agent => Kind::Agent,
        _ => Kind::Other,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` hands over")]
fn told(error: ApiError) -> RoomsError {
    if error.is_not_found() { RoomsError::NotFound } else { RoomsError::Unavailable(error.to_string()) }
}
