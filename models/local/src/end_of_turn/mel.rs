//! The power of one 25 ms window of sound in 80 mel bands, as Whisper's front end defines it: periodic Hann window,
//! 400-point spectrum, triangular Slaney bands.
//!
//! The reference removes the mean of the whole 8 s before it looks at any frame, and that mean is known only at the
//! query. The spectrum is linear, so it can be removed afterwards: a constant `m` under a periodic Hann window is
//! nothing but `200 m` in bin 0 and `-100 m` in bin 1. Bin 0 lies in no band and bin 1 in the lowest two, so
//! these two bands are kept apart ([`Low`]) and all others are final.

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
    windowed: Vec<f64>,
    spectrum: Vec<Complex<f64>>,
    scratch: Vec<Complex<f64>>,
    power: [f64; BINS],
}

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
        Self {
            hann: std::array::from_fn(|n| 0.5 - 0.5 * (turn * n as f64).cos()),
            bands: slaney_bands(),
            windowed: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            power: [0.0; BINS],
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
            *power = bin.norm_sqr();
        }
        for (log_power, band) in frame.log_power.iter_mut().zip(&self.bands) {
            *log_power = log10_power(band.power(&self.power));
        }
        frame.low.bin_1 = self.spectrum[1];
        self.power[1] = 0.0;
        for (rest, band) in frame.low.rest.iter_mut().zip(&self.bands) {
            *rest = band.power(&self.power);
        }
    }

    /// log10 power of the lowest bands of `frame` once `mean` is removed from its sound.
    pub fn low_without_mean(&self, frame: &MelFrame, mean: f64) -> [f32; LOW_MELS] {
        let bin_1_power = (frame.low.bin_1 - mean * MEAN_IN_BIN_1).norm_sqr();
        std::array::from_fn(|mel| log10_power(self.bands[mel].weight_of_bin_1() * bin_1_power + frame.low.rest[mel]))
    }
}

impl Band {
    fn power(&self, spectrum: &[f64; BINS]) -> f64 {
        spectrum[self.first_bin..].iter().zip(&self.weights).map(|(power, weight)| power * weight).sum()
    }

    fn weight_of_bin_1(&self) -> f64 {
        1_usize.checked_sub(self.first_bin).and_then(|at| self.weights.get(at)).copied().unwrap_or(0.0)
    }
}

fn log10_power(power: f64) -> f32 {
    (power as f32).log10().max(NO_POWER_LOG10)
}

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
