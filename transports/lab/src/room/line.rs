//! Telephone sound, as scripts and measures have it, into a room's packets and back.

use crate::dialogue::FRAME_BYTES;
use voiced_core::codec::opus::{ENCODED_LEN, OpusEncoder, OpusError, begins_silence};
use voiced_core::codec::{mulaw_decode, mulaw_from_sample, sample_from_f32};
use voiced_core::frame::HEARD_LEN;
use voiced_core::hear::opus::OpusEar;
use voiced_core::packet::{Codec, PACKET_BYTES_MAX, Packet};
use voiced_core::resample::Resampler;

/// The way out.
pub(super) struct Speak {
    to_48k: Resampler,
    encoder: OpusEncoder,
    sequence: u32,
    silent: bool,
}

impl Speak {
    pub(super) fn new() -> Result<Self, OpusError> {
        Ok(Self { to_48k: Resampler::new(8_000, 48_000), encoder: OpusEncoder::new()?, sequence: 0, silent: false })
    }

    /// The packet of 20 ms that begin at `at_ms`; none while the caller is silent and has said so (DTX).
    pub(super) fn packet(&mut self, frame: &[u8; FRAME_BYTES], at_ms: u32) -> Option<Packet> {
        let (mut at_8k, mut at_48k) = ([0.0; FRAME_BYTES], [0.0; ENCODED_LEN]);
        mulaw_decode(frame, &mut at_8k);
        self.to_48k.process(&at_8k, &mut at_48k);
        let mut bytes = [0; PACKET_BYTES_MAX];
        let len = self.encoder.encode(&at_48k.map(sample_from_f32), &mut bytes);
        let was_silent = std::mem::replace(&mut self.silent, begins_silence(&bytes[..len]));
        if was_silent && self.silent {
            return None;
        }
        let packet = Packet::new(Codec::Opus, self.sequence, at_ms, &bytes[..len])?;
        self.sequence = self.sequence.wrapping_add(1);
        Some(packet)
    }
}

/// The way in.
pub(super) struct Listen {
    /// Holds its sound inline, which a task has no place for.
    ear: Box<OpusEar>,
    to_8k: Resampler,
    concealed: u32,
}

impl Listen {
    pub(super) fn new() -> Result<Self, OpusError> {
        Ok(Self { ear: Box::new(OpusEar::new()?), to_8k: Resampler::new(16_000, 8_000), concealed: 0 })
    }

    pub(super) fn receive(&mut self, packet: &Packet) {
        self.ear.receive(packet);
    }

    /// Appends the next 10 ms to `heard`; true when some of it was made up for what did not come.
    pub(super) fn tick(&mut self, heard: &mut Vec<u8>) -> bool {
        let (mut at_16k, mut at_8k) = ([0.0; HEARD_LEN], [0.0; HEARD_LEN / 2]);
        self.ear.tick(&mut at_16k);
        let len = self.to_8k.process(&at_16k, &mut at_8k);
        heard.extend(at_8k[..len].iter().map(|&sample| mulaw_from_sample(sample_from_f32(sample))));
        let concealed = self.ear.counters().concealed_frames;
        std::mem::replace(&mut self.concealed, concealed) != concealed
    }

    pub(super) fn received(&self) -> u64 {
        self.ear.counters().received.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialogue::{SILENCE, power};

    #[test]
    fn what_a_caller_says_is_heard_at_its_level_and_silence_costs_few_packets() {
        let (mut speak, mut listen, mut heard) = (Speak::new().unwrap(), Listen::new().unwrap(), Vec::new());
        let tone: [u8; FRAME_BYTES] = std::array::from_fn(|at| mulaw_from_sample((8_000.0 * (at as f32 * std::f32::consts::TAU / 16.0).sin()) as i16));
        let mut sent = [0, 0];
        for frame in 0..200u32 {
            let quiet = frame >= 100;
            // syllables: an encoder for voices takes a tone that lasts for noise
            let sounds = !quiet && frame % 10 < 6;
            if let Some(packet) = speak.packet(if sounds { &tone } else { &[SILENCE; FRAME_BYTES] }, frame * 20) {
                sent[usize::from(quiet)] += 1;
                listen.receive(&packet);
            }
            listen.tick(&mut heard);
            listen.tick(&mut heard);
        }
        let level = power(&heard[..17_000]) as f64 * 17_000.0 / (power(&tone) as f64 * 60.0 * FRAME_BYTES as f64);
        assert!((0.6..1.4).contains(&level), "{level}");
        assert_eq!(power(&heard[28_000..]), 0, "silence is silent");
        assert!(sent[0] > 90 && sent[1] < 50, "{sent:?}");
        assert_eq!(heard.len(), 200 * FRAME_BYTES);
    }
}
