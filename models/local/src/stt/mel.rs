//! Whisper's picture of sound: the power spectrum of 25 ms every 10 ms, in 80 bands of the mel scale (Slaney's, each
//! band's triangle scaled to equal area), as log10, cut off 80 dB below the loudest point and moved to about -1..=1.

use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use super::SAMPLE_RATE;

/// Mel bands.
pub const MELS: usize = 80;
/// Samples under one window, 25 ms.
const WINDOW: usize = 400;
/// Samples from one window to the next, 10 ms.
const HOP: usize = 160;
/// Frequencies of the spectrum, from 0 to half the rate.
const BINS: usize = WINDOW / 2 + 1;

/// The front end with its tables and buffers.
pub struct LogMel {
    fft: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    bands: Vec<Band>,
    padded: Vec<f32>,
    windowed: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    fft_scratch: Vec<Complex<f32>>,
    power: Vec<f32>,
}

/// One triangle: the weights of the bins from `first` on.
struct Band {
    first: usize,
    weights: Vec<f32>,
}

impl Default for LogMel {
    fn default() -> Self {
        let fft = RealFftPlanner::new().plan_fft_forward(WINDOW);
        let hann = |i: usize| 0.5 - 0.5 * (std::f32::consts::TAU * i as f32 / WINDOW as f32).cos();
        Self {
            window: (0..WINDOW).map(hann).collect(),
            bands: bands(),
            padded: Vec::new(),
            windowed: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            fft_scratch: fft.make_scratch_vec(),
            power: vec![0.0; BINS],
            fft,
        }
    }
}

impl LogMel {
    /// Writes `frame × MELS` features of the samples followed by `padding` zeros, an even number of frames.
    pub fn run(&mut self, samples: &[f32], padding: usize, features: &mut Vec<f32>) {
        let frames = (samples.len() + padding).div_ceil(2 * HOP) * 2;
        self.pad(samples, frames * HOP);
        features.clear();
        let mut loudest = f32::MIN;
        for frame in 0..frames {
            self.power_of(frame * HOP);
            for band in &self.bands {
                let energy: f32 = self.power[band.first..].iter().zip(&band.weights).map(|(p, w)| p * w).sum();
                let log = energy.max(1e-10).log10();
                loudest = loudest.max(log);
                features.push(log);
            }
        }
        let floor = loudest - 8.0;
        for value in features {
            *value = value.max(floor) / 4.0 + 1.0;
        }
    }

    /// Half a window mirrored before the sound, so that the first window is centred on its first sample; zeros after it.
    fn pad(&mut self, samples: &[f32], length: usize) {
        let half = WINDOW / 2;
        self.padded.clear();
        self.padded.extend((1..=half).rev().map(|i| samples.get(i).copied().unwrap_or(0.0)));
        self.padded.extend_from_slice(samples);
        self.padded.resize(length + WINDOW, 0.0);
    }

    fn power_of(&mut self, start: usize) {
        let source = &self.padded[start..start + WINDOW];
        for ((out, sample), weight) in self.windowed.iter_mut().zip(source).zip(&self.window) {
            *out = sample * weight;
        }
        let done = self.fft.process_with_scratch(&mut self.windowed, &mut self.spectrum, &mut self.fft_scratch);
        debug_assert!(done.is_ok(), "the buffers are the plan's own");
        for (power, value) in self.power.iter_mut().zip(&self.spectrum) {
            *power = value.norm_sqr();
        }
    }
}

fn bands() -> Vec<Band> {
    let top = mel_of(SAMPLE_RATE as f32 / 2.0);
    let edges: Vec<f32> = (0..MELS + 2).map(|i| hertz_of(top * i as f32 / (MELS + 1) as f32)).collect();
    edges.windows(3).map(|edge| band(edge[0], edge[1], edge[2])).collect()
}

fn band(low: f32, centre: f32, high: f32) -> Band {
    let weight = |bin: usize| {
        let hertz = bin as f32 * SAMPLE_RATE as f32 / WINDOW as f32;
        let slope = ((hertz - low) / (centre - low)).min((high - hertz) / (high - centre));
        slope.max(0.0) * 2.0 / (high - low)
    };
    let first = (0..BINS).find(|&bin| weight(bin) > 0.0).unwrap_or(0);
    Band { first, weights: (first..BINS).map(weight).take_while(|&weight| weight > 0.0).collect() }
}

/// Slaney's scale: linear to 1 kHz at 3 mels per 200 Hz, above it 27 mels for each factor of 6.4.
fn mel_of(hertz: f32) -> f32 {
    if hertz < 1000.0 { hertz * 3.0 / 200.0 } else { 15.0 + 27.0 * (hertz / 1000.0).ln() / 6.4_f32.ln() }
}

fn hertz_of(mel: f32) -> f32 {
    if mel < 15.0 { mel * 200.0 / 3.0 } else { 1000.0 * 6.4_f32.powf((mel - 15.0) / 27.0) }
}
