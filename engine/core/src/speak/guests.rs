//! The guests' sound on its way to the caller: it waits for the next packet, at the rate at which guests are heard, and
//! is converted to the line's.

use crate::frame::{HEARD_LEN, HeardFrame, Rate, energy};
use crate::packet::Codec;
use crate::resample::Resampler;
use crate::time::TICK_MS;

/// Sound that may wait: a packet being gathered, and one more for a far end that still has enough.
const WAITING_LEN_MAX: usize = 6 * HEARD_LEN;
/// A packet's worth of sound.
const PACKET_LEN: usize = 2 * HEARD_LEN;
/// Loudness from which a guest can be heard, -60 dB of full scale.
const LIVE_RMS: f32 = 0.001;
/// Quiet within which a guest has not finished speaking, in ms; sent along, so that words keep their rhythm.
const LIVE_MS: u32 = 400;

/// The sum of the guests whom one caller hears.
pub struct GuestSound {
    waiting: [f32; WAITING_LEN_MAX],
    len: usize,
    /// Since a guest could be heard.
    quiet_ms: u32,
    codec: Codec,
    to_8_khz: Resampler,
    to_48_khz: Resampler,
}

impl GuestSound {
    /// No guests, on a line of mu-law at first.
    pub fn new() -> Self {
        Self {
            waiting: [0.0; WAITING_LEN_MAX],
            len: 0,
            quiet_ms: LIVE_MS,
            codec: Codec::Mulaw,
            to_8_khz: Resampler::new(Rate::Hz16000.hz(), Rate::Hz8000.hz()),
            to_48_khz: Resampler::new(Rate::Hz16000.hz(), Rate::Hz48000.hz()),
        }
    }

    /// Forgets all sound.
    pub fn reset(&mut self, codec: Codec) {
        self.codec = codec;
        self.to_8_khz.reset();
        self.to_48_khz.reset();
        self.clear();
    }

    /// Drops what waits.
    pub fn clear(&mut self) {
        (self.len, self.quiet_ms) = (0, LIVE_MS);
    }

    /// Takes the next 10 ms; the oldest makes room.
    pub fn push(&mut self, sound: &HeardFrame) {
        let power = energy(sound) / HEARD_LEN as f32;
        self.quiet_ms = if power > LIVE_RMS * LIVE_RMS { 0 } else { self.quiet_ms.saturating_add(TICK_MS as u32) };
        if self.len + HEARD_LEN > WAITING_LEN_MAX {
            self.remove(PACKET_LEN);
        }
        self.waiting[self.len..self.len + HEARD_LEN].copy_from_slice(sound);
        self.len += HEARD_LEN;
        if !self.is_live() {
            // nobody waits for it: what is sent next begins with the present
            self.remove(self.len.saturating_sub(PACKET_LEN));
        }
    }

    /// Somebody can be heard, or could a moment ago.
    pub fn is_live(&self) -> bool {
        self.quiet_ms < LIVE_MS
    }

    /// Fills a packet's worth of samples at the line's rate; false when there is less, or nothing to be heard.
    pub fn take(&mut self, packet: &mut [f32]) -> bool {
        if !self.is_live() || self.len < PACKET_LEN {
            return false;
        }
        let resampler = match self.codec {
            Codec::Mulaw => &mut self.to_8_khz,
            Codec::Opus => &mut self.to_48_khz,
        };
        resampler.process(&self.waiting[..PACKET_LEN], packet);
        self.remove(PACKET_LEN);
        true
    }

    fn remove(&mut self, len: usize) {
        self.waiting.copy_within(len..self.len, 0);
        self.len -= len;
    }
}

impl Default for GuestSound {
    fn default() -> Self {
        Self::new()
    }
}
