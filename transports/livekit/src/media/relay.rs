//! When a peer connection asks for a relay, and of whom.
//!
//! Where a relay is the only way allowed, as soon as a TURN server is known; else only when the connection is not up some
//! seconds after it was described. The servers are asked one after the other, a few times.

use super::IceTransportPolicy;
use super::ice_servers::TurnServer;
use super::turn::Allocation;
use std::time::{Duration, Instant};

/// How long the ways straight to the server have, TCP among them.
const RELAY_AFTER: Duration = Duration::from_secs(3);
/// Allocations tried per description: each server once or twice.
const TRIES_MAX: usize = 4;

/// The relays of one peer connection.
pub(super) struct Relays {
    policy: IceTransportPolicy,
    servers: Vec<TurnServer>,
    /// When one is asked.
    at: Option<Instant>,
    /// It was time before any server was known.
    overdue: bool,
    tries: usize,
    /// The one that is asked, or that carries.
    pub allocation: Option<Allocation>,
    /// A relayed address that the other side is still to be told.
    pub found: Option<String>,
}

impl Relays {
    pub fn new(policy: IceTransportPolicy) -> Self {
        Self { policy, servers: Vec::new(), at: None, overdue: false, tries: 0, allocation: None, found: None }
    }

    /// Whether there is another way.
    pub fn only(&self) -> bool {
        self.policy == IceTransportPolicy::Relay
    }

    /// These servers may be asked.
    pub fn offered(&mut self, servers: Vec<TurnServer>, now: Instant) {
        self.servers = servers;
        self.tries = 0;
        if self.only() || std::mem::take(&mut self.overdue) {
            self.at = Some(now);
        }
    }

    /// The connection looks for its way, for the first time or anew.
    pub fn described(&mut self, now: Instant) {
        self.tries = 0;
        self.at = Some(if self.only() { now } else { now + RELAY_AFTER });
    }

    /// When there is something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.at
    }

    /// The server to ask now, if it is time and none is asked already.
    pub fn next(&mut self, connected: bool, now: Instant) -> Option<TurnServer> {
        self.at.take_if(|at| *at <= now)?;
        self.overdue = self.servers.is_empty() && !connected;
        if connected || self.allocation.is_some() || self.tries >= TRIES_MAX || self.servers.is_empty() {
            return None;
        }
        self.tries += 1;
        self.servers.get((self.tries - 1) % self.servers.len()).cloned()
    }

    /// The relay is of no use: the next may be asked.
    pub fn failed(&mut self, now: Instant) -> Option<Allocation> {
        self.at = Some(now);
        self.allocation.take()
    }
}
