//! What somebody heard: packets with the moments of their arrival, decoded into one run of sound on the sender's clock, each
//! sample of which can be told when it could be played at the earliest.

use std::time::{Duration, Instant};

use voiced_core::codec::mulaw_decode;
use voiced_core::codec::opus::{DECODED_LEN_MAX, OpusDecoder, OpusError};
use voiced_core::packet::{Codec, PACKET_BYTES_MAX, Packet};

/// Samples in a ms of [`Heard::sound`].
const PER_MS: usize = 16;
/// Sound at most, in ms: what lies further ahead is a broken timestamp.
const LEN_MS_MAX: usize = 600_000;

/// A run of sound at 16 kHz.
pub struct Heard {
    sound: Vec<f32>,
    /// First sample, length and arrival of each packet, in the sound's order.
    packets: Vec<(usize, usize, Instant)>,
}

impl Heard {
    /// Decodes the packets in the sender's order; where nothing was sent there is silence.
    pub fn decode(mut arrived: Vec<(Instant, Packet)>) -> Result<Self, OpusError> {
        arrived.sort_by_key(|(_, packet)| packet.sequence);
        let mut decoder = OpusDecoder::new()?;
        let mut heard = Self { sound: Vec::new(), packets: Vec::new() };
        let start_ms = arrived.first().map_or(0, |(_, packet)| packet.timestamp_ms);
        let mut decoded = [0.0; DECODED_LEN_MAX];
        for (at, packet) in arrived {
            let place = packet.timestamp_ms.wrapping_sub(start_ms) as usize;
            let len = match packet.codec {
                Codec::Opus => decoder.decode(packet.payload(), &mut decoded),
                Codec::Mulaw => decode_mulaw(packet.payload(), &mut decoded),
            };
            if place <= LEN_MS_MAX && len > 0 {
                let first = place * PER_MS;
                heard.sound.resize(heard.sound.len().max(first + len), 0.0);
                heard.sound[first..first + len].copy_from_slice(&decoded[..len]);
                heard.packets.push((first, len, at));
            }
        }
        Ok(heard)
    }

    /// The sound of the packets that arrived from `from` on for so long, and its first sample's place.
    pub fn arrived(&self, from: Instant, lasting: Duration) -> (usize, &[f32]) {
        let mut within = self.packets.iter().filter(|(_, _, at)| (from..from + lasting).contains(at));
        let Some(&(first, len, _)) = within.next() else { return (0, &[]) };
        let end = within.next_back().map_or(first + len, |(last, len, _)| last + len);
        (first, self.sound.get(first..end).unwrap_or_default())
    }

    /// The sound from one place to another, as far as it reaches.
    pub fn between(&self, from: usize, until: usize) -> &[f32] {
        let until = until.min(self.sound.len());
        &self.sound[from.min(until)..until]
    }

    /// When the sample at this place could be played, if its packet is played as soon as it comes.
    pub fn playable(&self, place: usize) -> Option<Instant> {
        let after = self.packets.partition_point(|(first, _, _)| *first <= place);
        let (first, len, at) = *self.packets.get(after.checked_sub(1)?)?;
        (place < first + len).then(|| at + Duration::from_secs_f64((place - first) as f64 / (PER_MS * 1_000) as f64))
    }
}

/// At 16 kHz, each sample twice: who halves the rate again gets what was sent.
fn decode_mulaw(payload: &[u8], sound: &mut [f32]) -> usize {
    let mut at_8k = [0.0; PACKET_BYTES_MAX];
    let len = mulaw_decode(payload, &mut at_8k).min(sound.len() / 2);
    for (pair, sample) in sound.chunks_exact_mut(2).zip(&at_8k[..len]) {
        pair.fill(*sample);
    }
    len * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_lies_where_its_timestamp_says_and_can_be_played_when_its_packet_is_here() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let packet = |sequence, timestamp_ms, byte| Packet::new(Codec::Mulaw, sequence, timestamp_ms, &[byte; 160]).unwrap();
        let arrived = vec![(start + ms(25), packet(8, 120, 0x10)), (start, packet(7, 100, 0x80)), (start + ms(60), packet(9, 160, 0x10))];
        let heard = Heard::decode(arrived).unwrap();
        assert!(heard.sound[0] > 0.5 && heard.sound[320] < -0.1 && heard.sound[640] == 0.0 && heard.sound[960] < -0.1);
        assert_eq!(heard.playable(320 + 160), Some(start + ms(35)));
        assert_eq!(heard.playable(700), None, "nothing was sent for that moment");
        assert_eq!(heard.arrived(start + ms(20), ms(20)).0, 320);
    }
}
