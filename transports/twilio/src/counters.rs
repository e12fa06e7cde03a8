//! What the transport has counted since it started.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of the Twilio transport, shared with the daemon's metrics.
#[derive(Debug, Default)]
pub struct TwilioCounters {
    /// Webhooks and upgrades answered 403.
    pub refused_requests: AtomicU64,
    /// Calls answered with an apology, the host being full.
    pub apologies: AtomicU64,
    /// Streams handed to the switchboard.
    pub streams: AtomicU64,
    /// Streams closed at `start`: token, replay, second stream, switchboard.
    pub refused_streams: AtomicU64,
    /// Messages that could not be understood.
    pub bad_messages: AtomicU64,
    /// Well-formed messages of no known event, ignored.
    pub unknown_messages: AtomicU64,
    /// Streams cut off for too many bad messages or an oversize one.
    pub cut_off: AtomicU64,
    /// Streams that went silent or whose client stopped reading.
    pub timed_out: AtomicU64,
    /// Packets dropped because the call did not take them in time.
    pub dropped_packets: AtomicU64,
    /// Media older than what was heard already.
    pub stale_media: AtomicU64,
}

impl TwilioCounters {
    /// Every counter with its name, in a fixed order.
    pub fn read(&self) -> [(&'static str, u64); 10] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("refused_requests", read(&self.refused_requests)),
            ("apologies", read(&self.apologies)),
            ("streams", read(&self.streams)),
            ("refused_streams", read(&self.refused_streams)),
            ("bad_messages", read(&self.bad_messages)),
            ("unknown_messages", read(&self.unknown_messages)),
            ("cut_off", read(&self.cut_off)),
            ("timed_out", read(&self.timed_out)),
            ("dropped_packets", read(&self.dropped_packets)),
            ("stale_media", read(&self.stale_media)),
        ]
    }
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
