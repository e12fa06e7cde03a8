//! The agent's sound alone, for a room that must not hear its own guests again: a packet when the moment of its playing
//! comes, so that what a clear takes back was never in it.

use super::memory::Memory;
use super::progress::Progress;
use super::sender::Encoder;
use crate::leg::CHUNK_LEN_MAX;
use crate::packet::{Codec, Packet};
use crate::time::MediaTime;

/// The second way out of an agent's sound.
pub struct Alone {
    encoder: Encoder,
    /// Position in the reply up to which it went out.
    at: u64,
}

impl Alone {
    /// Nothing went out.
    pub fn new() -> Self {
        Self { encoder: Encoder::new(Codec::Mulaw), at: 0 }
    }

    /// Makes ready for a new call.
    pub fn reset(&mut self, codec: Codec) {
        self.encoder.reset(codec);
        self.at = 0;
    }

    /// What packs the sound.
    pub fn encoder_mut(&mut self) -> &mut Encoder {
        &mut self.encoder
    }

    /// A new reply begins.
    pub fn begin(&mut self) {
        self.at = 0;
    }

    /// Hands out what plays now: the far end has come to `playing`.
    pub fn tick(&mut self, playing: i64, reply: &Progress, memory: &Memory, now: MediaTime, room: &mut dyn FnMut(Packet)) {
        let len = self.encoder.packet_len();
        // what a tick can bring: one packet, and one more after a late tick
        while self.at < reply.sent && playing >= self.at as i64 {
            let whole = reply.sent - self.at >= len as u64;
            let over = reply.complete && reply.sent == reply.written || playing >= reply.sent as i64;
            if !whole && !over {
                return;
            }
            let mut sound = [0; CHUNK_LEN_MAX];
            for (position, sample) in (self.at..reply.sent).zip(&mut sound[..len]) {
                *sample = memory.sample(position);
            }
            if let Some(packet) = self.encoder.pack(&sound[..len], now) {
                room(packet);
            }
            self.at = (self.at + len as u64).min(reply.sent);
        }
    }
}

impl Default for Alone {
    fn default() -> Self {
        Self::new()
    }
}
