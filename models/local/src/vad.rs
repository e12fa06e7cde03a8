//! Voice activity: Silero v6 at 16 kHz, for many calls at once.
//!
//! The network is small: a short-time spectrum of 64 + 512 samples, four convolutions, one LSTM of 128, one logistic
//! output. A general runtime spends its time on overhead, and one call alone cannot fill a SIMD register sensibly. So
//! the calls themselves are the SIMD lanes: [`LANES`] calls run through the network side by side, every number of it
//! is a vector over calls, each weight is loaded once for all of them, and no lane ever touches another.
//!
//! What a call carries from window to window (LSTM state and the last 64 samples) lies in its slot; a run gathers the
//! slots of its calls into lanes, computes, and puts the state back.

mod kernel;
mod spectrum;
mod weights;

use std::path::Path;

use voiced_core::model::{VAD_WINDOW, VoiceActivity};

use crate::onnx_tensors::TensorsError;
use kernel::Kernel;

pub use crate::lanes::LANES;

/// Samples of the window before that the network sees again.
const CONTEXT: usize = 64;
/// Width of the LSTM.
const HIDDEN: usize = 128;

/// Why Silero cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SileroError {
    /// The weights cannot be read or are another model's.
    #[error("Silero weights: {0}")]
    Weights(#[from] TensorsError),
    /// The first layer is not the windowed Fourier transform that the kernel computes by FFT.
    #[error("Silero weights: the first layer is no windowed Fourier transform; this is another checkpoint")]
    NotFourier,
}

/// What a call carries from window to window.
#[derive(Clone)]
struct Slot {
    hidden: [f32; HIDDEN],
    cell: [f32; HIDDEN],
    context: [f32; CONTEXT],
}

impl Slot {
    const FRESH: Self = Self { hidden: [0.0; HIDDEN], cell: [0.0; HIDDEN], context: [0.0; CONTEXT] };
}

/// Silero over slots.
pub struct Silero {
    kernel: Kernel,
    slots: Vec<Slot>,
}

impl Silero {
    /// Reads the weights (`silero_vad_16k_sequence.onnx`) and picks the kernel for this processor.
    pub fn load(path: &Path, slots: usize) -> Result<Self, SileroError> {
        let kernel = Kernel::new(&weights::Weights::load(path)?);
        Ok(Self { kernel, slots: vec![Slot::FRESH; slots] })
    }

    /// The instruction set in use.
    pub fn instruction_set(&self) -> &'static str {
        self.kernel.instruction_set()
    }
}

impl VoiceActivity for Silero {
    fn run(&mut self, slots: &[usize], windows: &[[f32; VAD_WINDOW]], probabilities: &mut [f32]) {
        let groups = slots.chunks(LANES).zip(windows.chunks(LANES)).zip(probabilities.chunks_mut(LANES));
        for ((slots, windows), probabilities) in groups {
            let net = self.kernel.net();
            for (lane, (&slot, window)) in slots.iter().zip(windows).enumerate() {
                net.gather(lane, &self.slots[slot], window);
            }
            self.kernel.run();
            let net = self.kernel.net();
            for (lane, (&slot, probability)) in slots.iter().zip(probabilities).enumerate() {
                *probability = net.scatter(lane, &mut self.slots[slot]);
            }
        }
    }

    fn reset(&mut self, slot: usize) {
        self.slots[slot] = Slot::FRESH;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{SILERO_VAD, Weights};

    #[test]
    fn all_kernels_that_this_processor_can_run_agree() {
        let path = Weights::at(Weights::default_dir()).path(SILERO_VAD).unwrap_or_else(|error| panic!("{error}"));
        let kernels = Kernel::available(&weights::Weights::load(&path).unwrap());
        let mut engines: Vec<_> = kernels.into_iter().map(|kernel| Silero { kernel, slots: vec![Slot::FRESH] }).collect();
        for turn in 0..40 {
            let pulse = |n: usize| if (turn * VAD_WINDOW + n) % 130 < 20 { 0.4 } else { -0.1 };
            let window = std::array::from_fn(pulse);
            let mut first = None;
            for engine in &mut engines {
                let mut probability = [0.0];
                engine.run(&[0], &[window], &mut probability);
                let first = *first.get_or_insert(probability[0]);
                assert!((first - probability[0]).abs() < 1e-4, "{first} and {} with {}", probability[0], engine.instruction_set());
            }
        }
    }
}
