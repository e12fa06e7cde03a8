//! The power of one 25 ms window of sound in 80 mel bands, as Whisper's front end defines it: periodic Hann window,
//! 400-point spectrum, triangular Slaney bands.
//!
//! The reference removes the mean of the whole 8 s before it looks at any frame, and that mean is known only at the
//! query. The spectrum is linear, so it can be removed afterwards: a constant `m` under a periodic Hann window is
//! nothing but `200 m` in bin 0 and `-100 m` in bin 1. Bin 0 lies in no band and bin 1 in the lowest two, so
//! these two bands are kept apart ([`Low`]) and all others are final.

use std::f32::consts::LOG10_E;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};
use voiced_core::model::TURN_MELS;

/// Samples in one analysis window, 25 ms at 16 kHz.
pub const WINDOW: usize = 400;
const BINS: usize = WINDOW / 2 + 1;
const NYQUIST_HZ: f64 = 8_000.0;
/// Bands that bin 1, and so the mean, reaches.
pub const LOW_MELS: usize = 2;
/// What a mean of 1 adds to bin 1: the sum of half a Hann window, turned by half a circle.
const MEAN_IN_BIN_1: f64 = -(WINDOW as f64) / 4.0;
/// Log of "no power at all"; far below any floor that is applied later.
pub const NO_POWER_LOG10: f32 = -30.0;

/// One analysed window: log10 of the power in each band, and what the lowest bands need to have a mean removed.
#[derive(Clone, Copy)]
pub struct MelFrame {
    /// log10 of raw power; of the lowest [`LOW_MELS`] bands as if the mean were zero.
    pub log_power: [f32; TURN_MELS],
    low: Low,
}

/// Bin 1, and the power that the lowest bands have from other bins.
#[derive(Clone, Copy)]
struct Low {
    bin_1: Complex<f64>,
    rest: [f64; LOW_MELS],
}

impl MelFrame {
    /// A window of digital silence.
    pub const SILENCE: Self = Self { log_power: [NO_POWER_LOG10; TURN_MELS], low: Low { bin_1: Complex::new(0.0, 0.0), rest: [0.0; LOW_MELS] } };
}

/// The analysis with its tables and scratch memory; one serves all slots of a thread.
pub struct MelAnalysis {
    fft: Arc<dyn RealToComplex<f64>>,
    hann: [f64; WINDOW],
    bands: Vec<Band>,
    /// The bands' weights one after another, each band's filled up to whole [`TOGETHER`] with zeros.
    weights: Vec<f32>,
    windowed: Vec<f64>,
    spectrum: Vec<Complex<f64>>,
    scratch: Vec<Complex<f64>>,
    /// Of each bin, and nothing behind, where the last bands' zeros reach.
    power: [f32; BINS + TOGETHER],
}

/// Bins multiplied side by side.
const TOGETHER: usize = 4;

/// A triangle over the spectrum: its first bin and its weights.
struct Band {
    first_bin: usize,
    weights: Vec<f64>,
}

impl MelAnalysis {
    /// Builds the tables.
    pub fn new() -> Self {
        let fft = RealFftPlanner::<f64>::new().plan_fft_forward(WINDOW);
        let turn = std::f64::consts::TAU / WINDOW as f64;
        let bands = slaney_bands();
        let filled = |band: &Band| {
            let zeros = band.weights.len().next_multiple_of(TOGETHER) - band.weights.len();
            band.weights.iter().map(|&weight| weight as f32).chain(std::iter::repeat_n(0.0, zeros)).collect::<Vec<_>>()
        };
        Self {
            hann: std::array::from_fn(|n| 0.5 - 0.5 * (turn * n as f64).cos()),
            weights: bands.iter().flat_map(filled).collect(),
            bands,
            windowed: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            power: [0.0; BINS + TOGETHER],
            fft,
        }
    }

    /// Analyses one window into `frame`.
    pub fn analyse(&mut self, samples: &[f32; WINDOW], frame: &mut MelFrame) {
        for ((windowed, &sample), &weight) in self.windowed.iter_mut().zip(samples).zip(&self.hann) {
            *windowed = f64::from(sample) * weight;
        }
        // the lengths are fixed by `new`, so the transform cannot refuse them
        let _ = self.fft.process_with_scratch(&mut self.windowed, &mut self.spectrum, &mut self.scratch);
        for (power, bin) in self.power.iter_mut().zip(&self.spectrum) {
            *power = bin.norm_sqr() as f32;
        }
        let mut weights = self.weights.as_chunks::<TOGETHER>().0.iter();
        for (power, band) in frame.log_power.iter_mut().zip(&self.bands) {
            let chunks = band.weights.len().div_ceil(TOGETHER);
            let mut sums = [0.0; TOGETHER];
            for (bins, weights) in self.power[band.first_bin..].as_chunks::<TOGETHER>().0.iter().zip(weights.by_ref().take(chunks)) {
                for at in 0..TOGETHER {
                    sums[at] += bins[at] * weights[at];
                }
            }
            *power = (sums[0] + sums[2]) + (sums[1] + sums[3]);
        }
        for power in &mut frame.log_power {
            *power = log10_power(*power);
        }
        frame.low.bin_1 = self.spectrum[1];
        let others = |band: &Band| {
            let bins = self.spectrum[band.first_bin..].iter().zip(&band.weights).enumerate();
            bins.filter(|(at, _)| band.first_bin + at != 1).map(|(_, (bin, weight))| bin.norm_sqr() * weight).sum()
        };
        frame.low.rest = [others(&self.bands[0]), others(&self.bands[1])];
    }

    /// log10 power of the lowest bands of `frame` once `mean` is removed from its sound.
    pub fn low_without_mean(&self, frame: &MelFrame, mean: f64) -> [f32; LOW_MELS] {
        let bin_1_power = (frame.low.bin_1 - mean * MEAN_IN_BIN_1).norm_sqr();
        std::array::from_fn(|mel| log10_power((self.bands[mel].weight_of_bin_1() * bin_1_power + frame.low.rest[mel]) as f32))
    }
}

impl Band {
    fn weight_of_bin_1(&self) -> f64 {
        1_usize.checked_sub(self.first_bin).and_then(|at| self.weights.get(at)).copied().unwrap_or(0.0)
    }
}

/// log10 without a branch or a call, so that the loop over the bands vectorises, to 2e-7 of itself or 1e-7: the exponent's
/// bits, and the logarithm of the mantissa m in √½..√2 by the series of artanh((m - 1) / (m + 1)).
fn log10_power(power: f32) -> f32 {
    let power = if power > f32::MIN_POSITIVE { power } else { f32::MIN_POSITIVE };
    // the mantissa as 1..2, halved from √2 on
    let above = power.to_bits().wrapping_sub(SQRT_HALF);
    let exponent = (above as i32 >> 23) as f32;
    let mantissa = f32::from_bits((above & 0x007f_ffff) + SQRT_HALF);
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let square = ratio * ratio;
    let series = 2.0 * LOG10_E * ratio * (1.0 + square * (1.0 / 3.0 + square * (0.2 + square * (1.0 / 7.0 + square / 9.0))));
    let log10 = exponent * std::f32::consts::LOG10_2 + series;
    if log10 > NO_POWER_LOG10 { log10 } else { NO_POWER_LOG10 }
}

/// The bits of √½.
const SQRT_HALF: u32 = 0x3f35_04f3;

/// Triangles whose corners are equally spaced in mel from 0 to 8 kHz, each of area one.
fn slaney_bands() -> Vec<Band> {
    let mel_step = hz_to_mel(NYQUIST_HZ) / (TURN_MELS + 1) as f64;
    let corner = |index: usize| mel_to_hz(mel_step * index as f64);
    let bin_hz = NYQUIST_HZ / (BINS - 1) as f64;
    (0..TURN_MELS)
        .map(|mel| {
            let (left, peak, right) = (corner(mel), corner(mel + 1), corner(mel + 2));
            let weight = |bin: usize| {
                let hz = bin_hz * bin as f64;
                let rise = (hz - left) / (peak - left);
                let fall = (right - hz) / (right - peak);
                rise.min(fall).max(0.0) * 2.0 / (right - left)
            };
            let first_bin = (0..BINS).find(|&bin| weight(bin) > 0.0).unwrap_or(BINS);
            let weights = (first_bin..BINS).map(weight).take_while(|&weight| weight > 0.0).collect();
            Band { first_bin, weights }
        })
        .collect()
}

// Slaney's scale: linear to 1 kHz (15 mel), then 27 mel for each factor of 6.4.
const LINEAR_HZ_PER_MEL: f64 = 200.0 / 3.0;
const LOG_FROM_HZ: f64 = 1_000.0;
const LOG_FROM_MEL: f64 = 15.0;

fn log_step() -> f64 {
    6.4_f64.ln() / 27.0
}

fn hz_to_mel(hz: f64) -> f64 {
    if hz < LOG_FROM_HZ { hz / LINEAR_HZ_PER_MEL } else { LOG_FROM_MEL + (hz / LOG_FROM_HZ).ln() / log_step() }
}

fn mel_to_hz(mel: f64) -> f64 {
    if mel < LOG_FROM_MEL { mel * LINEAR_HZ_PER_MEL } else { LOG_FROM_HZ * (log_step() * (mel - LOG_FROM_MEL)).exp() }
}
