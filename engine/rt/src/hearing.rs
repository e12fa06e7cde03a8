//! How well a call comes through, while it lasts: its audio thread writes, anyone reads.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use voiced_core::call::LegCounters;
use voiced_core::time::TICK_MS;

/// Ticks between two looks at a leg's counters: 100 ms is live to a person, and costs a tick nothing.
pub(crate) const LOOK_TICKS: u64 = 10;

/// The counters of one call. Relaxed atomics, one writer.
#[derive(Debug, Default)]
pub struct Hearing {
    packets: AtomicU32,
    late: AtomicU32,
    lost: AtomicU32,
    recovered: AtomicU32,
    concealed_ms: AtomicU32,
    skipped_ms: AtomicU32,
    target_ms: AtomicU32,
    underruns: AtomicU32,
}

/// A reading of [`Hearing`], since the call began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HearingReading {
    /// Packets that came.
    pub packets: u32,
    /// Packets whose moment had passed.
    pub late: u32,
    /// Packets that were not there at their moment.
    pub lost: u32,
    /// Lost packets that were rebuilt from their successor.
    pub recovered: u32,
    /// Sound made up, ms.
    pub concealed_ms: u32,
    /// Sound skipped to win back delay, ms.
    pub skipped_ms: u32,
    /// The delay aimed at now on a lossy network, ms.
    pub target_ms: u32,
    /// Times the caller's end ran dry within a reply.
    pub underruns: u32,
}

impl Hearing {
    /// All counters (each is exact, together they are near).
    pub fn read(&self) -> HearingReading {
        HearingReading {
            packets: self.packets.load(Relaxed),
            late: self.late.load(Relaxed),
            lost: self.lost.load(Relaxed),
            recovered: self.recovered.load(Relaxed),
            concealed_ms: self.concealed_ms.load(Relaxed),
            skipped_ms: self.skipped_ms.load(Relaxed),
            target_ms: self.target_ms.load(Relaxed),
            underruns: self.underruns.load(Relaxed),
        }
    }

    /// Takes what a leg has counted and returns what is new of it.
    pub(crate) fn update(&self, leg: &LegCounters) -> HearingReading {
        let newer = |counter: &AtomicU32, now: u32| now.wrapping_sub(counter.swap(now, Relaxed));
        self.target_ms.store(leg.target_ms, Relaxed);
        HearingReading {
            packets: newer(&self.packets, leg.received),
            late: newer(&self.late, leg.late),
            lost: newer(&self.lost, leg.lost),
            recovered: newer(&self.recovered, leg.recovered),
            concealed_ms: newer(&self.concealed_ms, leg.concealed.saturating_mul(TICK_MS as u32)),
            skipped_ms: newer(&self.skipped_ms, leg.skipped_ms),
            target_ms: leg.target_ms,
            underruns: newer(&self.underruns, leg.underruns),
        }
    }
}
