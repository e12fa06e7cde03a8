//! What the transport has counted since it started.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
    /// From the tick that decided on a `clear` until the socket has taken it.
    pub clear_sent: Delays,
    /// From when a reply could be heard at the earliest (the turn was over, the voice had spoken) until the socket has taken its
    /// first sound: what this host adds to a response.
    pub reply_sent: Delays,
}

/// Upper bounds of [`Delays`], in µs.
pub const DELAY_BUCKETS_US: [u64; 14] = [250, 500, 1_000, 2_000, 3_000, 5_000, 7_000, 9_000, 10_000, 11_000, 15_000, 20_000, 50_000, 100_000];

/// How long something took, counted by length; the last count is of what took longer than all bounds.
#[derive(Debug, Default)]
pub struct Delays {
    counts: [AtomicU64; DELAY_BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Delays {
    pub(crate) fn observe(&self, delay: Duration) {
        let us = delay.as_micros() as u64;
        let bucket = DELAY_BUCKETS_US.iter().position(|&bound| us <= bound).unwrap_or(DELAY_BUCKETS_US.len());
        count(&self.counts[bucket]);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// The counts by [`DELAY_BUCKETS_US`], and the sum of all delays in µs.
    pub fn read(&self) -> ([u64; DELAY_BUCKETS_US.len() + 1], u64) {
        (self.counts.each_ref().map(|count| count.load(Ordering::Relaxed)), self.sum_us.load(Ordering::Relaxed))
    }
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
