//! GTCRN at 16 kHz, for many calls at once.
//!
//! A convolutional recurrent network of 48 thousand parameters estimates, frame by frame of 32 ms, a complex mask for
//! the spectrum. It runs as voice activity does: calls are the SIMD lanes, every number is a vector over calls, each
//! weight is loaded once for all of them, and no lane ever touches another.
//!
//! Ticks bring 10 ms and a frame needs 16 new ones, so a call runs on five of eight ticks; slots are spread over these
//! so that about as many run on each. The sound is delayed by 30 ms. How much of the mask is applied is under a control.

mod block;
mod control;
mod fourier;
mod kernel;
mod layers;
mod map;
mod network;
mod path;
mod slot;
mod weights;

use std::path::Path;

use voiced_core::frame::HeardFrame;
use voiced_core::model::{Band, Denoise};

use crate::lanes::LANES;
use crate::onnx_tensors::{Tensors, TensorsError};
use control::Bounds;
use kernel::Kernel;
use slot::{Group, Slot};
use weights::Weights;

/// Samples at 16 kHz by which GTCRN delays the sound: 30 ms.
pub const GTCRN_DELAY: usize = slot::DELAY;

/// From how much noise on. The network learned on wideband speech and costs narrowband speech more, so it waits for more.
fn bounds(band: Band) -> Bounds {
    match band {
        Band::Telephone => Bounds { clean_db: 28.0, noisy_db: 18.0 },
        Band::Wide => Bounds { clean_db: 35.0, noisy_db: 25.0 },
    }
}

/// Why GTCRN cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("noise cancellation's weights: {0}")]
pub struct GtcrnError(#[from] TensorsError);

/// GTCRN over slots.
pub struct Gtcrn {
    kernel: Kernel,
    controlled: bool,
    slots: Vec<Slot>,
    /// Slots whose frames are full in this tick.
    full: Vec<usize>,
}

impl Gtcrn {
    /// Reads the weights (`gtcrn_simple.onnx`) and picks the kernel for this processor. Slots are wideband until reset.
    pub fn load(path: &Path, slots: usize) -> Result<Self, GtcrnError> {
        Ok(Self::with(Kernel::new(Weights::read(&Tensors::load(path)?)?), slots))
    }

    /// The instruction set in use.
    pub fn instruction_set(&self) -> &'static str {
        self.kernel.instruction_set()
    }

    /// The network's own result: its mask wholly applied, whatever it takes away.
    #[must_use]
    pub fn without_control(mut self) -> Self {
        self.controlled = false;
        for slot in &mut self.slots {
            slot.bounds = Bounds::NONE;
        }
        self
    }

    fn with(kernel: Kernel, slots: usize) -> Self {
        let slot = |index| Slot::new(index, bounds(Band::Wide));
        Self { kernel, controlled: true, slots: (0..slots).map(slot).collect(), full: Vec::with_capacity(slots) }
    }
}

impl Denoise for Gtcrn {
    fn run(&mut self, slots: &[usize], frames: &mut [HeardFrame]) {
        self.full.clear();
        for (&slot, frame) in slots.iter().zip(frames.iter()) {
            if self.slots[slot].hear(frame) {
                self.full.push(slot);
            }
        }
        for members in self.full.chunks(LANES) {
            self.kernel.run(&mut Group { slots: &mut self.slots, members });
        }
        for (&slot, frame) in slots.iter().zip(frames) {
            self.slots[slot].take(frame);
        }
    }

    fn reset(&mut self, slot: usize, band: Band) {
        self.slots[slot].reset(slot, if self.controlled { bounds(band) } else { Bounds::NONE });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{GTCRN, Weights as Folder};

    #[test]
    fn all_kernels_that_this_processor_can_run_agree() {
        let path = Folder::at(Folder::default_dir()).path(GTCRN).unwrap_or_else(|error| panic!("{error}"));
        let kernels = Kernel::available(|| Weights::read(&Tensors::load(&path).unwrap()).unwrap());
        let mut engines: Vec<_> = kernels.into_iter().map(|kernel| Gtcrn::with(kernel, 1).without_control()).collect();
        for tick in 0..60 {
            let pulse = |n: usize| if (tick * 160 + n) % 130 < 20 { 0.4 } else { -0.1 };
            let mut first = None;
            for engine in &mut engines {
                let mut frames = [std::array::from_fn(pulse)];
                engine.run(&[0], &mut frames);
                for (first, sample) in first.get_or_insert(frames[0]).iter().zip(frames[0]) {
                    assert!((first - sample).abs() < 1e-4, "{first} and {sample} with {}", engine.instruction_set());
                }
            }
        }
    }
}
