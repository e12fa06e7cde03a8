//! The codecs: Opus in [`opus`], and here G.711 mu-law: eight bits that keep about fourteen bits' worth of telephone speech.
//!
//! A sample's size picks one of eight segments, each twice as coarse as the one below; four bits say where in the
//! segment it lies. Decoding is a table of 256 values; encoding is a few shifts, so no large table competes with the
//! models for the cache.
//!
//! Negative samples are made positive by inverting the bits, as ITU-T G.191 does, not by negating. The widespread
//! table implementations negate and so choose the neighbouring code on 508 inputs that lie on a threshold
//! (for instance -1 to -4). Inverting keeps both halves of the scale equally wide and agrees with ITU's vectors.

pub mod opus;

/// Decodes mu-law bytes into `sound`, full scale ±1. Returns the samples written.
pub fn mulaw_decode(bytes: &[u8], sound: &mut [f32]) -> usize {
    for (sample, &byte) in sound.iter_mut().zip(bytes) {
        *sample = f32::from(MULAW[usize::from(byte)]) / FULL_SCALE;
    }
    sound.len().min(bytes.len())
}

/// Encodes 16-bit samples into mu-law `bytes`. Returns the bytes written.
pub fn mulaw_encode(sound: &[i16], bytes: &mut [u8]) -> usize {
    for (byte, &sample) in bytes.iter_mut().zip(sound) {
        *byte = mulaw_from_sample(sample);
    }
    sound.len().min(bytes.len())
}

/// The mu-law byte of a sample.
pub const fn mulaw_from_sample(sample: i16) -> u8 {
    let inverted = if sample < 0 { !sample } else { sample };
    let size = (inverted as u16 >> 2) + BIAS;
    let size = if size > SIZE_MAX { SIZE_MAX } else { size };
    let segment = (u16::BITS - size.leading_zeros()) as u16 - BIAS_BITS + 1;
    let code = ((8 - segment) << 4) | (0xF - ((size >> segment) & 0xF));
    let sign = if sample < 0 { 0 } else { 0x80 };
    code as u8 | sign
}

/// The sample in the middle of what a mu-law byte stands for.
pub const fn sample_from_mulaw(byte: u8) -> i16 {
    MULAW[byte as usize]
}

/// A 16-bit sample of a ±1 signal, clipped at full scale.
pub fn sample_from_f32(sample: f32) -> i16 {
    // `round` is a call into libm where the compiler may not assume SSE 4.1
    (sample * FULL_SCALE + ROUNDS - ROUNDS) as i16
}

/// A ±1 sample of a 16-bit signal.
pub fn f32_from_sample(sample: i16) -> f32 {
    f32::from(sample) / FULL_SCALE
}

/// Where an f32 has no room for fractions: what is added to it is rounded.
const ROUNDS: f32 = 12_582_912.0;
/// 16-bit full scale.
const FULL_SCALE: f32 = 32_768.0;
/// Added to a 14-bit size so that every segment begins at a power of two.
const BIAS: u16 = 33;
/// Bits of the smallest biased size.
const BIAS_BITS: u16 = 6;
/// Largest biased size, 13 bits; what is louder clips.
const SIZE_MAX: u16 = 0x1FFF;

const MULAW: [i16; 256] = mulaw_table();

const fn mulaw_table() -> [i16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let code = !(byte as u8);
        let segment = (code >> 4) & 7;
        let step = (code & 0xF) as i32;
        let size = (((step << 3) + 0x84) << segment) - 0x84;
        table[byte] = if code & 0x80 == 0 { size as i16 } else { -size as i16 };
        byte += 1;
    }
    table
}
