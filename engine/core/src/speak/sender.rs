//! The way out to a line: packets of 20 ms, the agent's sound or silence with the guests' sound added, encoded, numbered
//! and paced.
//!
//! A telephone line gets packets while somebody can be heard. A room's receivers guess on after the last packet, so each
//! sound is followed by [`TAIL_PACKETS`] of silence; then nothing is encoded or sent until there is sound again, and the
//! timestamp shows the gap.

use super::guests::GuestSound;
use super::pace::Pace;
use crate::codec::opus::OpusEncoder;
use crate::codec::{f32_from_sample, mulaw_encode, sample_from_f32};
use crate::frame::HeardFrame;
use crate::leg::CHUNK_LEN_MAX;
use crate::line::ToLine;
use crate::mix;
use crate::packet::{Codec, PACKET_BYTES_MAX, Packet};
use crate::time::MediaTime;

/// Sound in one packet, as Twilio sends it too.
pub const PACKET_MS: u64 = 20;
/// Silence after sound in a room: one packet holds what the encoder keeps back, 6.5 ms, one is all silence.
const TAIL_PACKETS: u8 = 2;

/// One line's packets.
pub struct Sender {
    encoder: Encoder,
    pace: Pace,
    guests: GuestSound,
    tail: u8,
}

impl Sender {
    /// A silent line, for mu-law at first.
    pub fn new() -> Self {
        Self { encoder: Encoder::new(Codec::Mulaw), pace: Pace::new(Codec::Mulaw.rate(), 0), guests: GuestSound::new(), tail: 0 }
    }

    /// Makes ready for a new call, without allocation; Opus needs its encoder, see [`Sender::encoder_mut`].
    pub fn reset(&mut self, codec: Codec, lead_ms: u32) {
        self.encoder.reset(codec);
        self.pace = Pace::new(codec.rate(), lead_ms);
        self.guests.reset(codec);
        self.tail = 0;
    }

    /// What packs the sound.
    pub fn encoder_mut(&mut self) -> &mut Encoder {
        &mut self.encoder
    }

    /// The far end's queue.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Takes 10 ms of the guests whom the caller hears; `None` when there are none.
    pub fn guests(&mut self, sound: Option<&HeardFrame>) {
        self.pace.live(sound.is_some());
        match sound {
            Some(sound) => self.guests.push(sound),
            None => self.guests.clear(),
        }
    }

    /// Sends a packet of the agent's sound.
    pub fn send(&mut self, sound: &[i16], now: MediaTime, line: &mut dyn FnMut(ToLine)) {
        let mut mixed = [0.0; CHUNK_LEN_MAX];
        if self.guests.take(&mut mixed[..sound.len()]) {
            for (mixed, &sample) in mixed.iter_mut().zip(sound) {
                *mixed += f32_from_sample(sample);
            }
            self.send_mixed(&mut mixed[..sound.len()], now, line);
        } else {
            self.pack(sound, now, line);
        }
        self.tail = TAIL_PACKETS;
    }

    /// Sends what is due besides the agent's sound: the guests' and the silence after any. Returns the samples sent.
    pub fn fill(&mut self, now: MediaTime, line: &mut dyn FnMut(ToLine)) -> u64 {
        let len = self.encoder.packet_len();
        let mut sent = 0;
        let mut mixed = [0.0; CHUNK_LEN_MAX];
        while self.guests.is_live() && self.pace.wants_more(now) && self.guests.take(&mut mixed[..len]) {
            self.send_mixed(&mut mixed[..len], now, line);
            self.tail = TAIL_PACKETS;
            sent += len as u64;
        }
        if self.tail > 0 && self.encoder.codec == Codec::Opus && self.pace.until_dry(now) <= 0 {
            self.tail -= 1;
            self.pack(&[0; CHUNK_LEN_MAX][..len], now, line);
            sent += len as u64;
        }
        sent
    }

    /// The far end dropped its queue.
    pub fn cleared(&mut self) {
        self.pace.cleared();
    }

    fn send_mixed(&mut self, mixed: &mut [f32], now: MediaTime, line: &mut dyn FnMut(ToLine)) {
        mix::limit(mixed);
        let mut sound = [0; CHUNK_LEN_MAX];
        for (sample, &mixed) in sound.iter_mut().zip(&*mixed) {
            *sample = sample_from_f32(mixed);
        }
        self.pack(&sound[..mixed.len()], now, line);
    }

    fn pack(&mut self, sound: &[i16], now: MediaTime, line: &mut dyn FnMut(ToLine)) {
        if let Some(packet) = self.encoder.pack(sound, self.pace.starts_at(now)) {
            line(ToLine::Audio(packet));
        }
        self.pace.sent(sound.len() as u64, now);
    }
}

impl Default for Sender {
    fn default() -> Self {
        Self::new()
    }
}

/// Sound into numbered packets.
pub struct Encoder {
    codec: Codec,
    opus: Option<OpusEncoder>,
    sequence: u32,
}

impl Encoder {
    /// The first packet will be number 0.
    pub fn new(codec: Codec) -> Self {
        Self { codec, opus: None, sequence: 0 }
    }

    /// Makes ready for a new call.
    pub fn reset(&mut self, codec: Codec) {
        (self.codec, self.sequence) = (codec, 0);
    }

    /// Lends or takes back what Opus needs; without it no packet of Opus is made.
    pub fn opus_mut(&mut self) -> &mut Option<OpusEncoder> {
        &mut self.opus
    }

    /// Samples of a packet.
    pub fn packet_len(&self) -> usize {
        PACKET_MS as usize * self.codec.rate().hz() as usize / 1_000
    }

    /// Makes a packet of [`Encoder::packet_len`] samples that begin at `at` in the leg's media.
    pub fn pack(&mut self, sound: &[i16], at: MediaTime) -> Option<Packet> {
        let mut bytes = [0; PACKET_BYTES_MAX];
        let written = match (self.codec, &mut self.opus) {
            (Codec::Mulaw, _) => mulaw_encode(sound, &mut bytes),
            (Codec::Opus, Some(opus)) => opus.encode(sound, &mut bytes),
            (Codec::Opus, None) => 0,
        };
        let packet = Packet::new(self.codec, self.sequence, at.ms() as u32, &bytes[..written])?;
        self.sequence = self.sequence.wrapping_add(1);
        Some(packet)
    }
}
