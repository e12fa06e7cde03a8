//! The two kinds of layer: a dense product over windows of inputs, and a gated recurrent unit made of four of them.
//!
//! A block of outputs is held in registers over all inputs, so each input vector is loaded once for the block and each
//! weight once for all calls. The weights are laid out in the order in which that loop reads them.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set

use std::array;

use crate::lanes::Lanes;

/// A layer's parameters: `weights[output * columns + column]`.
pub(super) struct Layer {
    pub(super) weights: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

impl Layer {
    /// By a function of output and column.
    pub(super) fn from_fn(outputs: usize, columns: usize, weight: impl Fn(usize, usize) -> f32, bias: impl Fn(usize) -> f32) -> Self {
        let weights = (0..outputs * columns).map(|at| weight(at / columns, at % columns)).collect();
        Self { weights, bias: (0..outputs).map(bias).collect() }
    }
}

/// What follows a product. A type rather than a closure, because only what is surely inlined has its caller's
/// instruction set.
pub(super) trait Activation: Copy {
    fn of<L: Lanes>(self, sum: L) -> L;
}

/// The sum as it is.
#[derive(Clone, Copy)]
pub(super) struct Linear;
/// Negative sums times a slope.
#[derive(Clone, Copy)]
pub(super) struct Leaky(pub(super) f32);
/// The logistic function.
#[derive(Clone, Copy)]
pub(super) struct Sigmoid;
/// The hyperbolic tangent.
#[derive(Clone, Copy)]
pub(super) struct Tanh;

impl Activation for Linear {
    #[inline(always)]
    fn of<L: Lanes>(self, sum: L) -> L {
        sum
    }
}

impl Activation for Leaky {
    #[inline(always)]
    fn of<L: Lanes>(self, sum: L) -> L {
        sum.leaky(self.0)
    }
}

impl Activation for Sigmoid {
    #[inline(always)]
    fn of<L: Lanes>(self, sum: L) -> L {
        sum.sigmoid()
    }
}

impl Activation for Tanh {
    #[inline(always)]
    fn of<L: Lanes>(self, sum: L) -> L {
        sum.tanh()
    }
}

/// A layer's weights in blocks of `O` outputs: `[block][column][output]`.
pub(super) struct Dense<const O: usize> {
    weights: Vec<[f32; O]>,
    bias: Vec<[f32; O]>,
    columns: usize,
}

impl<const O: usize> Dense<O> {
    /// The layer must have a multiple of `O` outputs.
    pub(super) fn new(layer: &Layer) -> Self {
        let outputs = layer.bias.len();
        assert!(outputs.is_multiple_of(O), "{outputs} outputs in blocks of {O}");
        let columns = layer.weights.len() / outputs;
        let blocks = (0..outputs).step_by(O);
        let column = |first: usize, column: usize| array::from_fn(|output| layer.weights[(first + output) * columns + column]);
        let weights = blocks.clone().flat_map(|first| (0..columns).map(move |at| column(first, at)));
        let bias = blocks.map(|first| array::from_fn(|output| layer.bias[first + output]));
        Self { weights: weights.collect(), bias: bias.collect(), columns }
    }

    /// The product with the windows one after another, then `activation`.
    #[inline(always)]
    pub(super) fn apply<L: Lanes, const N: usize>(&self, windows: [&[L]; N], outputs: &mut [L], activation: impl Activation) {
        let blocks = self.bias.iter().zip(self.weights.chunks_exact(self.columns));
        for ((bias, mut weights), outputs) in blocks.zip(outputs.as_chunks_mut::<O>().0) {
            let mut sums = [L::ZERO; O];
            for output in 0..O {
                sums[output] = L::splat(bias[output]);
            }
            for window in windows {
                let (here, later) = weights.split_at(window.len());
                for (input, weights) in window.iter().zip(here) {
                    for output in 0..O {
                        sums[output] = sums[output].plus_product(weights[output], input);
                    }
                }
                weights = later;
            }
            for output in 0..O {
                outputs[output] = activation.of(sums[output]);
            }
        }
    }
}

/// A recurrent unit's parameters, one layer for each product.
pub(super) struct GruLayers {
    /// Over input, then hidden state.
    pub(super) update: Layer,
    /// Over input, then hidden state.
    pub(super) reset: Layer,
    /// Over the input.
    pub(super) candidate: Layer,
    /// Over the hidden state.
    pub(super) recurrent: Layer,
}

/// A gated recurrent unit of width `H`, computed in blocks of `O`.
pub(super) struct Gru<const O: usize, const H: usize> {
    update: Dense<O>,
    reset: Dense<O>,
    candidate: Dense<O>,
    recurrent: Dense<O>,
}

impl<const O: usize, const H: usize> Gru<O, H> {
    pub(super) fn new(layers: &GruLayers) -> Self {
        let [update, reset, candidate, recurrent] = [&layers.update, &layers.reset, &layers.candidate, &layers.recurrent].map(Dense::new);
        Self { update, reset, candidate, recurrent }
    }

    /// One step: `hidden` becomes the new state.
    #[inline(always)]
    pub(super) fn step<L: Lanes>(&self, input: &[L], hidden: &mut [L]) {
        let [mut update, mut reset, mut candidate, mut recurrent] = [[L::ZERO; H]; 4];
        self.update.apply([input, hidden], &mut update, Sigmoid);
        self.reset.apply([input, hidden], &mut reset, Sigmoid);
        self.candidate.apply([input], &mut candidate, Linear);
        self.recurrent.apply([hidden], &mut recurrent, Linear);
        for (unit, hidden) in hidden.iter_mut().enumerate() {
            let new = candidate[unit].plus_product_of(&reset[unit], &recurrent[unit]).tanh();
            *hidden = new.plus_product_of(&update[unit], &(*hidden - new));
        }
    }
}
