//! Silero's tensors, as the file has them.

use std::path::Path;

use super::spectrum::{FRAME, window_of_basis};
use super::{HIDDEN, SileroError};
use crate::onnx_tensors::Tensors;

/// Bins of the spectrum.
pub(super) const BINS: usize = FRAME / 2 + 1;

/// One layer: `weights[output][input][tap]`.
pub(super) struct Layer {
    pub(super) weights: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) taps: usize,
}

/// The network's parameters.
pub(super) struct Weights {
    /// The window of the spectrum.
    pub(super) window: [f32; FRAME],
    /// The four convolutions.
    pub(super) convolutions: [Layer; 4],
    /// All gates over input and hidden state together, rows in the order input, forget, cell, output.
    pub(super) gates: Layer,
    /// The last layer's weights and bias.
    pub(super) output: ([f32; HIDDEN], f32),
}

impl Weights {
    pub(super) fn load(path: &Path) -> Result<Self, SileroError> {
        let tensors = Tensors::load(path)?;
        let basis = tensors.take("stft.forward_basis_buffer", &[2 * BINS, 1, FRAME])?;
        let window = window_of_basis(basis).ok_or(SileroError::NotFourier)?;
        let convolution = |index: usize, outputs: usize, inputs: usize| -> Result<Layer, SileroError> {
            let weights = tensors.take(&format!("encoder.{index}.weight"), &[outputs, inputs, 3])?.to_vec();
            let bias = tensors.take(&format!("encoder.{index}.bias"), &[outputs])?.to_vec();
            Ok(Layer { weights, bias, taps: 3 })
        };
        let convolutions = [convolution(0, 128, BINS)?, convolution(1, 64, 128)?, convolution(2, 64, 64)?, convolution(3, HIDDEN, 64)?];
        let mut output = [0.0; HIDDEN];
        output.copy_from_slice(tensors.take("output.weight", &[1, HIDDEN, 1])?);
        let output = (output, tensors.take("output.bias", &[1])?[0]);
        Ok(Self { window, convolutions, gates: gates(&tensors)?, output })
    }
}

/// Joins the LSTM's two matrices and two biases; ONNX orders its gates input, output, forget, cell.
fn gates(tensors: &Tensors) -> Result<Layer, SileroError> {
    const ONNX_ROW_BLOCK: [usize; 4] = [0, 2, 3, 1];
    let of_input = tensors.take("onnx::LSTM_209", &[1, 4 * HIDDEN, HIDDEN])?;
    let of_hidden = tensors.take("onnx::LSTM_210", &[1, 4 * HIDDEN, HIDDEN])?;
    let biases = tensors.take("onnx::LSTM_211", &[1, 8 * HIDDEN])?;
    let (mut weights, mut bias) = (Vec::new(), Vec::new());
    for block in ONNX_ROW_BLOCK {
        for row in block * HIDDEN..(block + 1) * HIDDEN {
            weights.extend_from_slice(&of_input[row * HIDDEN..(row + 1) * HIDDEN]);
            weights.extend_from_slice(&of_hidden[row * HIDDEN..(row + 1) * HIDDEN]);
            bias.push(biases[row] + biases[4 * HIDDEN + row]);
        }
    }
    Ok(Layer { weights, bias, taps: 1 })
}
