//! The arithmetic that encoder and decoder share: matrix products, layer normalisation, softmax and GELU, written so
//! that the compiler makes vector code of them.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};

use super::ct2::Tensors;
use crate::exp::exp;

/// Width of the model.
pub const WIDTH: usize = 384;
/// Attention heads.
pub const HEADS: usize = 6;
/// Width of one head.
pub const HEAD: usize = WIDTH / HEADS;
/// Width inside the feed-forward blocks.
pub const INNER: usize = 4 * WIDTH;

/// `y = x Wᵀ + b` over many rows at once, in f32.
pub struct Linear {
    inputs: usize,
    outputs: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Linear {
    /// Takes `{name}/weight` (`outputs × inputs`) and `{name}/bias`.
    pub fn build(tensors: &Tensors, name: &str, inputs: usize, outputs: usize) -> Result<Self, String> {
        let weight = tensors.get(&format!("{name}/weight"), &[outputs, inputs])?;
        let bias = tensors.get(&format!("{name}/bias"), &[outputs])?;
        Ok(Self { inputs, outputs, weight, bias })
    }

    /// Takes a convolution of three taps as a product with three joined frames.
    pub fn build_convolution(tensors: &Tensors, name: &str, inputs: usize, outputs: usize) -> Result<Self, String> {
        let by_tap = tensors.get(&format!("{name}/weight"), &[outputs, inputs, 3])?;
        let bias = tensors.get(&format!("{name}/bias"), &[outputs])?;
        let mut weight = vec![0.0; by_tap.len()];
        for (joined, taps) in weight.chunks_mut(3 * inputs).zip(by_tap.chunks(3 * inputs)) {
            for (at, value) in taps.iter().enumerate() {
                joined[at % 3 * inputs + at / 3] = *value;
            }
        }
        Ok(Self { inputs: 3 * inputs, outputs, weight, bias })
    }

    /// Writes `rows × outputs`.
    pub fn run(&self, x: &[f32], y: &mut Vec<f32>) {
        y.clear();
        for _ in 0..x.len() / self.inputs {
            y.extend_from_slice(&self.bias);
        }
        self.accumulate(x, y);
    }

    /// Adds to `y`, which already holds what a residual connection carries past this layer.
    pub fn add(&self, x: &[f32], y: &mut [f32]) {
        for row in y.chunks_mut(self.outputs) {
            row.iter_mut().zip(&self.bias).for_each(|(value, bias)| *value += bias);
        }
        self.accumulate(x, y);
    }

    fn accumulate(&self, x: &[f32], y: &mut [f32]) {
        let rows = x.len() / self.inputs;
        let weight = matrix(&self.weight, self.outputs, self.inputs);
        general_mat_mul(1.0, &matrix(x, rows, self.inputs), &weight.t(), 1.0, &mut matrix_mut(y, rows, self.outputs));
    }
}

/// A slice as a matrix of rows.
pub fn matrix(values: &[f32], rows: usize, columns: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((rows, columns), values).expect("the length is rows × columns")
}

/// A slice as a matrix of rows, to be written.
pub fn matrix_mut(values: &mut [f32], rows: usize, columns: usize) -> ArrayViewMut2<'_, f32> {
    ArrayViewMut2::from_shape((rows, columns), values).expect("the length is rows × columns")
}

/// `y = W x + b` for one vector at a time, with int8 weights.
///
/// The decoder writes token by token, so every weight is used once per token and memory sets the pace: int8 is a
/// quarter of f32. A row's weights share a scale; the vector is rounded to 12 bits plus sign, so that the sum of 1536
/// products stays within an i32.
pub struct Rows {
    inputs: usize,
    weight: Vec<i8>,
    scale: Vec<f32>,
    bias: Vec<f32>,
}

/// The largest magnitude of a rounded input; 4095 × 127 × 1536 < 2³¹.
const INPUT_MAX: f32 = 4095.0;

impl Rows {
    /// Takes `{name}/weight` (`outputs × inputs`) and `{name}/bias`.
    pub fn build(tensors: &Tensors, name: &str, inputs: usize, outputs: usize) -> Result<Self, String> {
        let bias = tensors.get(&format!("{name}/bias"), &[outputs])?;
        Ok(Self { bias, ..Self::build_unbiased(tensors, &format!("{name}/weight"), inputs, outputs)? })
    }

    /// Takes the variable itself, without a bias.
    pub fn build_unbiased(tensors: &Tensors, name: &str, inputs: usize, outputs: usize) -> Result<Self, String> {
        let values = tensors.get(name, &[outputs, inputs])?;
        let mut weight = Vec::with_capacity(values.len());
        let mut scale = Vec::with_capacity(outputs);
        for row in values.chunks(inputs) {
            let step = magnitude(row) / 127.0;
            scale.push(step);
            weight.extend(row.iter().map(|value| (value / step.max(f32::MIN_POSITIVE)).round() as i8));
        }
        Ok(Self { inputs, weight, scale, bias: vec![0.0; outputs] })
    }

    /// How many rows there are.
    pub fn outputs(&self) -> usize {
        self.scale.len()
    }

    /// One row as f32: the embedding of a token.
    pub fn row(&self, index: usize) -> impl Iterator<Item = f32> {
        let scale = self.scale[index];
        self.weight[index * self.inputs..(index + 1) * self.inputs].iter().map(move |&weight| f32::from(weight) * scale)
    }

    /// Writes the product; `rounded` is room for the rounded input.
    pub fn run(&self, x: &[f32], rounded: &mut Vec<i16>, y: &mut Vec<f32>) {
        y.clear();
        y.resize(self.outputs(), 0.0);
        self.add(x, rounded, y);
    }

    /// Adds the product to `y`, which already holds what a residual connection carries past this layer.
    pub fn add(&self, x: &[f32], rounded: &mut Vec<i16>, y: &mut [f32]) {
        let step = (magnitude(x) / INPUT_MAX).max(f32::MIN_POSITIVE);
        rounded.clear();
        rounded.extend(x.iter().map(|value| (value / step).round_ties_even() as i16));
        let rows = self.weight.chunks_exact(self.inputs);
        for (((y, row), scale), bias) in y.iter_mut().zip(rows).zip(&self.scale).zip(&self.bias) {
            *y += whole_dot(row, rounded) as f32 * scale * step + bias;
        }
    }
}

/// Cannot overflow (see [`INPUT_MAX`]); says so by wrapping, since a build that checks for overflow makes no vector code.
fn whole_dot(weights: &[i8], inputs: &[i16]) -> i32 {
    let products = weights.iter().zip(inputs).map(|(&weight, &input)| i32::from(weight).wrapping_mul(i32::from(input)));
    products.fold(0, i32::wrapping_add)
}

fn magnitude(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, value| most.max(value.abs()))
}

/// Layer normalisation over rows of [`WIDTH`].
pub struct LayerNorm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

impl LayerNorm {
    /// Takes `{name}/gamma` and `{name}/beta`.
    pub fn build(tensors: &Tensors, name: &str) -> Result<Self, String> {
        let gamma = tensors.get(&format!("{name}/gamma"), &[WIDTH])?;
        Ok(Self { gamma, beta: tensors.get(&format!("{name}/beta"), &[WIDTH])? })
    }

    /// Writes the normalised rows.
    pub fn run(&self, x: &[f32], y: &mut Vec<f32>) {
        y.clear();
        for row in x.chunks_exact(WIDTH) {
            let mean = row.iter().sum::<f32>() / WIDTH as f32;
            let variance = row.iter().map(|value| (value - mean) * (value - mean)).sum::<f32>() / WIDTH as f32;
            let scale = 1.0 / (variance + 1e-5).sqrt();
            let affine = row.iter().zip(&self.gamma).zip(&self.beta);
            y.extend(affine.map(|((value, gamma), beta)| (value - mean) * scale * gamma + beta));
        }
    }
}

/// Turns scores into shares of one, in place.
pub fn softmax(scores: &mut [f32]) {
    let top = scores.iter().copied().fold(f32::MIN, f32::max);
    for score in &mut *scores {
        *score = exp(*score - top);
    }
    let scale = 1.0 / scores.iter().sum::<f32>();
    for score in scores {
        *score *= scale;
    }
}

/// `x Φ(x)`, in place, with Φ from a rational approximation of the error function (error below 2·10⁻⁷).
pub fn gelu(values: &mut [f32]) {
    for value in values {
        let x = value.abs() * std::f32::consts::FRAC_1_SQRT_2;
        let t = 1.0 / (1.0 + 0.3275911 * x);
        let poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
        let tail = 0.5 * poly * exp(-x * x);
        let below = if *value < 0.0 { tail } else { 1.0 - tail };
        *value *= below;
    }
}

#[cfg(test)]
mod tests {
    use super::gelu;

    #[test]
    fn gelu_is_the_identity_far_up_and_zero_far_down() {
        let mut values = [-9.0, -1.0, 0.0, 1.0, 9.0];
        gelu(&mut values);
        for (value, expected) in values.iter().zip([0.0, -0.158_655_25, 0.0, 0.841_344_75, 9.0]) {
            assert!((value - expected).abs() < 1e-5, "{value} {expected}");
        }
    }
}
