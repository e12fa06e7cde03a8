//! Media messages cut into packets.
//!
//! Twilio sends 20 ms a message by custom, not by promise: a message may hold any length. Each is cut into packets of
//! 20 ms at most. A packet's number counts packets, and skips where Twilio's `chunk` skips, so that a gap stays
//! visible; its timestamp is the message's, plus 20 ms for each packet before it.

use crate::message::Count;
use voiced_core::packet::{Codec, Packet};

/// Bytes of 20 ms at 8 kHz.
const PACKET_BYTES: usize = 160;
/// Bytes of mu-law in 1 ms.
const BYTES_PER_MS: u64 = 8;

/// Numbers the packets of one stream.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    /// Chunk of the last message.
    chunk: u64,
    /// Number of the next packet.
    sequence: u32,
    /// Where the next message begins, when it does not say so itself, in bytes since the start.
    position: u64,
}

impl Splitter {
    /// Hands on the message's packets. `false` when the message is older than the last one, which is then dropped.
    pub(crate) fn split(&mut self, chunk: Option<Count>, timestamp: Option<Count>, sound: &[u8], mut hand_on: impl FnMut(Packet)) -> bool {
        let chunk = chunk.map_or(self.chunk.saturating_add(1), |chunk| chunk.0);
        if chunk <= self.chunk && self.position > 0 {
            return false;
        }
        let skipped = if self.position > 0 { chunk - self.chunk - 1 } else { 0 };
        self.sequence = self.sequence.wrapping_add(skipped as u32);
        self.chunk = chunk;
        if let Some(Count(ms)) = timestamp {
            self.position = ms.saturating_mul(BYTES_PER_MS);
        }
        for piece in sound.chunks(PACKET_BYTES) {
            let timestamp_ms = (self.position / BYTES_PER_MS) as u32;
            if let Some(packet) = Packet::new(Codec::Mulaw, self.sequence, timestamp_ms, piece) {
                hand_on(packet);
            }
            self.sequence = self.sequence.wrapping_add(1);
            self.position = self.position.saturating_add(piece.len() as u64);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(splitter: &mut Splitter, chunk: u64, ms: Option<u64>, len: usize) -> Vec<(u32, u32, usize)> {
        let mut packets = Vec::new();
        let sound = vec![0xFF; len];
        splitter.split(Some(Count(chunk)), ms.map(Count), &sound, |packet| {
            packets.push((packet.sequence, packet.timestamp_ms, packet.payload().len()));
        });
        packets
    }

    #[test]
    fn a_long_message_becomes_packets_that_follow_each_other() {
        let mut splitter = Splitter::default();
        assert_eq!(split(&mut splitter, 1, Some(5), 160), [(0, 5, 160)]);
        assert_eq!(split(&mut splitter, 2, Some(25), 400), [(1, 25, 160), (2, 45, 160), (3, 65, 80)]);
        assert_eq!(split(&mut splitter, 3, None, 160), [(4, 75, 160)]);
    }

    #[test]
    fn a_gap_stays_visible_and_an_old_message_is_dropped() {
        let mut splitter = Splitter::default();
        split(&mut splitter, 1, Some(0), 160);
        assert_eq!(split(&mut splitter, 4, Some(60), 160), [(3, 60, 160)]);
        assert_eq!(split(&mut splitter, 4, Some(60), 160), []);
        assert_eq!(split(&mut splitter, u64::MAX, Some(u64::MAX), 160).len(), 1);
    }
}
