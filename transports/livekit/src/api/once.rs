//! One agent per room, however often and from wherever it is asked for.
//!
//! Within this process the first to ask for a room goes to the server and the others wait for what it finds. It first
//! looks whether the agent was sent already, by a token, by another host or before a restart.

use super::{ApiError, ServerApi};
use crate::token::AgentDispatch;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

    /// Sends `agent` to `room` unless it was sent there. After an error the next to ask tries again.
    pub async fn dispatch(&self, room: &str, agent: &AgentDispatch) -> Result<Dispatched, ApiError> {
        let flight = self.rooms().flight(room);
        let mut sent = flight.lock().await;
        if let Some(id) = &*sent {
            return Ok(Dispatched::Before(id.clone()));
        }
        let found = self.find(room, &agent.agent_name).await?;
        let dispatched = match found {
            Some(id) => Dispatched::Before(id),
            None => Dispatched::Now(self.api.create_dispatch(room, agent).await?),
        };
        let (Dispatched::Now(id) | Dispatched::Before(id)) = &dispatched;
        *sent = Some(id.clone());
        Ok(dispatched)
    }

    /// The room has ended: one of the same name later on gets its own agent.
    pub fn forget(&self, room: &str) {
        self.rooms().forget(room);
    }

    /// A dispatch of this agent in a room that is there.
    async fn find(&self, room: &str, agent_name: &str) -> Result<Option<String>, ApiError> {
        if self.api.room(room).await?.is_none() {
            return Ok(None); // a server waits long for a room to answer that is not there
        }
        match self.api.list_dispatch(room).await {
            Ok(sent) => Ok(sent.into_iter().find(|dispatch| dispatch.agent_name == agent_name).map(|dispatch| dispatch.id)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rooms remembered: more than a host has at once. A room that was forgotten for a newer one is looked up at the server.
const ROOMS_MAX: usize = 4_096;

/// One asker at a time; the dispatch's id once there is one.
type Flight = Arc<tokio::sync::Mutex<Option<String>>>;

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
