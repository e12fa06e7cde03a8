//! How unlike what was heard is to what was said: the distance of their log spectra, in dB.
//!
//! Each second of the said sound is looked for by cross-correlation around where the last one was, since an ear may stretch
//! time a little. Then windows of 20 ms in which something is said are compared in bands of 200 Hz.

use std::f32::consts::TAU;

/// Samples at 16 kHz in a window.
const WINDOW: usize = 320;
/// Bands of 200 Hz, up to 6.4 kHz.
const BANDS: usize = 32;
/// Below this nobody hears a difference, -70 dB of full scale.
const FLOOR: f32 = 1e-7;
/// Mean square from which a window is speech, -40 dB of full scale.
const SPEECH_POWER: f32 = 1e-4;
/// Samples that share a place, a second.
const BLOCK: usize = 50 * WINDOW;
/// How far from where the last second was the next one may be, in samples: 60 ms.
const DRIFT: usize = 960;

/// What a comparison found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// Mean log-spectral distance, in dB.
    pub lsd_db: f32,
    /// Windows compared.
    pub windows: usize,
}

/// Compares a sound, all of it at 16 kHz, with what was heard, whose beginning is near the sound's.
pub fn quality(said: &[f32], heard: &[f32]) -> Option<Quality> {
    let mut place: Option<usize> = None;
    let (mut sum, mut windows) = (0.0, 0);
    for (number, block) in said.chunks_exact(BLOCK).enumerate() {
        if power(block) < SPEECH_POWER {
            continue;
        }
        let expected = number * BLOCK;
        // the first is looked for everywhere near
        let (from, until) = match place {
            None => (expected, expected + heard.len().saturating_sub(said.len()) + BLOCK),
            Some(lag) => ((expected + lag).saturating_sub(DRIFT), expected + lag + DRIFT),
        };
        let Some(found) = find(block, heard, from, until) else { continue };
        place = Some(found.saturating_sub(expected));
        for (said, heard) in block.chunks_exact(WINDOW).zip(heard[found..].chunks_exact(WINDOW)) {
            if power(said) >= SPEECH_POWER {
                sum += distance(said, heard);
                windows += 1;
            }
        }
    }
    (windows > 0).then(|| Quality { lsd_db: sum / windows as f32, windows })
}

/// Where the block is most alike, among these places; half of the samples say so as well as all.
fn find(block: &[f32], heard: &[f32], from: usize, until: usize) -> Option<usize> {
    let likeness = |place: usize| {
        let part = heard.get(place..place + BLOCK)?;
        let (mut product, mut power) = (0.0, 0.0);
        for (said, heard) in block.iter().zip(part).step_by(2) {
            product += said * heard;
            power += heard * heard;
        }
        Some((place, product / power.sqrt().max(f32::MIN_POSITIVE)))
    };
    (from..until).step_by(2).filter_map(likeness).max_by(|a, b| a.1.total_cmp(&b.1)).map(|(place, _)| place)
}

fn distance(said: &[f32], heard: &[f32]) -> f32 {
    let (said, heard) = (bands(said), bands(heard));
    let squares: f32 = said.iter().zip(&heard).map(|(a, b)| (10.0 * ((a + FLOOR) / (b + FLOOR)).log10()).powi(2)).sum();
    (squares / BANDS as f32).sqrt()
}

fn bands(window: &[f32]) -> [f32; BANDS] {
    // 200 Hz has a period of 80 samples, and all bands are multiples of it
    let cosine: [f32; 80] = std::array::from_fn(|at| (TAU * at as f32 / 80.0).cos());
    let hann = |at: usize| 0.5 - 0.5 * (TAU * at as f32 / WINDOW as f32).cos();
    let weighted: Vec<f32> = window.iter().enumerate().map(|(at, sample)| sample * hann(at)).collect();
    std::array::from_fn(|band| {
        let (mut re, mut im) = (0.0, 0.0);
        for (at, sample) in weighted.iter().enumerate() {
            let turn = (band + 1) * at;
            re += sample * cosine[turn % 80];
            im += sample * cosine[(turn + 20) % 80];
        }
        (re * re + im * im) / (WINDOW * WINDOW) as f32
    })
}

fn power(sound: &[f32]) -> f32 {
    sound.iter().map(|sample| sample * sample).sum::<f32>() / sound.len().max(1) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Speech;

    #[test]
    fn the_same_sound_later_is_no_distance_and_holes_are_some() {
        let mut speech = Speech::new(16_000, 0);
        let mut said: Vec<f32> = (0..BLOCK * 4).map(|_| speech.next_sample()).collect();
        let peak = said.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
        for sample in &mut said {
            *sample *= 0.9 / peak;
        }
        let mut heard = vec![0.0; 1_234];
        heard.extend(&said);
        heard.resize(heard.len() + BLOCK, 0.0);
        assert_eq!(quality(&said, &heard).map(|found| found.lsd_db), Some(0.0));
        for at in (2_000..heard.len() - 400).step_by(3_200) {
            heard[at..at + 320].fill(0.0);
        }
        let holed = quality(&said, &heard).unwrap();
        assert!(holed.lsd_db > 1.0, "{holed:?}");
    }
}
