//! The network over lanes, compiled once for each instruction set and chosen when it starts.
//!
//! Every layer is one loop nest: a block of outputs is held in registers over all inputs, so each input vector is
//! loaded once for the block and each weight once for all calls and time steps. The weights are laid out in the order
//! in which that loop reads them.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set
#![allow(unsafe_code)] // calls of #[target_feature] functions, each behind the check of the processor

use std::array;

use super::spectrum::{FRAME, FRAMES, HOP, Spectrum};
use super::weights::{BINS, Layer, Weights};
use super::{CONTEXT, HIDDEN, Slot};
#[cfg(target_arch = "x86_64")]
use crate::lanes::{Avx2, Avx512};
use crate::lanes::{LANES, Lanes, Plain};

/// Samples that the spectrum sees: context, window, and the window's end mirrored.
const SEEN: usize = HOP * (FRAMES + 1);
/// Where the mirrored end begins.
const MIRROR: usize = SEEN - 64;
const _: () = assert!(MIRROR == CONTEXT + voiced_core::model::VAD_WINDOW && FRAME == 2 * HOP);

/// The network for this processor.
pub(super) enum Kernel {
    #[cfg(target_arch = "x86_64")]
    Avx512(Box<WideNet<Avx512>>),
    #[cfg(target_arch = "x86_64")]
    Avx2(Box<NarrowNet<Avx2>>),
    /// The target's own instructions: NEON, SSE2.
    Portable(Box<NarrowNet<Plain>>),
}

/// Blocks for 32 vector registers that each hold all lanes.
#[cfg(target_arch = "x86_64")]
type WideNet<L> = Net<L, 4, 8, 16>;
/// Blocks for registers that hold half or a quarter of the lanes.
type NarrowNet<L> = Net<L, 1, 2, 4>;

impl Kernel {
    pub(super) fn new(weights: &Weights) -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Self::Avx512(Box::new(Net::new(weights)));
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2(Box::new(Net::new(weights)));
            }
        }
        Self::portable(weights)
    }

    pub(super) fn portable(weights: &Weights) -> Self {
        Self::Portable(Box::new(Net::new(weights)))
    }

    /// All that this processor can run.
    #[cfg(test)]
    pub(super) fn available(weights: &Weights) -> Vec<Self> {
        let mut all = vec![Self::new(weights), Self::portable(weights)];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            all.push(Self::Avx2(Box::new(Net::new(weights))));
        }
        all
    }

    pub(super) fn instruction_set(&self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "AVX2 + FMA",
            Self::Portable(_) => "portable",
        }
    }

    /// The lanes to fill before a run and to read after it.
    pub(super) fn net(&mut self) -> &mut dyn LaneAccess {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(net) => net.as_mut(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(net) => net.as_mut(),
            Self::Portable(net) => net.as_mut(),
        }
    }

    /// One window of all lanes.
    pub(super) fn run(&mut self) {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the variant is only made when the processor has AVX-512F
            Self::Avx512(net) => unsafe { run_avx512(net) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the variant is only made when the processor has AVX2 and FMA
            Self::Avx2(net) => unsafe { run_avx2(net) },
            Self::Portable(net) => net.run(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn run_avx512(net: &mut WideNet<Avx512>) {
    net.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2(net: &mut NarrowNet<Avx2>) {
    net.run();
}

/// Filling and reading lanes.
pub(super) trait LaneAccess {
    /// Puts a call's state and window into a lane, and the window's end into its context.
    fn gather(&mut self, lane: usize, slot: &Slot, window: &[f32]);
    /// Puts a lane's state back and returns its probability.
    fn scatter(&mut self, lane: usize, slot: &mut Slot) -> f32;
}

/// Weights and room for one group of lanes. `A`, `B`, `C`: outputs per block where four, two or one time steps are held.
pub(super) struct Net<L, const A: usize, const B: usize, const C: usize> {
    spectrum: Spectrum<L>,
    convolution_0: Blocks<A>,
    convolution_1: Blocks<B>,
    convolution_2: Blocks<C>,
    convolution_3: Blocks<C>,
    gates: Blocks<C>,
    output: ([f32; HIDDEN], f32),
    samples: Vec<L>,
    magnitudes: Vec<L>,
    features_0: Vec<L>,
    features_1: Vec<L>,
    features_2: Vec<L>,
    /// The LSTM's input, then its hidden state.
    joined: Vec<L>,
    cell: Vec<L>,
    sums: Vec<L>,
    probability: L,
}

impl<L: Lanes, const A: usize, const B: usize, const C: usize> Net<L, A, B, C> {
    fn new(weights: &Weights) -> Self {
        let room = |len| vec![L::ZERO; len];
        let [first, second, third, fourth] = &weights.convolutions;
        Self {
            spectrum: Spectrum::new(&weights.window),
            convolution_0: Blocks::new(first, 0..3),
            convolution_1: Blocks::new(second, 0..3),
            // two time steps come in and one goes out: the first tap only ever meets the padding
            convolution_2: Blocks::new(third, 1..3),
            // one time step: only the middle tap meets it
            convolution_3: Blocks::new(fourth, 1..2),
            gates: Blocks::new(&weights.gates, 0..1),
            output: weights.output,
            samples: room(SEEN),
            magnitudes: room(BINS * FRAMES),
            features_0: room(128 * 4),
            features_1: room(64 * 2),
            features_2: room(64),
            joined: room(2 * HIDDEN),
            cell: room(HIDDEN),
            sums: room(4 * HIDDEN),
            probability: L::ZERO,
        }
    }

    #[inline(always)]
    fn run(&mut self) {
        for back in 0..SEEN - MIRROR {
            self.samples[MIRROR + back] = self.samples[MIRROR - 2 - back];
        }
        self.spectrum.magnitudes(&self.samples, &mut self.magnitudes);
        self.convolution_0.apply::<L, 3, 4, 4, 1, 1>(&self.magnitudes, &mut self.features_0, L::relu);
        self.convolution_1.apply::<L, 3, 4, 2, 2, 1>(&self.features_0, &mut self.features_1, L::relu);
        self.convolution_2.apply::<L, 2, 2, 1, 1, 0>(&self.features_1, &mut self.features_2, L::relu);
        self.convolution_3.apply::<L, 1, 1, 1, 1, 0>(&self.features_2, &mut self.joined[..HIDDEN], L::relu);
        self.gates.apply::<L, 1, 1, 1, 1, 0>(&self.joined, &mut self.sums, |sum| sum);
        self.remember();
    }

    /// The LSTM's step and the output.
    #[inline(always)]
    fn remember(&mut self) {
        let (weights, bias) = &self.output;
        let mut sum = L::splat(*bias);
        for unit in 0..HIDDEN {
            let [input, forget, candidate, output] = array::from_fn(|gate| self.sums[gate * HIDDEN + unit]);
            let cell = forget.sigmoid() * self.cell[unit] + input.sigmoid() * candidate.tanh();
            let hidden = output.sigmoid() * cell.tanh();
            self.cell[unit] = cell;
            self.joined[HIDDEN + unit] = hidden;
            sum = sum.plus_product(weights[unit], &hidden.relu());
        }
        self.probability = sum.sigmoid();
    }
}

impl<L: Lanes, const A: usize, const B: usize, const C: usize> LaneAccess for Net<L, A, B, C> {
    fn gather(&mut self, lane: usize, slot: &Slot, window: &[f32]) {
        assert!(lane < LANES);
        for (to, from) in self.samples.iter_mut().zip(slot.context.iter().chain(window)) {
            to.array_mut()[lane] = *from;
        }
        for (to, from) in self.joined[HIDDEN..].iter_mut().zip(&slot.hidden) {
            to.array_mut()[lane] = *from;
        }
        for (to, from) in self.cell.iter_mut().zip(&slot.cell) {
            to.array_mut()[lane] = *from;
        }
    }

    fn scatter(&mut self, lane: usize, slot: &mut Slot) -> f32 {
        assert!(lane < LANES);
        for (to, from) in slot.context.iter_mut().zip(&self.samples[MIRROR - CONTEXT..]) {
            *to = from.array()[lane];
        }
        for (to, from) in slot.hidden.iter_mut().zip(&self.joined[HIDDEN..]) {
            *to = from.array()[lane];
        }
        for (to, from) in slot.cell.iter_mut().zip(&self.cell) {
            *to = from.array()[lane];
        }
        self.probability.array()[lane]
    }
}

/// A layer's weights in blocks of `N` outputs: `[block][input][tap][output]`.
struct Blocks<const N: usize> {
    weights: Vec<[f32; N]>,
    bias: Vec<[f32; N]>,
}

impl<const N: usize> Blocks<N> {
    /// Takes only these taps of the layer.
    fn new(layer: &Layer, taps: std::ops::Range<usize>) -> Self {
        let outputs = layer.bias.len();
        let columns = layer.weights.len() / outputs; // inputs × taps
        let weight = |output: usize, column: usize| layer.weights[output * columns + column];
        let used: Vec<usize> = (0..columns).filter(|column| taps.contains(&(column % layer.taps))).collect();
        let blocks = (0..outputs).step_by(N);
        let weights = blocks.clone().flat_map(|first| used.iter().map(move |column| array::from_fn(|output| weight(first + output, *column))));
        let bias = blocks.map(|first| array::from_fn(|output| layer.bias[first + output]));
        Self { weights: weights.collect(), bias: bias.collect() }
    }

    /// A convolution over `inputs[input * IN + time]` to `outputs[output * OUT + time]`, then `activation`.
    #[inline(always)]
    fn apply<L: Lanes, const TAPS: usize, const IN: usize, const OUT: usize, const STRIDE: usize, const PAD: usize>(
        &self,
        inputs: &[L],
        outputs: &mut [L],
        activation: impl Fn(L) -> L,
    ) {
        let inputs = inputs.as_chunks::<IN>().0;
        let blocks = self.bias.iter().zip(self.weights.chunks_exact(inputs.len() * TAPS));
        for ((bias, weights), outputs) in blocks.zip(outputs.chunks_exact_mut(N * OUT)) {
            let mut sums = [[L::ZERO; OUT]; N];
            for output in 0..N {
                sums[output] = [L::splat(bias[output]); OUT];
            }
            for (input, weights) in inputs.iter().zip(weights.as_chunks::<TAPS>().0) {
                for tap in 0..TAPS {
                    for output in 0..N {
                        for time in 0..OUT {
                            let from = time * STRIDE + tap;
                            if from >= PAD && from - PAD < IN {
                                let product = sums[output][time].plus_product(weights[tap][output], &input[from - PAD]);
                                sums[output][time] = product;
                            }
                        }
                    }
                }
            }
            for (sum, output) in sums.as_flattened().iter().zip(outputs) {
                *output = activation(*sum);
            }
        }
    }
}
