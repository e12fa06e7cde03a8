//! A block that looks back in time.
//!
//! Half the channels pass as they are. The other half are spread to 16 from themselves and their neighbouring bands;
//! each of the 16 is weighed over three bands now, one dilation and two dilations of frames ago; and they are gathered
//! to 8, each turned down by an attention that follows its energy in time. Then the halves are interleaved.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set

use super::layers::{Dense, Gru, Leaky, Linear, Sigmoid};
use super::map::Map;
use super::slot::Group;
use super::weights::{BlockLayers, CHANNELS, HALF, MIDDLE};
use crate::lanes::Lanes;

/// One block, and room for its frame.
pub(super) struct Block<L, const O: usize> {
    dilation: usize,
    /// Where its rows of history begin in a slot.
    first_row: usize,
    spread: Dense<O>,
    spread_slope: f32,
    depth: Vec<([f32; 9], f32)>,
    depth_slope: f32,
    gather: Dense<O>,
    attention: Gru<O, CHANNELS>,
    attend: Dense<O>,
    /// Two dilations ago, one dilation ago, now.
    frames: [Map<L, CHANNELS>; 3],
    gathered: Vec<[L; HALF]>,
    hidden: Vec<L>,
}

impl<L: Lanes, const O: usize> Block<L, O> {
    pub(super) fn new(layers: BlockLayers, first_row: usize) -> Self {
        Self {
            dilation: layers.dilation,
            first_row,
            spread: Dense::new(&layers.spread),
            spread_slope: layers.spread_slope,
            depth: layers.depth,
            depth_slope: layers.depth_slope,
            gather: Dense::new(&layers.gather),
            attention: Gru::new(&layers.attention),
            attend: Dense::new(&layers.attend),
            frames: std::array::from_fn(|_| Map::new(MIDDLE)),
            gathered: vec![[L::ZERO; HALF]; MIDDLE],
            hidden: vec![L::ZERO; CHANNELS],
        }
    }

    /// Where the next block's rows of history begin.
    pub(super) fn rows_end(&self) -> usize {
        self.first_row + 2 * self.dilation
    }

    /// `step` of the six: whose attention in a slot is this block's.
    #[inline(always)]
    pub(super) fn run(&mut self, step: usize, group: &mut Group<'_>, input: &Map<L, CHANNELS>, output: &mut Map<L, CHANNELS>) {
        self.exchange_history(group, input);
        let energy = self.look_back();
        group.gather(|slot| &slot.attention[step], &mut self.hidden);
        self.attention.step(&energy, &mut self.hidden);
        group.scatter(&self.hidden, |slot| &mut slot.attention[step]);
        let mut attention = [L::ZERO; HALF];
        self.attend.apply([&self.hidden], &mut attention, Sigmoid);
        for (band, gathered) in self.gathered.iter().enumerate() {
            let passed = &input.row(band)[HALF..];
            let pairs = output.row_mut(band).as_chunks_mut::<2>().0;
            for (channel, pair) in pairs.iter_mut().enumerate() {
                *pair = [gathered[channel] * attention[channel], passed[channel]];
            }
        }
    }

    /// Takes the two frames that are looked back at out of the slots and puts this one in the oldest one's place.
    #[inline(always)]
    fn exchange_history(&mut self, group: &mut Group<'_>, input: &Map<L, CHANNELS>) {
        let [oldest, older, now] = &mut self.frames;
        for band in 0..MIDDLE {
            let seen = input.around(band, 1, 3).as_chunks::<CHANNELS>().0;
            self.spread.apply([&seen[0][..HALF], &seen[1][..HALF], &seen[2][..HALF]], now.row_mut(band), Leaky(self.spread_slope));
        }
        let (first, dilation) = (self.first_row, self.dilation);
        group.gather(|slot| slot.history(first, dilation, 0), oldest.inner_mut());
        group.gather(|slot| slot.history(first, dilation, dilation), older.inner_mut());
        group.scatter(now.inner(), |slot| slot.history_mut(first, dilation));
    }

    /// Fills `gathered`; returns the mean energy of each of its channels.
    #[inline(always)]
    fn look_back(&mut self) -> [L; HALF] {
        let mut energy = [L::ZERO; HALF];
        for (band, gathered) in self.gathered.iter_mut().enumerate() {
            let [oldest, older, now] = &self.frames;
            let seen = [oldest.around(band, 1, 3), older.around(band, 1, 3), now.around(band, 1, 3)];
            let mut sums = [L::ZERO; CHANNELS];
            for (channel, (sum, (weights, bias))) in sums.iter_mut().zip(&self.depth).enumerate() {
                let mut total = L::splat(*bias);
                for (tap, weight) in weights.iter().enumerate() {
                    total = total.plus_product(*weight, &seen[tap / 3][tap % 3 * CHANNELS + channel]);
                }
                *sum = total.leaky(self.depth_slope);
            }
            self.gather.apply([&sums], gathered, Linear);
            for (energy, value) in energy.iter_mut().zip(gathered.iter()) {
                *energy = energy.plus_product_of(value, value);
            }
        }
        for energy in &mut energy {
            *energy = *energy * L::splat(1.0 / MIDDLE as f32);
        }
        energy
    }
}
