//! The media threads: WebRTC for many rooms on few threads and sockets.
//!
//! A room has two peer connections (LiveKit's protocol 16: we offer the *publisher*, the server offers the
//! *subscriber*). Each is a sans-IO `str0m` machine that a media thread owns, with a UDP socket of its own: a server that
//! muxes everyone on one port tells peers apart by their address. A thread waits on all of its sockets, a waker and the
//! nearest deadline with one `mio` poll, so a room costs two sockets and no thread or task of its own.
//!
//! The rim hands over orders and packets through two bounded queues per thread and rings a bell; what happens comes back
//! through a bounded queue per room. Sound that arrives is given to the room's listener right on the thread.

mod connection;
mod counters;
mod numbering;
mod peer;
mod sdp;
mod sockets;
mod tcp;
mod thread;

pub use counters::{MediaCounters, RoomStats};

pub(crate) use connection::{MediaEvent, PublishLine};
pub(crate) use counters::{RoomCounters, count};
pub(crate) use peer::{Side, dtls_certificate};
pub(crate) use sdp::TrackLine;
pub(crate) use thread::{Key, MediaThread, Opening, Order};

use std::net::IpAddr;

/// What the daemon decides for media.
#[derive(Clone, Debug)]
pub struct MediaSettings {
    /// Media threads; each takes every n-th room.
    pub threads: usize,
    /// Local addresses to bind, a socket each per peer connection. Empty, the default: one socket on all addresses, so
    /// that the kernel's routes choose the card for each address the server names.
    pub bind: Vec<IpAddr>,
}

impl Default for MediaSettings {
    fn default() -> Self {
        Self { threads: 1, bind: Vec::new() }
    }
}
