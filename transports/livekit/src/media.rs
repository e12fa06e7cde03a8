//! The media threads: WebRTC for many rooms on few threads and sockets.
//!
//! A room has two peer connections (LiveKit's protocol 16: we offer the *publisher*, the server offers the
//! *subscriber*). Each is a sans-IO `str0m` machine that a media thread owns, with a UDP socket of its own: a server that
//! muxes everyone on one port tells peers apart by their address. A thread waits on all of its sockets, a waker and the
//! nearest deadline with one `mio` poll, so a room costs two sockets and no thread or task of its own.
//!
//! Where a server's own addresses cannot be reached, over UDP nor TCP, media goes through a TURN server that it names.
//!
//! The rim hands over orders and packets through two bounded queues per thread and rings a bell; what happens comes back
//! through a bounded queue per room. Sound that arrives is given to the room's listener right on the thread.

mod connection;
mod counters;
mod ice_servers;
mod numbering;
mod peer;
mod relay;
mod sdp;
mod sockets;
mod tcp;
mod thread;
mod turn;

pub use counters::{MediaCounters, RoomStats};

pub(crate) use connection::{DATA_WAITING_MAX, MediaEvent, PublishLine};
pub(crate) use counters::{RoomCounters, count};
pub(crate) use ice_servers::turn_servers;
pub(crate) use peer::{Side, dtls_certificate};
pub(crate) use sdp::TrackLine;
pub(crate) use thread::{Key, MediaThread, Opening, Order};

use std::net::IpAddr;
use std::sync::Arc;

/// What the daemon decides for media.
#[derive(Clone, Debug)]
pub struct MediaSettings {
    /// Media threads; each takes every n-th room.
    pub threads: usize,
    /// Local addresses to bind, a socket each per peer connection. Empty, the default: one socket on all addresses, so
    /// that the kernel's routes choose the card for each address the server names.
    pub bind: Vec<IpAddr>,
    /// Which ways media may take.
    pub ice_transport_policy: IceTransportPolicy,
    /// Whom TLS to a TURN server trusts; those whom this host trusts when `None`.
    pub turn_tls: Option<Arc<rustls::ClientConfig>>,
}

/// Which ways media may take: WebRTC's `iceTransportPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IceTransportPolicy {
    /// Straight to the server where that works, over UDP or TCP; a TURN server is asked only where it does not.
    #[default]
    All,
    /// Through a TURN server only.
    Relay,
}

impl Default for MediaSettings {
    fn default() -> Self {
        Self { threads: 1, bind: Vec::new(), ice_transport_policy: IceTransportPolicy::All, turn_tls: None }
    }
}
