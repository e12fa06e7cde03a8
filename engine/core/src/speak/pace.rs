//! The far end plays in real time whatever it is given at whatever moment, one sample after the other. So one number
//! tells how it stands: the moment at which it will have played all it was given. What lies between now and then is
//! queued there, and the pace is kept by sending only while that is less than the lead. A long lead is filled up when half
//! of it is played: the transport makes one message of what goes out together, and messages are what costs.

use crate::frame::Rate;
use crate::time::MediaTime;

/// Longest lead, in ms: what is sent can no longer be changed without a clear, and the playout's memory must hold it.
pub const LEAD_MS_MAX: u32 = 500;
/// Shortest lead, in ms: a packet, sent a tick before the one before it has been played. For rooms, which keep the
/// delay that they need themselves.
pub const LEAD_MS_MIN: u32 = 20;
/// What is left of a lead before it is filled up, in ms, at least, for the network's jitter; shorter leads are filled up
/// packet by packet.
const LEFT_MS_MIN: u32 = 60;
/// The lead while guests are heard, in ms: their sound waits as long as the agent's, and a clear takes so much of it.
const LIVE_LEAD_MS: u32 = 60;

/// The far end's queue as this end can know it: without the way there.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    per_ms: u64,
    lead: u64,
    /// The queue had the lead, and is left alone until there is room to fill up.
    full: bool,
    live: bool,
    /// When the queue runs dry, in samples of media time.
    dry_at: u64,
}

impl Pace {
    /// An empty queue; the lead is kept within [`LEAD_MS_MIN`] and [`LEAD_MS_MAX`].
    pub fn new(rate: Rate, lead_ms: u32) -> Self {
        let per_ms = u64::from(rate.hz()) / 1_000;
        Self { per_ms, lead: u64::from(lead_ms.clamp(LEAD_MS_MIN, LEAD_MS_MAX)) * per_ms, full: false, live: false, dry_at: 0 }
    }

    /// More may be sent now.
    pub fn wants_more(&self, now: MediaTime) -> bool {
        let half = self.lead() / 2;
        let left_alone = self.full && half >= u64::from(LEFT_MS_MIN) * self.per_ms;
        self.queued(now) < if left_alone { half } else { self.lead() }
    }

    fn lead(&self) -> u64 {
        if self.live { self.lead.min(u64::from(LIVE_LEAD_MS) * self.per_ms) } else { self.lead }
    }

    /// Somebody besides the agent is heard, in real time: the lead is short.
    pub fn live(&mut self, live: bool) {
        self.live = live;
    }

    /// Samples queued at the far end.
    pub fn queued(&self, now: MediaTime) -> u64 {
        self.until_dry(now).max(0) as u64
    }

    /// Samples until the queue runs dry; negative when it has been dry for so long.
    pub fn until_dry(&self, now: MediaTime) -> i64 {
        self.dry_at as i64 - (now.ms() * self.per_ms) as i64
    }

    /// When a packet sent now will begin to play.
    pub fn starts_at(&self, now: MediaTime) -> MediaTime {
        MediaTime(now.ms().max(self.dry_at / self.per_ms))
    }

    /// So many samples were sent.
    pub fn sent(&mut self, samples: u64, now: MediaTime) {
        self.dry_at = self.dry_at.max(now.ms() * self.per_ms) + samples;
        self.full = self.queued(now) >= self.lead();
    }

    /// The queue was cleared.
    pub fn cleared(&mut self) {
        self.dry_at = 0;
        self.full = false;
    }
}
