//! After the encoder: a weighted mean over all positions, and a small classifier of it.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set

use super::kernel::vector::{codes, gelu, quantise, tanh};
use super::kernel::{Isa, Products, Room, Rows, WIDTH};
use super::weights::{Dense, POOL, POSITIONS, STATE, Weights};
use crate::exp::exp;
use crate::lanes::{Lanes, Plain};

/// Widest layer of the classifier.
const DENSE: usize = 256;

/// Room for the end of a query.
pub(super) struct Pool {
    activated: Vec<u8>,
    /// For each position, the logarithm of its weight.
    logits: Vec<f32>,
    mean: [f32; STATE],
}

impl Pool {
    pub(super) fn new() -> Self {
        Self { activated: vec![0; POSITIONS * POOL], logits: vec![0.0; POSITIONS], mean: [0.0; STATE] }
    }

    pub(super) fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// The logits of the padding and of the positions after it.
    #[inline(always)]
    pub(super) fn weigh<I: Isa>(&mut self, weights: &Weights, padding: &[f32], states: &[u8], room: &mut Room) {
        let count = states.len() / STATE;
        let (pool, code) = (&weights.pool, weights.pool_activation);
        let per_code = 1.0 / code.scale;
        for (row, panel, sums) in Products::<I>::new(Rows::new(states, STATE, count, STATE), &pool.matrix.panels, room) {
            let mut values: I::Lanes = pool.values(panel, &sums);
            values.array_mut().iter_mut().for_each(|value| *value = tanh(*value));
            let to = &mut self.activated[row * POOL + panel * WIDTH..][..WIDTH];
            to.copy_from_slice(&codes(values * I::Lanes::splat(per_code), code.zero));
        }
        let (before, logits) = self.logits.split_at_mut(padding.len());
        before.copy_from_slice(padding);
        for (activated, logit) in self.activated.chunks_exact(POOL).zip(logits) {
            *logit = weights.pool_out.value(0, activated, code.zero) + weights.pool_bias;
        }
    }

    /// The probability, from the states of the padding and of the positions after it.
    #[inline(always)]
    pub(super) fn probability<L: Lanes>(&mut self, weights: &Weights, padding: &[u8], states: &[u8]) -> f32 {
        let top = self.logits.iter().fold(f32::NEG_INFINITY, |top, &logit| top.max(logit));
        let mut total = 0.0;
        self.mean.fill(0.0);
        let states = padding.chunks_exact(STATE).chain(states.chunks_exact(STATE));
        for (logit, state) in self.logits.iter().zip(states) {
            let weight = exp(logit - top);
            total += weight;
            for (mean, code) in self.mean.iter_mut().zip(state) {
                *mean += weight * f32::from(*code);
            }
        }
        let code = weights.last_norm.code;
        let mut input = [0; STATE];
        for (input, mean) in input.iter_mut().zip(&self.mean) {
            *input = weights.pooled.of((mean / total - code.zero) * code.scale);
        }
        classify::<L>(weights, &input)
    }
}

/// Three dense layers.
#[inline(always)]
fn classify<L: Lanes>(weights: &Weights, input: &[u8; STATE]) -> f32 {
    let [first, second, third] = &weights.dense;
    let [first_code, second_code] = weights.dense_activations;
    let mut values = [0.0; DENSE];
    first.values(input, weights.pooled.zero, &mut values);
    let mut normed = [0.0; DENSE];
    weights.dense_norm.apply::<L>(&values, &mut normed);
    let hidden = normed.map(|value| first_code.of(gelu(value)));
    let mut values = [0.0; DENSE / 4];
    second.values(&hidden, first_code.zero, &mut values);
    let hidden = values.map(|value| second_code.of(gelu(value)));
    1.0 / (1.0 + (-third.value(0, &hidden, second_code.zero)).exp())
}

impl super::weights::Code {
    /// The code nearest to a value.
    #[inline(always)]
    fn of(self, value: f32) -> u8 {
        codes(Plain::splat(value / self.scale), self.zero)[0]
    }
}

impl Dense {
    /// What the codes of all outputs mean.
    #[inline(always)]
    fn values(&self, input: &[u8], zero: f32, values: &mut [f32]) {
        for (output, value) in values.iter_mut().enumerate() {
            *value = self.value(output, input, zero);
        }
    }

    /// What the code of an output means.
    #[inline(always)]
    fn value(&self, output: usize, input: &[u8], zero: f32) -> f32 {
        let weights = &self.weights[output * input.len()..][..input.len()];
        let sum: i32 = weights.iter().zip(input).map(|(weight, code)| weight * (i32::from(*code) - zero as i32)).sum();
        quantise(Plain::splat((sum + self.bias[output]) as f32 * self.scale[output]), self.code.zero).array()[0] * self.code.scale
    }
}
