//! How much delay a lossy network needs, by what it did of late.
//!
//! The fastest packet of the last seconds took the least time that this network can take: it is the base, and it moves
//! with the clocks' drift. How much longer each packet took goes into a histogram that forgets slowly. The target is
//! the delay at which all but [`TOO_LATE`] of the packets are there in time, and one packet more while packets are
//! lost, because what was lost comes again inside its successor. A network on which nothing was late gets no delay at
//! all; its first late or lost packet brings up to one packet's, at once and until it has been calm for some seconds.

/// Greatest target, in ms. Beyond this people talk into one another; what is later is concealed.
pub const TARGET_MS_MAX: u32 = 200;
/// The target before anything was measured, in ms.
const TARGET_MS_AT_FIRST: u32 = 40;
/// Packets before the histogram is believed: 0.2 s.
const PACKETS_MIN: u32 = 10;
/// Share of packets that may come too late: fewer cost all packets more delay than they are worth.
const TOO_LATE: f32 = 0.03;
/// What one packet changes of the histogram and of the share of losses: a memory of 200 packets, 4 s.
const NEWS: f32 = 0.005;
/// Width of a bin, in ms: arrivals are seen once a tick.
const BIN_MS: i64 = 10;
/// Bins up to [`TARGET_MS_MAX`], and one for all beyond.
const BINS: usize = (TARGET_MS_MAX as i64 / BIN_MS) as usize + 2;
/// Packets over which the fastest is taken, twice: 2 to 4 s.
const BASE_PACKETS: u32 = 100;
/// Packets over which the latest one is remembered for what it was, twice: 5 to 10 s.
const CALM_PACKETS: u32 = 250;
/// Share of losses from which the successor of a lost packet is waited for.
const LOSING: f32 = 0.01;
/// Sound in a packet, as nearly all senders cut it, in ms.
const PACKET_MS: u32 = 20;
/// A packet this far from the base belongs to another clock: the sender's time has jumped.
const JUMP_MS: i64 = 1_000;

/// The delay of one sender's packets.
#[derive(Clone, Copy, Debug)]
pub struct TargetDelay {
    histogram: [f32; BINS],
    packets: u32,
    /// Least difference of our clock and the sender's, in these [`BASE_PACKETS`] and in those before.
    least: Option<i64>,
    least_before: Option<i64>,
    in_base: u32,
    /// Greatest lateness, up to a packet, in these [`CALM_PACKETS`] and in those before.
    latest_ms: u32,
    latest_before_ms: u32,
    in_calm: u32,
    losing: f32,
    target_ms: u32,
}

impl TargetDelay {
    /// Nothing measured.
    pub const fn new() -> Self {
        Self {
            histogram: [0.0; BINS],
            packets: 0,
            least: None,
            least_before: None,
            in_base: 0,
            latest_ms: 0,
            latest_before_ms: 0,
            in_calm: 0,
            losing: 0.0,
            target_ms: TARGET_MS_AT_FIRST,
        }
    }

    /// A packet that begins at `media_ms` of its sender came at `now_ms`.
    pub fn arrived(&mut self, now_ms: i64, media_ms: i64) {
        let took = now_ms - media_ms;
        if (took - self.base().unwrap_or(took)).abs() > JUMP_MS {
            (self.least, self.least_before, self.in_base) = (None, None, 0);
        }
        if self.in_base == BASE_PACKETS {
            (self.least_before, self.least, self.in_base) = (self.least, None, 0);
        }
        self.in_base += 1;
        self.least = Some(self.least.map_or(took, |least| least.min(took)));
        let longer = (took - self.base().unwrap_or(took)).max(0);
        self.remember(longer);
    }

    /// A packet's moment came: was it there?
    pub fn played(&mut self, lost: bool) {
        self.losing += (f32::from(u8::from(lost)) - self.losing) * NEWS;
        if lost {
            self.latest_ms = PACKET_MS;
        }
    }

    /// The delay to keep, in ms.
    pub fn target_ms(&self) -> u32 {
        self.target_ms
    }

    /// The delay of a sound played at `now_ms`, against the fastest packet, in ms.
    pub fn delay_ms(&self, now_ms: i64, media_ms: i64) -> i64 {
        let took = now_ms - media_ms;
        took - self.base().unwrap_or(took)
    }

    /// The moment of a sound has come.
    pub fn is_due(&self, now_ms: i64, media_ms: i64) -> bool {
        self.delay_ms(now_ms, media_ms) >= i64::from(self.target_ms)
    }

    fn base(&self) -> Option<i64> {
        match (self.least, self.least_before) {
            (Some(least), Some(before)) => Some(least.min(before)),
            (least, before) => least.or(before),
        }
    }

    fn remember(&mut self, longer_ms: i64) {
        self.packets = self.packets.saturating_add(1);
        // a plain mean at first, so that the first packets are not all that is known for seconds
        let news = NEWS.max(1.0 / self.packets as f32);
        for bin in &mut self.histogram {
            *bin *= 1.0 - news;
        }
        let bin = (longer_ms as usize).div_ceil(BIN_MS as usize).min(BINS - 1);
        self.histogram[bin] += news;
        if self.in_calm == CALM_PACKETS {
            (self.latest_before_ms, self.latest_ms, self.in_calm) = (self.latest_ms, 0, 0);
        }
        self.in_calm += 1;
        self.latest_ms = self.latest_ms.max((bin as u32 * BIN_MS as u32).min(PACKET_MS));
        if self.packets < PACKETS_MIN {
            return;
        }
        let mut beyond = 0.0;
        let needed = (1..BINS).rev().find(|&bin| {
            beyond += self.histogram[bin];
            beyond > TOO_LATE
        });
        let needed_ms = needed.unwrap_or(0) as u32 * BIN_MS as u32;
        let rebuild_ms = if self.losing > LOSING { PACKET_MS } else { 0 };
        let caution_ms = self.latest_ms.max(self.latest_before_ms);
        self.target_ms = (needed_ms + rebuild_ms).max(caution_ms).min(TARGET_MS_MAX);
    }
}

impl Default for TargetDelay {
    fn default() -> Self {
        Self::new()
    }
}
