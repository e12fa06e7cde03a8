//! What rooms have counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Counters over all rooms since the start, for the daemon's metrics.
#[derive(Debug, Default)]
pub struct MediaCounters {
    /// Rooms joined.
    pub joins: AtomicU64,
    /// Rooms joined anew after a loss.
    pub rejoins: AtomicU64,
    /// Sessions resumed after a loss.
    pub resumes: AtomicU64,
    /// Addresses given to us by TURN servers.
    pub relays: AtomicU64,
    /// Packets of sound received.
    pub packets_in: AtomicU64,
    /// Packets of sound sent.
    pub packets_out: AtomicU64,
    /// Packets, data and orders dropped because a queue was full or a socket would not take them.
    pub dropped: AtomicU64,
    /// Packets longer than a [`voiced_core::packet::Packet`] holds.
    pub oversize: AtomicU64,
    /// Datagrams and data messages that could not be understood.
    pub decode_errors: AtomicU64,
}

impl MediaCounters {
    /// Every counter with its name, in a fixed order.
    pub fn read(&self) -> [(&'static str, u64); 9] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("joins", read(&self.joins)),
            ("rejoins", read(&self.rejoins)),
            ("resumes", read(&self.resumes)),
            ("relays", read(&self.relays)),
            ("packets_in", read(&self.packets_in)),
            ("packets_out", read(&self.packets_out)),
            ("dropped", read(&self.dropped)),
            ("oversize", read(&self.oversize)),
            ("decode_errors", read(&self.decode_errors)),
        ]
    }
}

/// Counters of one room, which also count for all.
#[derive(Debug, Default)]
pub(crate) struct RoomCounters {
    pub all: Arc<MediaCounters>,
    pub packets_in: AtomicU64,
    pub bytes_in: AtomicU64,
    pub packets_out: AtomicU64,
    pub bytes_out: AtomicU64,
    pub lost: AtomicU64,
    pub dropped: AtomicU64,
    pub rtt_us: AtomicU32,
    pub reconnects: AtomicU32,
}

impl RoomCounters {
    pub fn received(&self, bytes: usize) {
        count(&self.packets_in);
        count(&self.all.packets_in);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn sent(&self, bytes: usize) {
        count(&self.packets_out);
        count(&self.all.packets_out);
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn dropped(&self) {
        count(&self.dropped);
        count(&self.all.dropped);
    }

    pub fn read(&self) -> RoomStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RoomStats {
            packets_in: read(&self.packets_in),
            bytes_in: read(&self.bytes_in),
            packets_out: read(&self.packets_out),
            bytes_out: read(&self.bytes_out),
            lost: read(&self.lost),
            dropped: read(&self.dropped),
            rtt_ms: self.rtt_us.load(Ordering::Relaxed) as f32 / 1_000.0,
            reconnects: self.reconnects.load(Ordering::Relaxed),
        }
    }
}

/// How one room is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoomStats {
    /// Packets of sound received.
    pub packets_in: u64,
    /// Their payload, in bytes.
    pub bytes_in: u64,
    /// Packets of sound sent.
    pub packets_out: u64,
    /// Their payload, in bytes.
    pub bytes_out: u64,
    /// Packets never seen of the tracks that are listened to; RED and retransmission have had their try.
    pub lost: u64,
    /// Packets and data dropped on this side.
    pub dropped: u64,
    /// Round trip to the server, in ms; 0 before it is known.
    pub rtt_ms: f32,
    /// Resumes and rejoins.
    pub reconnects: u32,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
