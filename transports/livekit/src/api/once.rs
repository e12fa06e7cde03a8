//! One agent per room, however often and from wherever it is asked for.
//!
//! Within this process those who ask for a room go to the server one after the other. Each looks whether the agent was sent
//! already, by a token, by another host or before a restart, and is there or on its way. The server keeps a dispatch whose
//! agent has gone again or never came for as long as the room lives: such a one is taken back, and the agent sent anew.

use super::{ApiError, DispatchInfo, ParticipantInfo, ServerApi};
use crate::token::AgentDispatch;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// From a dispatch until its agent is in the room, at most: an offer to a worker and its join may take 10 s each, and
/// clocks differ a little.
const ON_ITS_WAY_MAX: Duration = Duration::from_secs(20);

/// Sends agents to rooms, once each.
#[derive(Debug)]
pub struct DispatchOnce {
    api: Arc<ServerApi>,
    rooms: Mutex<Rooms>,
}

/// What became of asking for an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dispatched {
    /// It is on its way, by this dispatch.
    Now(String),
    /// It was sent before, by this dispatch.
    Before(String),
}

impl DispatchOnce {
    /// Uses this server.
    pub fn new(api: Arc<ServerApi>) -> Self {
        Self { api, rooms: Mutex::default() }
    }

    /// Sends `agent` to `room` unless it is there or on its way. After an error the next to ask tries again.
    pub async fn dispatch(&self, room: &str, agent: &AgentDispatch) -> Result<Dispatched, ApiError> {
        let flight = self.rooms().flight(room);
        let _turn = flight.lock().await;
        match self.find(room, &agent.agent_name).await? {
            Some(id) => Ok(Dispatched::Before(id)),
            None => self.api.create_dispatch(room, agent).await.map(Dispatched::Now),
        }
    }

    /// The job of this dispatch is over: the next to ask for the agent gets it.
    pub async fn over(&self, room: &str, dispatch_id: &str) -> Result<(), ApiError> {
        let flight = self.rooms().flight(room);
        let _turn = flight.lock().await;
        // a server waits long for a room to answer that is not there
        if self.api.room(room).await?.is_some() { self.take_back(room, dispatch_id).await } else { Ok(()) }
    }

    /// The room has ended.
    pub fn forget(&self, room: &str) {
        self.rooms().forget(room);
    }

    /// A dispatch whose agent is in the room or on its way there; others of it are taken back.
    async fn find(&self, room: &str, agent_name: &str) -> Result<Option<String>, ApiError> {
        if self.api.room(room).await?.is_none() {
            return Ok(None);
        }
        let sent = match self.api.list_dispatch(room).await {
            Ok(sent) => sent,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let ours: Vec<_> = sent.into_iter().filter(|dispatch| dispatch.agent_name == agent_name).collect();
        if ours.is_empty() {
            return Ok(None);
        }
        let there = self.api.list_participants(room).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut found = None;
        for dispatch in ours {
            if serves(&dispatch, &there, now) {
                found = Some(dispatch.id);
            } else {
                self.take_back(room, &dispatch.id).await?;
            }
        }
        Ok(found)
    }

    async fn take_back(&self, room: &str, dispatch_id: &str) -> Result<(), ApiError> {
        match self.api.delete_dispatch(room, dispatch_id).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a dispatch's agent is there, or so new that it may be on its way.
fn serves(dispatch: &DispatchInfo, there: &[ParticipantInfo], now: Duration) -> bool {
    let Some(state) = &dispatch.state else { return true };
    let age = now.saturating_sub(Duration::from_nanos(u64::try_from(state.created_at).unwrap_or(0)));
    let mut agents = state.jobs.iter().filter_map(|job| job.state.as_ref()).map(|job| job.participant_identity.as_str());
    age < ON_ITS_WAY_MAX || agents.any(|agent| there.iter().any(|participant| participant.identity == agent))
}

/// Rooms remembered: more than a host has at once. Who asks for a room that was forgotten may do so at once with another.
const ROOMS_MAX: usize = 4_096;

/// One asker at a time.
type Flight = Arc<tokio::sync::Mutex<()>>;

#[derive(Debug, Default)]
struct Rooms {
    flights: HashMap<String, Flight>,
    order: VecDeque<String>,
}

impl Rooms {
    fn flight(&mut self, room: &str) -> Flight {
        if let Some(flight) = self.flights.get(room) {
            return Arc::clone(flight);
        }
        if self.order.len() >= ROOMS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.flights.remove(&oldest);
        }
        let flight = Flight::default();
        self.flights.insert(room.to_owned(), Arc::clone(&flight));
        self.order.push_back(room.to_owned());
        flight
    }

    fn forget(&mut self, room: &str) {
        if self.flights.remove(room).is_some() {
            self.order.retain(|name| name != room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use livekit_protocol::{AgentDispatchState, Job, JobState};

    #[test]
    fn a_dispatch_serves_while_its_agent_is_there_or_may_be_on_its_way() {
        let job = Job { state: Some(JobState { participant_identity: "agent-1".to_owned(), ..Default::default() }), ..Default::default() };
        let state = AgentDispatchState { created_at: 1_000_000_000_000, jobs: vec![job], ..Default::default() };
        let dispatch = DispatchInfo { state: Some(state), ..Default::default() };
        let [agent, other] = ["agent-1", "agent-2"].map(|identity| ParticipantInfo { identity: identity.to_owned(), ..Default::default() });
        let made = Duration::from_secs(1_000);
        assert!(serves(&dispatch, &[], made) && serves(&dispatch, &[], made.checked_sub(ON_ITS_WAY_MAX).unwrap()), "the server's clock may be ahead");
        assert!(!serves(&dispatch, &[other], made + ON_ITS_WAY_MAX));
        assert!(serves(&dispatch, &[agent], made + 10 * ON_ITS_WAY_MAX));
    }

    #[test]
    fn rooms_are_remembered_up_to_a_limit() {
        let mut rooms = Rooms::default();
        let first = rooms.flight("room-0");
        assert!(Arc::ptr_eq(&first, &rooms.flight("room-0")));
        for room in 1..=ROOMS_MAX {
            rooms.flight(&format!("room-{room}"));
        }
        assert_eq!((rooms.flights.len(), rooms.order.len()), (ROOMS_MAX, ROOMS_MAX));
        assert!(!Arc::ptr_eq(&first, &rooms.flight("room-0")));
        rooms.forget("room-0");
        assert_eq!((rooms.flights.len(), rooms.order.len()), (ROOMS_MAX - 1, ROOMS_MAX - 1));
    }
}
