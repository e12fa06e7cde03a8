//! An allocation on a TURN server: an address of the server's through which datagrams reach us (RFC 8656).
//!
//! Sans-IO: bytes for and from the server go through the caller's socket. Every address that is sent to gets a permission,
//! and over UDP then a channel; until the permission is there, what is sent to it waits. The client refreshes all of them by
//! itself.

use super::ice_servers::{TurnServer, TurnTransport};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use turn_client_proto::api::{Transmit, TurnClientApi, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::client::TurnClient;
use turn_client_proto::prelude::DelayedTransmitBuild as _;
use turn_client_proto::stun::Instant as TurnInstant;
use turn_client_proto::tcp::TurnClientTcp;
use turn_client_proto::types::{AddressFamily, TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;

/// How long a server has for an allocation: three round trips, and some of them lost.
const ALLOCATE_MAX: Duration = Duration::from_secs(5);
/// First and longest wait for an answer over UDP, and how often is asked: as quick as ICE itself.
const ASK_FIRST: Duration = Duration::from_millis(250);
const ASK_LONGEST: Duration = Duration::from_secs(1);
const ASKS_MAX: u32 = 5;
/// Addresses that are sent to: a LiveKit server has one or two.
const DESTINATIONS_MAX: usize = 16;
/// Datagrams that wait for the permission of their address: checks of ICE, which are repeated anyway.
const WAITING_MAX: usize = 8;

/// A client of one TURN server.
pub(super) struct Allocation {
    server: TurnServer,
    local: SocketAddr,
    client: TurnClient,
    /// Where the client's time begins.
    began: Instant,
    relayed: Option<SocketAddr>,
    /// Addresses that a permission was asked for.
    destinations: Vec<SocketAddr>,
    waiting: Vec<(SocketAddr, Vec<u8>)>,
}

/// What came of a [`Allocation::poll`].
#[derive(Default)]
pub(super) struct Progress {
    /// Bytes for the server.
    pub to_server: Vec<Vec<u8>>,
    /// The address that the server has given us.
    pub allocated: Option<SocketAddr>,
    /// The server gives none, or has taken it back.
    pub failed: bool,
    /// When to poll again.
    pub deadline: Option<Instant>,
}

impl Allocation {
    /// Begins to ask `server` for an address, from our address `local`.
    pub fn begin(server: TurnServer, local: SocketAddr, now: Instant) -> Self {
        let mut config = TurnConfig::new(TurnCredentials::new(&server.username, server.credential.expose()));
        config.set_request_retransmits(ASK_FIRST, ASK_LONGEST, ASKS_MAX, ASK_LONGEST);
        config.set_address_family(if local.is_ipv4() { AddressFamily::IPV4 } else { AddressFamily::IPV6 });
        let client = match server.transport {
            TurnTransport::Udp => TurnClientUdp::allocate(local, server.address, config).into(),
            TurnTransport::Tcp => TurnClientTcp::allocate(local, server.address, config).into(),
        };
        Self { server, local, client, began: now, relayed: None, destinations: Vec::new(), waiting: Vec::new() }
    }

    /// The server.
    pub fn server(&self) -> &TurnServer {
        &self.server
    }

    /// The address that it has given us.
    pub fn relayed(&self) -> Option<SocketAddr> {
        self.relayed
    }

    /// Wraps a datagram for the server, or keeps it until it may be sent.
    pub fn send(&mut self, to: SocketAddr, datagram: &[u8], now: Instant) -> Option<Vec<u8>> {
        let at = self.time(now);
        if let Ok(Some(wrapped)) = self.client.send_to(TransportType::Udp, to, datagram, at) {
            return Some(wrapped.data.build());
        }
        if !self.destinations.contains(&to) && self.destinations.len() < DESTINATIONS_MAX {
            self.destinations.push(to);
            // two ports of one address share its permission
            let _ = self.client.create_permission(TransportType::Udp, to.ip(), at);
        }
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push((to, datagram.to_vec()));
        }
        None
    }

    /// Unwraps what came from the server: datagrams, and who sent them.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        let at = self.time(now);
        let transport = self.client.transport();
        let mut received = Vec::new();
        // the client takes nothing for the end of the stream
        if bytes.is_empty() {
            return received;
        }
        if let TurnRecvRet::PeerData(data) = self.client.recv(Transmit::new(bytes, transport, self.server.address, self.local), at) {
            received.push((data.peer, data.data().to_vec()));
        }
        // more than one may be in what a stream brought
        while let Some(data) = self.client.poll_recv(at) {
            received.push((data.peer, data.data().to_vec()));
        }
        received
    }

    /// Lets time pass, and hands out what is to be done.
    pub fn poll(&mut self, now: Instant) -> Progress {
        let at = self.time(now);
        let mut progress = Progress::default();
        match self.client.poll(at) {
            TurnPollRet::WaitUntil(wake) => progress.deadline = Some(self.began + Duration::from_nanos(u64::try_from(wake.as_nanos()).unwrap_or(0))),
            TurnPollRet::Closed => progress.failed = true,
            TurnPollRet::AllocateTcpSocket { .. } | TurnPollRet::TcpClose { .. } => {}
        }
        while let Some(event) = self.client.poll_event() {
            match event {
                TurnEvent::AllocationCreated(_, relayed) => {
                    self.relayed = Some(relayed);
                    progress.allocated = Some(relayed);
                }
                TurnEvent::AllocationCreateFailed(_) => progress.failed = true,
                TurnEvent::PermissionCreated(_, ip) => self.permitted(ip, now, &mut progress),
                TurnEvent::PermissionCreateFailed(_, ip) => {
                    tracing::warn!(server = %self.server.address, peer = %ip, "the relay does not send to this address");
                    self.waiting.retain(|(to, _)| to.ip() != ip);
                }
                // without a channel datagrams go on in longer messages
                _ => {}
            }
        }
        while let Some(transmit) = self.client.poll_transmit(at) {
            progress.to_server.push(transmit.data.to_vec());
        }
        match self.relayed {
            Some(_) => progress.failed |= self.client.relayed_addresses().next().is_none(),
            None => progress.failed |= now >= self.began + ALLOCATE_MAX,
        }
        progress
    }

    /// Gives the address back.
    pub fn end(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let _ = self.client.delete(self.time(now));
        self.poll(now).to_server
    }

    fn permitted(&mut self, ip: IpAddr, now: Instant, progress: &mut Progress) {
        let at = self.time(now);
        // channels save 32 bytes a packet; over TCP their messages are padded to 4 bytes, which the client does not do
        let channels = self.server.transport == TurnTransport::Udp;
        for to in self.destinations.iter().filter(|to| channels && to.ip() == ip) {
            let _ = self.client.bind_channel(TransportType::Udp, *to, at);
        }
        let (ready, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting).into_iter().partition(|(to, _)| to.ip() == ip);
        self.waiting = waiting;
        progress.to_server.extend(ready.into_iter().filter_map(|(to, datagram)| self.send(to, &datagram, now)));
    }

    fn time(&self, now: Instant) -> TurnInstant {
        TurnInstant::from_nanos(i64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(i64::MAX))
    }
}
