//! The sound of fake voices: a hum with the rhythm of speech, so that meters and listeners take it for a voice.

use std::f32::consts::TAU;

/// Sound of one word, in ms.
const WORD_MS: u32 = 300;
/// Part of a word that sounds; the rest is the gap to the next.
const SOUNDING: f32 = 0.85;
/// Pitch of the voice, in Hz.
const PITCH_HZ: f32 = 140.0;
/// Loudest sample: -10 dBFS, as loud as speech on a telephone.
const LEVEL: f32 = 10_000.0;
/// Length of one piece on the wire, in ms.
const PIECE_MS: u32 = 100;

/// The pieces of a phrase's sound, 100 ms each.
pub(super) fn pieces(text: &str, rate_hz: u32) -> Vec<Vec<u8>> {
    let words = text.split_whitespace().count().max(1);
    // a word is a whole number of periods, so each sounds as the first
    let word: Vec<u8> = (0..WORD_MS * rate_hz / 1_000).flat_map(|n| sample(n, rate_hz).to_le_bytes()).collect();
    let sound = word.repeat(words);
    sound.chunks((PIECE_MS * rate_hz / 1_000 * 2) as usize).map(<[u8]>::to_vec).collect()
}

fn sample(n: u32, rate_hz: u32) -> i16 {
    let word = rate_hz * WORD_MS / 1_000;
    let in_word = n as f32 / (word as f32 * SOUNDING);
    if in_word >= 1.0 {
        return 0;
    }
    let envelope = (in_word * TAU / 2.0).sin();
    let phase = n as f32 * PITCH_HZ / rate_hz as f32;
    let hum: f32 =
        [1.0, 0.6, 0.5, 0.3, 0.2].iter().enumerate().map(|(harmonic, loudness)| loudness * (phase.fract() * TAU * (harmonic + 1) as f32).sin()).sum();
    (hum / 2.6 * envelope * LEVEL) as i16
}
