//! End of turn: has the caller finished, or only paused? Smart Turn v3.2 answers from the last 8 s of sound.
//!
//! The work is split where its cost changes. [`SmartTurnFeatures`] belongs to the audio thread: it takes each 10 ms
//! of a call as it comes, turns it into one column of a log-mel picture (a few µs), and at a pause writes the picture
//! into a [`TurnQuery`]. [`SmartTurn`] belongs to a worker: it computes the model and returns a probability.
//!
//! That is the largest cost of a call, so the model runs on kernels of our own: the graph's 8-bit arithmetic exactly as
//! the file quantises it, only for the positions that hold sound (see `padding`), with the same arithmetic on every
//! processor (see `kernel`), and without an allocation.

mod attention;
mod encoder;
mod features;
mod kernel;
mod mel;
mod network;
mod padding;
mod pool;
mod weights;

use std::path::Path;
use std::sync::Arc;

use voiced_core::model::{TurnJudge, TurnQuery};

pub use features::SmartTurnFeatures;

use crate::onnx_tensors::{Tensors, TensorsError};
use network::{Kernel, Network, Scratch};
use weights::Weights;

/// Why Smart Turn cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("Smart Turn weights: {0}")]
pub struct SmartTurnError(#[from] TensorsError);

/// Smart Turn v3.2; one per worker thread. A clone shares the weights.
pub struct SmartTurn {
    network: Arc<Network>,
    scratch: Scratch,
}

impl SmartTurn {
    /// Reads the weights (`smart-turn-v3.2-cpu.onnx`), picks the kernel for this processor and prepares it: a second of work.
    pub fn load(model: &Path) -> Result<Self, SmartTurnError> {
        let weights = Weights::read(&Tensors::load(model)?)?;
        Ok(Self { network: Arc::new(Network::new(weights, Kernel::detect())), scratch: Scratch::new() })
    }

    /// The instruction set in use.
    pub fn instruction_set(&self) -> &'static str {
        self.network.instruction_set()
    }
}

impl Clone for SmartTurn {
    fn clone(&self) -> Self {
        Self { network: Arc::clone(&self.network), scratch: Scratch::new() }
    }
}

impl TurnJudge for SmartTurn {
    fn judge(&mut self, query: &TurnQuery) -> f32 {
        self.network.judge(query, &mut self.scratch)
    }
}

#[cfg(test)]
mod tests {
    use voiced_core::frame::HEARD_LEN;
    use voiced_core::model::TurnFeatures;

    use super::*;
    use crate::weights::{SMART_TURN, Weights as Fetched};

    #[test]
    fn every_kernel_gives_the_same_answer_to_the_last_bit() {
        let path = Fetched::at(Fetched::default_dir()).path(SMART_TURN).unwrap_or_else(|error| panic!("{error}"));
        let weights = Weights::read(&Tensors::load(&path).unwrap()).unwrap();
        let (mut network, mut scratch) = (Network::new(weights, Kernel::detect()), Scratch::new());
        let mut features = SmartTurnFeatures::new(1);
        let mut query = TurnQuery::default();
        for block in 0..140 {
            let saw = |i: usize| ((block * HEARD_LEN + i) * (90 + block) % 16_000) as f32 / 16_000.0 - 0.5;
            features.push(0, &std::array::from_fn(|i| if block % 25 < 15 { 0.3 * saw(i) } else { 0.001 * saw(i) }));
            // a part of a block of rows, and more than one
            if block == 10 || block == 139 {
                features.query(0, 0, &mut query);
                let answers = Kernel::available().map(|kernel| network.switch(kernel).judge(&query, &mut scratch));
                let answers: Vec<f32> = answers.collect();
                assert!(answers.iter().all(|answer| answer.to_bits() == answers[0].to_bits()), "{answers:?}");
            }
        }
    }
}
