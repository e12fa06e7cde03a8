//! A voice, its packets, and a seeded network between it and an ear.

use std::sync::OnceLock;

use voiced_core::codec::opus::OpusEncoder;
use voiced_core::packet::{Codec, Packet};

/// A packet and when it comes.
#[derive(Clone, Copy)]
pub struct Arrival {
    pub at_ms: u64,
    pub packet: Packet,
}

/// What a network does to packets.
#[derive(Clone, Copy)]
pub struct Network {
    pub loss_percent: u32,
    /// Each packet takes up to so much longer.
    pub jitter_ms: u64,
    /// How much faster the sender's clock runs.
    pub drift_ppm: i64,
    pub seed: u32,
}

impl Network {
    pub const STEADY: Self = Self { loss_percent: 0, jitter_ms: 0, drift_ppm: 0, seed: 1 };

    /// Packets in the order in which they come; the first always comes.
    pub fn carry(&self, packets: &[Packet]) -> Vec<Arrival> {
        let mut random = Random(self.seed.wrapping_mul(0x9E37_79B9) | 1);
        let mut arrivals = Vec::new();
        for packet in packets {
            let (lost, later) = (random.below(100) < self.loss_percent, random.below(self.jitter_ms as u32 + 1));
            let sent = i64::from(packet.timestamp_ms);
            let at_ms = (sent - sent * self.drift_ppm / 1_000_000) as u64 + u64::from(later);
            if !lost || packet.sequence == 0 || packet.sequence as usize == packets.len() - 1 {
                arrivals.push(Arrival { at_ms, packet: *packet });
            }
        }
        arrivals.sort_by_key(|arrival| arrival.at_ms);
        arrivals
    }
}

struct Random(u32);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(self.0 >> 8) * u64::from(end)) >> 24) as u32
    }
}

/// The voice in packets of 20 ms, as browsers make them: ten seconds, again and again.
pub fn packets(ms: usize) -> Vec<Packet> {
    static ENCODED: OnceLock<Vec<Packet>> = OnceLock::new();
    let encoded = ENCODED.get_or_init(|| {
        let mut encoder = voip();
        encoder.set_inband_fec(true).unwrap();
        encoder.set_packet_loss_perc(10).unwrap();
        pack(10_000, |sound, bytes| encoder.encode(sound, bytes).unwrap())
    });
    let packet = |(n, packet): (usize, &Packet)| Packet::new(Codec::Opus, n as u32, n as u32 * 20, packet.payload()).unwrap();
    encoded.iter().cycle().take(ms / 20).enumerate().map(packet).collect()
}

/// The same voice from an encoder that says nothing twice.
pub fn packets_without_fec(ms: usize) -> Vec<Packet> {
    let mut encoder = voip();
    pack(ms, |sound, bytes| encoder.encode(sound, bytes).unwrap())
}

/// The same voice from an encoder of ours.
pub fn packets_of(mut encoder: OpusEncoder, ms: usize) -> Vec<Packet> {
    pack(ms, |sound, bytes| encoder.encode(sound, bytes))
}

fn voip() -> opus::Encoder {
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
    encoder.set_bitrate(opus::Bitrate::Bits(32_000)).unwrap();
    encoder.set_complexity(1).unwrap();
    encoder.set_signal(opus::Signal::Voice).unwrap();
    encoder
}

fn pack(ms: usize, mut encode: impl FnMut(&[i16], &mut [u8]) -> usize) -> Vec<Packet> {
    let sound: Vec<i16> = voice().take(ms * 48).map(|sample| (sample * 32_767.0) as i16).collect();
    let packet = |(n, sound): (usize, &[i16])| {
        let mut bytes = [0; 640];
        let len = encode(sound, &mut bytes);
        Packet::new(Codec::Opus, n as u32, n as u32 * 20, &bytes[..len]).unwrap()
    };
    sound.chunks_exact(960).enumerate().map(packet).collect()
}

/// A made-up voice at 48 kHz, 1.4 s of talk in every 2 s: a buzz through three moving formants, in syllables.
pub fn voice() -> impl Iterator<Item = f32> {
    let (mut phase, mut noise, mut formants) = (0.0f32, 1u32, [[0.0f32; 2]; 3]);
    (0..).map(move |n: u32| {
        let seconds = n as f32 / 48_000.0;
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let hiss = (noise >> 8) as f32 / 8_388_608.0 - 1.0;
        phase = (phase + (120.0 + 25.0 * (seconds * 5.0).sin()) / 48_000.0) % 1.0;
        let syllable = if seconds % 2.0 < 1.4 { (seconds * 12.0).sin().abs() } else { 0.0 };
        let mut sound = (1.0 - 2.0 * phase + 0.05 * hiss) * syllable;
        let vowel = (seconds * 7.0).sin();
        for ([last, before], (centre, width)) in
            formants.iter_mut().zip([(500.0 + 200.0 * vowel, 80.0), (1_500.0 - 400.0 * vowel, 100.0), (2_500.0 + 100.0 * vowel, 140.0)])
        {
            let radius = (-std::f32::consts::PI * width / 48_000.0f32).exp();
            let turn = (std::f32::consts::TAU * centre / 48_000.0).cos();
            let out = sound * (1.0 - radius) + 2.0 * radius * turn * *last - radius * radius * *before;
            (*before, *last) = (*last, out);
            sound = out * 2.0;
        }
        (sound * 4.0 + 0.0003 * hiss).clamp(-1.0, 1.0)
    })
}
