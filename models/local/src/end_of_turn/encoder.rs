//! The encoder: two convolutions over the picture, then four layers of attention and feed-forward over positions of
//! 20 ms, computed for the last positions only.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set

use voiced_core::model::{TURN_FRAMES, TurnQuery};

use super::attention::{Attention, Memory};
use super::kernel::vector::{codes, gelu_of, quantise, sum, vectors, vectors_mut};
use super::kernel::{Isa, Products, Room, Rows, WIDTH};
use super::weights::{INNER, Layer, Linear, MELS, Matrix, Norm, POSITIONS, STATE, TAPS, Weights};
use crate::lanes::Lanes;

/// Frames of the picture for each position.
const STRIDE: usize = TURN_FRAMES / POSITIONS;
/// What the reference adds to a variance.
const VARIANCE_FLOOR: f32 = 1e-5;

/// Room for one query; everything is as long as a full query needs.
pub(super) struct Encoder {
    room: Room,
    /// The picture in codes, frame by frame, with the frames around it that the convolutions see.
    picture: Vec<u8>,
    /// The first convolution's result, frame by frame.
    frames: Vec<u8>,
    /// What the encoder knows of each position.
    states: Vec<f32>,
    /// The states normalised, in codes.
    normed: Vec<u8>,
    attention: Attention,
    inner: Vec<u8>,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self {
            room: Room::new(),
            picture: vec![0; (TURN_FRAMES + TAPS) * MELS],
            frames: vec![0; (TURN_FRAMES + 1) * STATE],
            states: vec![0.0; POSITIONS * STATE],
            normed: vec![0; POSITIONS * STATE],
            attention: Attention::new(),
            inner: vec![0; POSITIONS * INNER],
        }
    }

    /// The positions from `first` on, from the picture's frames under them.
    #[inline(always)]
    pub(super) fn begin<I: Isa>(&mut self, weights: &Weights, query: &TurnQuery, first: usize) {
        let count = POSITIONS - first;
        self.code_picture::<I::Lanes>(weights, query, first);
        let frames = STRIDE * count + 1;

        let [convolution, _] = &weights.stem;
        let rows = Rows::new(&self.picture, MELS, frames, TAPS * MELS);
        for (row, panel, sums) in Products::<I>::new(rows, &convolution.panels, &mut self.room) {
            let zero = weights.first_code.zero;
            let codes = codes(convolution.products::<I::Lanes>(panel, &sums), zero);
            let to = &mut self.frames[row * STATE + panel * WIDTH..][..WIDTH];
            for (to, code) in to.iter_mut().zip(codes) {
                *to = weights.first_activation[usize::from(code)];
            }
        }
        if first == 0 {
            // before the picture's start the second convolution sees zeros
            self.frames[..STATE].fill(weights.first_zero);
        }

        let [_, convolution] = &weights.stem;
        let rows = Rows::new(&self.frames, STRIDE * STATE, count, TAPS * STATE);
        for (row, panel, sums) in Products::<I>::new(rows, &convolution.panels, &mut self.room) {
            let zero = weights.second_code.zero;
            let codes = codes(convolution.products::<I::Lanes>(panel, &sums), zero);
            let places = &weights.places[(first + row) * STATE + panel * WIDTH..][..WIDTH];
            let to = &mut self.states[row * STATE + panel * WIDTH..][..WIDTH];
            for ((to, place), code) in to.iter_mut().zip(places).zip(codes) {
                *to = weights.second_activation[usize::from(code)] + place;
            }
        }
    }

    /// One layer over the last `count` positions, which also look at the padding's keys and values before them.
    #[inline(always)]
    pub(super) fn layer<I: Isa>(&mut self, weights: &Weights, layer: &Layer, count: usize, padding: &Memory) {
        normalise::<I::Lanes>(&self.states[..count * STATE], &layer.attention_norm, &mut self.normed);
        self.attention.attend::<I>(layer, &self.normed, count, padding, &mut self.room);
        let context = Rows::new(&self.attention.context, STATE, count, STATE);
        add_product::<I>(context, &layer.out, &mut self.room, &mut self.states);

        normalise::<I::Lanes>(&self.states[..count * STATE], &layer.inner_norm, &mut self.normed);
        let per_code = 1.0 / layer.inner.scale;
        let rows = Rows::new(&self.normed, STATE, count, STATE);
        for (row, panel, sums) in Products::<I>::new(rows, &layer.grow.matrix.panels, &mut self.room) {
            let activated = gelu_of(layer.grow.values::<I::Lanes>(panel, &sums), &weights.half_erf);
            let to = &mut self.inner[row * INNER + panel * WIDTH..][..WIDTH];
            to.copy_from_slice(&codes(activated * I::Lanes::splat(per_code), layer.inner.zero));
        }
        let inner = Rows::new(&self.inner, INNER, count, INNER);
        add_product::<I>(inner, &layer.shrink, &mut self.room, &mut self.states);
    }

    /// The keys and values of the newest layer.
    pub(super) fn memory(&self) -> &Memory {
        &self.attention.memory
    }

    /// The result in codes, and the room for what is made of it.
    #[inline(always)]
    pub(super) fn end<I: Isa>(&mut self, norm: &Norm, count: usize) -> (&[u8], &mut Room) {
        normalise::<I::Lanes>(&self.states[..count * STATE], norm, &mut self.normed);
        (&self.normed[..count * STATE], &mut self.room)
    }

    /// The frames under the positions, two before them and one after, in codes; outside the picture there are zeros.
    #[inline(always)]
    fn code_picture<L: Lanes>(&mut self, weights: &Weights, query: &TurnQuery, first: usize) {
        let code = weights.features;
        let per_code = 1.0 / code.scale;
        let (start, missing) = if first == 0 { (0, STRIDE) } else { (STRIDE * (first - 1), 0) };
        let end = missing + TURN_FRAMES - start;
        self.picture[..missing * MELS].fill(code.zero as u8);
        self.picture[end * MELS..(end + 1) * MELS].fill(code.zero as u8);
        for (mel, features) in query.features.chunks_exact(TURN_FRAMES).enumerate() {
            let columns = self.picture[missing * MELS..end * MELS].chunks_mut(WIDTH * MELS);
            for (column, features) in columns.zip(features[start..].chunks(WIDTH)) {
                let mut values = [0.0; WIDTH];
                values[..features.len()].copy_from_slice(features);
                let coded = codes(L::load(&values) * L::splat(per_code), code.zero);
                for (frame, code) in column.chunks_exact_mut(MELS).zip(coded) {
                    frame[mel] = code;
                }
            }
        }
    }
}

impl Matrix {
    /// A panel's products of a row, to be rounded to codes that are counted from the code of zero.
    #[inline(always)]
    pub(super) fn products<L: Lanes>(&self, panel: usize, sums: &[i32; WIDTH]) -> L {
        L::of_sums(sums, &self.offset[panel]) * L::load(&self.scale[panel])
    }
}

impl Linear {
    /// What a panel's codes mean, with the bias.
    #[inline(always)]
    pub(super) fn values<L: Lanes>(&self, panel: usize, sums: &[i32; WIDTH]) -> L {
        quantise(self.matrix.products::<L>(panel, sums), self.code.zero) * L::splat(self.code.scale) + L::load(&self.bias[panel])
    }
}

/// Adds a linear layer's results to the states.
#[inline(always)]
fn add_product<I: Isa>(rows: Rows<'_>, linear: &Linear, room: &mut Room, states: &mut [f32]) {
    for (row, panel, sums) in Products::<I>::new(rows, &linear.matrix.panels, room) {
        let to = &mut vectors_mut(states)[row * (STATE / WIDTH) + panel];
        *to = *(I::Lanes::load(to) + linear.values(panel, &sums)).array();
    }
}

/// Normalises states into codes.
#[inline(always)]
fn normalise<L: Lanes>(states: &[f32], norm: &Norm, normed: &mut [u8]) {
    let mut values = [0.0; STATE];
    for (state, normed) in states.chunks_exact(STATE).zip(normed.chunks_exact_mut(STATE)) {
        norm.apply::<L>(state, &mut values);
        for (values, normed) in vectors(&values).iter().zip(normed.as_chunks_mut().0) {
            *normed = codes(L::load(values).over(norm.code.scale), norm.code.zero);
        }
    }
}

impl Norm {
    /// Scales values to zero mean and unit variance, then as learned.
    #[inline(always)]
    pub(super) fn apply<L: Lanes>(&self, values: &[f32], normed: &mut [f32]) {
        let len = values.len() as f32;
        let values = vectors(values);
        let mut total = L::ZERO;
        for values in values {
            total = total + L::load(values);
        }
        let mean = L::splat(sum(total) / len);
        let mut squares = L::ZERO;
        for values in values {
            let apart = L::load(values) - mean;
            squares = squares + apart * apart;
        }
        let scale = L::splat(1.0 / (sum(squares) / len + VARIANCE_FLOOR).sqrt());
        let learned = vectors(&self.weight).iter().zip(vectors(&self.bias));
        for ((normed, values), (weight, bias)) in vectors_mut(normed).iter_mut().zip(values).zip(learned) {
            *normed = *((L::load(values) - mean) * scale * L::load(weight) + L::load(bias)).array();
        }
    }
}
