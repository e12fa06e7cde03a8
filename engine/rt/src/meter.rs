//! Meters that the audio thread (and its judge) writes and anyone reads: plain relaxed atomics. The count of ticks is also what
//! the ringer waits for.

use std::sync::atomic::{
    AtomicU8, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use crate::hearing::HearingReading;

/// Upper bounds of the tick-time histogram, µs; the last bucket takes the rest. 10 000 is the deadline.
pub const TICK_BUCKETS_US: [u64; 12] = [50, 100, 200, 500, 1_000, 2_000, 3_000, 5_000, 7_000, 10_000, 20_000, 50_000];

/// A line's packet: a tick that is over later has missed its slot.
const SLOT: Duration = Duration::from_millis(20);

/// Optional work that the audio threads leave out, each step with those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Shed {
    /// All is done.
    #[default]
    Nothing,
    /// Voice activity and end of turn hear the line as it is.
    Denoise,
    /// And turns end by pause and transcript alone.
    TurnModel,
}

impl Shed {
    /// The next step.
    #[must_use]
    pub fn more(self) -> Self {
        Self::of(self as u8 + 1)
    }

    /// The step before.
    #[must_use]
    pub fn less(self) -> Self {
        Self::of((self as u8).saturating_sub(1))
    }

    /// For logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Denoise => "noise cancellation",
            Self::TurnModel => "noise cancellation, end-of-turn model",
        }
    }

    fn of(step: u8) -> Self {
        match step {
            0 => Self::Nothing,
            1 => Self::Denoise,
            _ => Self::TurnModel,
        }
    }
}

/// Parts of a tick, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Admissions, answers, commands, packets and speech in.
    TakeIn,
    /// Decoding, conceal and guests.
    Hear,
    /// Noise cancellation.
    Denoise,
    /// Voice activity.
    Vad,
    /// End-of-turn features and the turn machine.
    Turns,
    /// Playout, encoding, and what ends.
    Speak,
}

/// All of them, with their names in metrics.
pub const STAGES: [(Stage, &str); 6] =
    [(Stage::TakeIn, "take_in"), (Stage::Hear, "hear"), (Stage::Denoise, "denoise"), (Stage::Vad, "vad"), (Stage::Turns, "turns"), (Stage::Speak, "speak")];

/// One audio thread's meters.
#[derive(Debug, Default)]
pub struct Meter {
    calls: AtomicUsize,
    ticks: AtomicU64,
    busy_us: AtomicU64,
    overruns: AtomicU64,
    late: AtomicU64,
    skipped: AtomicU64,
    rings_full: AtomicU64,
    asks_answered: AtomicU64,
    asks_dropped: AtomicU64,
    packets: AtomicU64,
    packets_late: AtomicU64,
    packets_lost: AtomicU64,
    packets_recovered: AtomicU64,
    concealed_ms: AtomicU64,
    skipped_ms: AtomicU64,
    underruns: AtomicU64,
    stages_ns: [AtomicU64; STAGES.len()],
    /// A [`Shed`], written by the rim.
    shed: AtomicU8,
    histogram: [AtomicU64; TICK_BUCKETS_US.len() + 1],
}

/// A reading of a [`Meter`].
#[derive(Clone, Copy, Debug, Default)]
pub struct MeterReading {
    /// Calls in slots now, admitted ones not yet taken in included.
    pub calls: usize,
    /// Ticks run.
    pub ticks: u64,
    /// Time spent in ticks, µs.
    pub busy_us: u64,
    /// Ticks whose work took longer than the tick.
    pub overruns: u64,
    /// Ticks that were over more than a packet's 20 ms after they were due, whether they took long or began late.
    pub late: u64,
    /// Ticks left out because the thread was too far behind to catch up.
    pub skipped: u64,
    /// Things that found a ring to the rim full and were dropped.
    pub rings_full: u64,
    /// End-of-turn questions that the model answered.
    pub asks_answered: u64,
    /// Those that went without an answer because the judge was behind.
    pub asks_dropped: u64,
    /// Callers' packets that came.
    pub packets: u64,
    /// Packets whose moment had passed.
    pub packets_late: u64,
    /// Packets that were not there at their moment.
    pub packets_lost: u64,
    /// Lost packets that were rebuilt from their successor.
    pub packets_recovered: u64,
    /// Callers' sound made up, ms.
    pub concealed_ms: u64,
    /// Callers' sound skipped to win back delay, ms.
    pub skipped_ms: u64,
    /// Times a caller's end ran dry within a reply.
    pub underruns: u64,
    /// Time spent in each of [`STAGES`], ns.
    pub stages_ns: [u64; STAGES.len()],
    /// What is left out now.
    pub shed: Shed,
    /// Ticks by time, see [`TICK_BUCKETS_US`].
    pub histogram: [u64; TICK_BUCKETS_US.len() + 1],
}

impl Meter {
    /// All meters at one moment (each is exact, together they are near).
    pub fn read(&self) -> MeterReading {
        MeterReading {
            calls: self.calls.load(Relaxed),
            ticks: self.ticks.load(Relaxed),
            busy_us: self.busy_us.load(Relaxed),
            overruns: self.overruns.load(Relaxed),
            late: self.late.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
            rings_full: self.rings_full.load(Relaxed),
            asks_answered: self.asks_answered.load(Relaxed),
            asks_dropped: self.asks_dropped.load(Relaxed),
            packets: self.packets.load(Relaxed),
            packets_late: self.packets_late.load(Relaxed),
            packets_lost: self.packets_lost.load(Relaxed),
            packets_recovered: self.packets_recovered.load(Relaxed),
            concealed_ms: self.concealed_ms.load(Relaxed),
            skipped_ms: self.skipped_ms.load(Relaxed),
            underruns: self.underruns.load(Relaxed),
            stages_ns: std::array::from_fn(|i| self.stages_ns[i].load(Relaxed)),
            shed: self.shed(),
            histogram: std::array::from_fn(|i| self.histogram[i].load(Relaxed)),
        }
    }

    /// Ticks run; what those did is visible to who has read this.
    pub(crate) fn ticks(&self) -> u64 {
        self.ticks.load(Acquire)
    }

    /// Takes a place for one more call, unless `limit` are there.
    pub(crate) fn reserve(&self, limit: usize) -> bool {
        self.calls.fetch_update(Relaxed, Relaxed, |n| (n < limit).then_some(n + 1)).is_ok()
    }

    pub(crate) fn retire(&self) {
        self.calls.fetch_sub(1, Relaxed);
    }

    /// Adds what is new of how a call comes through.
    pub(crate) fn heard(&self, new: &HearingReading) {
        self.packets.fetch_add(u64::from(new.packets), Relaxed);
        self.packets_late.fetch_add(u64::from(new.late), Relaxed);
        self.packets_lost.fetch_add(u64::from(new.lost), Relaxed);
        self.packets_recovered.fetch_add(u64::from(new.recovered), Relaxed);
        self.concealed_ms.fetch_add(u64::from(new.concealed_ms), Relaxed);
        self.skipped_ms.fetch_add(u64::from(new.skipped_ms), Relaxed);
        self.underruns.fetch_add(u64::from(new.underruns), Relaxed);
    }

    /// A tick is over that took so long, this much after it was due.
    pub(crate) fn tick(&self, took: Duration, since_due: Duration) {
        let us = took.as_micros() as u64;
        self.busy_us.fetch_add(us, Relaxed);
        if us > 10_000 {
            self.overruns.fetch_add(1, Relaxed);
        }
        if since_due > SLOT {
            self.late.fetch_add(1, Relaxed);
        }
        let bucket = TICK_BUCKETS_US.iter().position(|&bound| us <= bound).unwrap_or(TICK_BUCKETS_US.len());
        self.histogram[bucket].fetch_add(1, Relaxed);
        self.ticks.fetch_add(1, Release);
    }

    pub(crate) fn stage(&self, stage: Stage, took: Duration) {
        self.stages_ns[stage as usize].fetch_add(took.as_nanos() as u64, Relaxed);
    }

    /// Leave out so much from the next tick on.
    pub(crate) fn set_shed(&self, shed: Shed) {
        self.shed.store(shed as u8, Relaxed);
    }

    pub(crate) fn shed(&self) -> Shed {
        Shed::of(self.shed.load(Relaxed))
    }

    pub(crate) fn skip(&self, ticks: u64) {
        self.skipped.fetch_add(ticks, Relaxed);
    }

    pub(crate) fn ring_full(&self) {
        self.rings_full.fetch_add(1, Relaxed);
    }

    pub(crate) fn ask_answered(&self) {
        self.asks_answered.fetch_add(1, Relaxed);
    }

    pub(crate) fn ask_dropped(&self) {
        self.asks_dropped.fetch_add(1, Relaxed);
    }
}
