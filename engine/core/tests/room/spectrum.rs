//! How unlike two sounds are to an ear: the distance of their log spectra, in dB.

use std::f32::consts::TAU;

/// Samples in a window, 20 ms at 16 kHz.
const WINDOW: usize = 320;
/// Bands of 200 Hz up to 6.4 kHz.
const BANDS: usize = 32;
/// Below this nobody hears a difference, -70 dB of full scale.
const FLOOR: f32 = 1e-7;
/// Windows that share a delay: a second.
const BLOCK: usize = 50;
/// Delays tried for each block, in samples either way, to 1 ms: an ear moves its delay by frames and by periods of a voice.
const DELAY_MAX: isize = 960;
const DELAY_STEP: usize = 16;

/// Mean over all windows in which the reference speaks, each second at the delay that suits it best.
pub fn log_spectral_distance(reference: &[f32], other: &[f32]) -> f32 {
    let (mut sum, mut blocks) = (0.0, 0);
    for from in (1_000..reference.len() - BLOCK * WINDOW - 1_000).step_by(BLOCK * WINDOW) {
        let distance = |delay: isize| block_distance(&reference[from..][..BLOCK * WINDOW], &other[from.wrapping_add_signed(delay)..]);
        if let Some(best) = (-DELAY_MAX..=DELAY_MAX).step_by(DELAY_STEP).filter_map(distance).min_by(f32::total_cmp) {
            sum += best;
            blocks += 1;
        }
    }
    sum / blocks.max(1) as f32
}

fn block_distance(reference: &[f32], other: &[f32]) -> Option<f32> {
    let (mut sum, mut windows) = (0.0, 0);
    for (a, b) in reference.chunks_exact(WINDOW).zip(other.chunks_exact(WINDOW)) {
        if a.iter().map(|s| s * s).sum::<f32>() / (WINDOW as f32) < 1e-4 {
            continue;
        }
        let (a, b) = (powers(a), powers(b));
        let squares: f32 = a.iter().zip(&b).map(|(a, b)| (10.0 * ((a + FLOOR) / (b + FLOOR)).log10()).powi(2)).sum();
        sum += (squares / BANDS as f32).sqrt();
        windows += 1;
    }
    (windows > 0).then(|| sum / windows as f32)
}

fn powers(sound: &[f32]) -> [f32; BANDS] {
    // 200 Hz has a period of 80 samples, and all bands are multiples of it
    let table: [f32; 80] = std::array::from_fn(|n| (TAU * n as f32 / 80.0).cos());
    let hann: Vec<f32> = sound.iter().enumerate().map(|(n, s)| s * (0.5 - 0.5 * (TAU * n as f32 / WINDOW as f32).cos())).collect();
    std::array::from_fn(|band| {
        let (mut re, mut im) = (0.0, 0.0);
        for (n, sample) in hann.iter().enumerate() {
            re += sample * table[(band + 1) * n % 80];
            im += sample * table[((band + 1) * n + 20) % 80];
        }
        (re * re + im * im) / (WINDOW * WINDOW) as f32
    })
}
