//! One frame of 512 samples through the network, for all lanes.
//!
//! The spectrum's magnitude, real and imaginary part are taken on 129 bands: the lowest 65 bins as they are, the rest
//! joined as the ear does. Two convolutions bring them to 33 bands of 16 channels. Three blocks look back 2, 4 and 10
//! frames, two paths run along the bands (both ways) and along time, and the same comes back in the other order, each
//! step with what was there on the way in added, to a complex mask over the bands, which is spread over the bins.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set

use super::block::Block;
use super::fourier::{BINS, Bin, FRAME, Fourier};
use super::layers::{Dense, Leaky, Tanh};
use super::map::{Map, PAD};
use super::path::Path;
use super::slot::Group;
use super::weights::{Bands, CHANNELS, HALF, HIGH_BINS, MIDDLE, Weights};
use crate::lanes::Lanes;

/// Bands that the network sees.
pub(super) const BANDS: usize = 129;
/// Of them, those that are one bin.
pub(super) const LOW_BANDS: usize = 65;
/// Bands after the first convolution.
const WIDE: usize = 65;
/// Magnitude, real and imaginary part.
const FEATURES: usize = 3;
/// Under the root of the magnitude, as in training.
const POWER_FLOOR: f32 = 1e-12;

/// The network with weights in blocks of `O` outputs, and room for one group of lanes.
pub(super) struct Network<L, const O: usize> {
    fourier: Fourier<L>,
    join: Bands,
    spread: Bands,
    first: [Dense<O>; 3],
    first_slope: f32,
    second: [Dense<O>; 2],
    second_slope: f32,
    encoder: [Block<L, O>; 3],
    paths: [Path<L, O>; 2],
    decoder: [Block<L, O>; 3],
    widen: [[Dense<O>; 2]; 2],
    widen_slope: f32,
    mask: [Dense<2>; 2],
    room: Room<L>,
}

/// What a frame leaves on its way.
struct Room<L> {
    samples: Vec<L>,
    spectrum: Vec<Bin<L>>,
    features: Map<L, FEATURES>,
    wide: Map<L, CHANNELS>,
    /// What each step of the encoder hands on; the decoder adds them again.
    encoded: [Map<L, CHANNELS>; 4],
    middle: Map<L, CHANNELS>,
    decoded: Map<L, CHANNELS>,
    widened: Map<L, CHANNELS>,
    /// The mask over bands, then over bins.
    bands: Vec<[L; 2]>,
    mask: Vec<[L; 2]>,
}

impl<L: Lanes, const O: usize> Network<L, O> {
    pub(super) fn new(weights: Weights) -> Self {
        let pair = |layers: &[_; 2]| layers.each_ref().map(Dense::new);
        // rows of history that the blocks before one keep
        let mut first_row = 0;
        let mut block = |layers| {
            let block = Block::new(layers, first_row);
            first_row = block.rows_end();
            block
        };
        Self {
            fourier: Fourier::new(),
            first: weights.first.each_ref().map(Dense::new),
            first_slope: weights.first_slope,
            second: pair(&weights.second),
            second_slope: weights.second_slope,
            encoder: weights.encoder.map(&mut block),
            decoder: weights.decoder.map(&mut block),
            paths: [Path::new(&weights.paths[0]), Path::new(&weights.paths[1])],
            widen: weights.widen.each_ref().map(|group| group.each_ref().map(Dense::new)),
            widen_slope: weights.widen_slope,
            mask: weights.mask.each_ref().map(Dense::new),
            join: weights.join,
            spread: weights.spread,
            room: Room::new(),
        }
    }

    /// The next frame of every member of the group.
    #[inline(always)]
    pub(super) fn run(&mut self, group: &mut Group<'_>) {
        group.gather(|slot| slot.frame(), &mut self.room.samples);
        self.fourier.forward(&self.room.samples, &mut self.room.spectrum);
        self.take_features();
        self.encode(group);
        self.decode(group);
        self.spread_mask();
        group.mix(&mut self.room.spectrum, &mut self.room.mask);
        self.fourier.backward(&self.room.spectrum, &mut self.room.samples);
        group.finish(&self.room.samples);
    }

    #[inline(always)]
    fn take_features(&mut self) {
        let Room { spectrum, features, .. } = &mut self.room;
        for (band, bin) in spectrum[..LOW_BANDS].iter().enumerate() {
            features.row_mut(band).copy_from_slice(&features_of(bin));
        }
        for (band, (first, weights)) in self.join.0.iter().enumerate() {
            let mut sums = [L::ZERO; FEATURES];
            for (bin, weight) in spectrum[LOW_BANDS + first..].iter().zip(weights) {
                for (sum, value) in sums.iter_mut().zip(features_of(bin)) {
                    *sum = sum.plus_product(*weight, &value);
                }
            }
            features.row_mut(LOW_BANDS + band).copy_from_slice(&sums);
        }
    }

    #[inline(always)]
    fn encode(&mut self, group: &mut Group<'_>) {
        let Room { features, wide, encoded, middle, .. } = &mut self.room;
        let [at_start, between, at_end] = &self.first;
        for band in 0..WIDE {
            let layer = match band {
                0 => at_start,
                band if band == WIDE - 1 => at_end,
                _ => between,
            };
            layer.apply([features.around(2 * band, 3, 7)], wide.row_mut(band), Leaky(self.first_slope));
        }
        for band in 0..MIDDLE {
            let seen = wide.around(2 * band, 2, 5).as_chunks::<HALF>().0;
            for (half, layer) in self.second.iter().enumerate() {
                let windows: [&[L]; 5] = [&seen[half], &seen[2 + half], &seen[4 + half], &seen[6 + half], &seen[8 + half]];
                let output = &mut encoded[0].row_mut(band)[half * HALF..][..HALF];
                layer.apply(windows, output, Leaky(self.second_slope));
            }
        }
        for (step, block) in self.encoder.iter_mut().enumerate() {
            let (before, after) = encoded.split_at_mut(step + 1);
            block.run(step, group, &before[step], &mut after[0]);
        }
        middle.copy_from(&encoded[3]);
        for (step, path) in self.paths.iter_mut().enumerate() {
            path.run(step, group, middle);
        }
    }

    #[inline(always)]
    fn decode(&mut self, group: &mut Group<'_>) {
        let Room { wide, encoded, middle, decoded, widened, bands, .. } = &mut self.room;
        for (step, block) in self.decoder.iter_mut().enumerate() {
            middle.add(&encoded[3 - step]);
            block.run(3 + step, group, middle, decoded);
            std::mem::swap(middle, decoded);
        }
        middle.add(&encoded[0]);
        for band in 0..WIDE {
            let odd = band % 2;
            let seen = middle.around(band / 2, 1 - odd, 3 - odd).as_chunks::<HALF>().0;
            for half in 0..2 {
                let output = &mut widened.row_mut(band)[half * HALF..][..HALF];
                let layer = &self.widen[half][odd];
                let activation = Leaky(self.widen_slope);
                if odd == 0 {
                    layer.apply([&seen[half], &seen[2 + half], &seen[4 + half]], output, activation);
                } else {
                    layer.apply([&seen[half], &seen[2 + half]], output, activation);
                }
            }
        }
        widened.add(wide);
        for (band, mask) in bands.iter_mut().enumerate() {
            let odd = band % 2;
            self.mask[odd].apply([widened.around(band / 2, 1 - odd, 3 - odd)], mask, Tanh);
        }
    }

    #[inline(always)]
    fn spread_mask(&mut self) {
        let Room { bands, mask, .. } = &mut self.room;
        mask[..LOW_BANDS].copy_from_slice(&bands[..LOW_BANDS]);
        for (mask, (first, weights)) in mask[LOW_BANDS..].iter_mut().zip(&self.spread.0) {
            *mask = [L::ZERO; 2];
            for (band, weight) in bands[LOW_BANDS + first..].iter().zip(weights) {
                for (sum, value) in mask.iter_mut().zip(band) {
                    *sum = sum.plus_product(*weight, value);
                }
            }
        }
    }
}

#[inline(always)]
fn features_of<L: Lanes>(bin: &Bin<L>) -> [L; FEATURES] {
    let power = (bin.re * bin.re).plus_product_of(&bin.im, &bin.im);
    [(power + L::splat(POWER_FLOOR)).sqrt(), bin.re, bin.im]
}

impl<L: Lanes> Room<L> {
    fn new() -> Self {
        const { assert!(LOW_BANDS + HIGH_BINS == BINS && PAD >= 3) };
        Self {
            samples: vec![L::ZERO; FRAME],
            spectrum: vec![Bin::ZERO; BINS],
            features: Map::new(BANDS),
            wide: Map::new(WIDE),
            encoded: std::array::from_fn(|_| Map::new(MIDDLE)),
            middle: Map::new(MIDDLE),
            decoded: Map::new(MIDDLE),
            widened: Map::new(WIDE),
            bands: vec![[L::ZERO; 2]; BANDS],
            mask: vec![[L::ZERO; 2]; BINS],
        }
    }
}
