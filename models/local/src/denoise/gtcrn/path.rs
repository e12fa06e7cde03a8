//! A path: recurrent units along the bands, upwards and downwards, then along time for each band.
//!
//! Both work on two groups of channels, are mixed by a dense layer, normalised over all bands and channels of the frame
//! and added to what came in.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set

use super::layers::{Dense, Gru, Linear};
use super::map::Map;
use super::slot::Group;
use super::weights::{CHANNELS, HALF, MIDDLE, Norm, PathLayers};
use crate::lanes::Lanes;

/// Units of a direction along the bands.
const QUARTER: usize = HALF / 2;
/// Under the root of a variance, as in training.
const VARIANCE_FLOOR: f32 = 1e-8;
/// Of one number in the mean over all bands and channels.
const SHARE: f32 = 1.0 / (MIDDLE * CHANNELS) as f32;

/// One path, and room for its frame.
pub(super) struct Path<L, const O: usize> {
    along_bands: [Gru<QUARTER, QUARTER>; 4],
    after_bands: Mixer<L, O>,
    along_time: [Gru<O, HALF>; 2],
    after_time: Mixer<L, O>,
    hidden: Vec<L>,
}

impl<L: Lanes, const O: usize> Path<L, O> {
    pub(super) fn new(layers: &PathLayers) -> Self {
        let mixer = |(dense, norm): &(_, Norm)| Mixer {
            dense: Dense::new(dense),
            scale: norm.scale.clone(),
            offset: norm.offset.clone(),
            mixed: vec![L::ZERO; MIDDLE * CHANNELS],
        };
        Self {
            along_bands: layers.along_bands.each_ref().map(Gru::new),
            after_bands: mixer(&layers.after_bands),
            along_time: layers.along_time.each_ref().map(Gru::new),
            after_time: mixer(&layers.after_time),
            hidden: vec![L::ZERO; MIDDLE * CHANNELS],
        }
    }

    /// `step` of the two: whose state in a slot is this path's.
    #[inline(always)]
    pub(super) fn run(&mut self, step: usize, group: &mut Group<'_>, map: &mut Map<L, CHANNELS>) {
        self.walk_bands(map);
        self.after_bands.add(&self.hidden, map);
        group.gather(|slot| &slot.bands[step], &mut self.hidden);
        for (band, hidden) in self.hidden.as_chunks_mut::<CHANNELS>().0.iter_mut().enumerate() {
            let halves = map.row(band).as_chunks::<HALF>().0.iter().zip(hidden.as_chunks_mut::<HALF>().0);
            for (unit, (input, hidden)) in self.along_time.iter().zip(halves) {
                unit.step(input, hidden);
            }
        }
        group.scatter(&self.hidden, |slot| &mut slot.bands[step]);
        self.after_time.add(&self.hidden, map);
    }

    /// Four walks at once: none waits for another, so their latencies overlap.
    #[inline(always)]
    fn walk_bands(&mut self, map: &Map<L, CHANNELS>) {
        let mut states = [[L::ZERO; QUARTER]; 4];
        for step in 0..MIDDLE {
            for (walk, (unit, state)) in self.along_bands.iter().zip(&mut states).enumerate() {
                let band = if walk % 2 == 0 { step } else { MIDDLE - 1 - step };
                unit.step(&map.row(band)[walk / 2 * HALF..][..HALF], state);
                self.hidden[band * CHANNELS + walk * QUARTER..][..QUARTER].copy_from_slice(state);
            }
        }
    }
}

/// A dense layer over each band's channels and the normalisation after it.
struct Mixer<L, const O: usize> {
    dense: Dense<O>,
    scale: Vec<f32>,
    offset: Vec<f32>,
    mixed: Vec<L>,
}

impl<L: Lanes, const O: usize> Mixer<L, O> {
    #[inline(always)]
    fn add(&mut self, hidden: &[L], map: &mut Map<L, CHANNELS>) {
        let rows = hidden.as_chunks::<CHANNELS>().0.iter().zip(self.mixed.as_chunks_mut::<CHANNELS>().0);
        let mut sum = L::ZERO;
        for (hidden, mixed) in rows {
            self.dense.apply([hidden], mixed, Linear);
            for value in mixed {
                sum = sum + *value;
            }
        }
        let mean = sum * L::splat(SHARE);
        let mut squares = L::ZERO;
        for value in &mut self.mixed {
            *value = *value - mean;
            squares = squares.plus_product_of(value, value);
        }
        let inverse = L::splat(VARIANCE_FLOOR).plus_product(SHARE, &squares).sqrt().inverse();
        let parameters = self.scale.iter().zip(&self.offset);
        for ((value, (scale, offset)), cell) in self.mixed.iter().zip(parameters).zip(map.inner_mut()) {
            *cell = *cell + L::splat(*offset).plus_product(*scale, &(*value * inverse));
        }
    }
}
