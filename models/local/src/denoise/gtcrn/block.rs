//! A block that looks back in time.
//!
//! Half the channels pass as they are. The other half are spread to 16 from themselves and their neighbouring bands;
//! each of the 16 is weighed over three bands now, one dilation and two dilations of frames ago; and they are gathered
//! to 8, each turned down by an attention that follows its energy in time. Then the halves are interleaved.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set

use super::lanes::{Isa, Lanes};
use super::layers::{Dense, Gru, Leaky, Linear, Sigmoid};
use super::map::Map;
use super::slot::Group;
use super::weights::{BlockLayers, CHANNELS, HALF, MIDDLE};

/// One block, and room for its frame.
pub(super) struct Block<const O: usize> {
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
    frames: [Map<CHANNELS>; 3],
    gathered: Vec<[Lanes; HALF]>,
    hidden: Vec<Lanes>,
}

impl<const O: usize> Block<O> {
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
            gathered: vec![[Lanes::ZERO; HALF]; MIDDLE],
            hidden: vec![Lanes::ZERO; CHANNELS],
        }
    }

    /// Where the next block's rows of history begin.
    pub(super) fn rows_end(&self) -> usize {
        self.first_row + 2 * self.dilation
    }

    /// `step` of the six: whose attention in a slot is this block's.
    #[inline(always)]
    pub(super) fn run<I: Isa>(&mut self, step: usize, group: &mut Group<'_>, input: &Map<CHANNELS>, output: &mut Map<CHANNELS>) {
        self.exchange_history::<I>(group, input);
        let energy = self.look_back::<I>();
        group.gather(|slot| &slot.attention[step], &mut self.hidden);
        self.attention.step::<I>(&energy, &mut self.hidden);
        group.scatter(&self.hidden, |slot| &mut slot.attention[step]);
        let mut attention = [Lanes::ZERO; HALF];
        self.attend.apply::<I, 1>([&self.hidden], &mut attention, Sigmoid);
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
    fn exchange_history<I: Isa>(&mut self, group: &mut Group<'_>, input: &Map<CHANNELS>) {
        let [oldest, older, now] = &mut self.frames;
        for band in 0..MIDDLE {
            let [below, here, above] = [0, 1, 2].map(|tap| &input.around(band, 1, 3)[tap * CHANNELS..][..HALF]);
            self.spread.apply::<I, 3>([below, here, above], now.row_mut(band), Leaky(self.spread_slope));
        }
        let (first, dilation) = (self.first_row, self.dilation);
        group.gather(|slot| slot.history(first, dilation, 0), oldest.inner_mut());
        group.gather(|slot| slot.history(first, dilation, dilation), older.inner_mut());
        group.scatter(now.inner(), |slot| slot.history_mut(first, dilation));
    }

    /// Fills `gathered`; returns the mean energy of each of its channels.
    #[inline(always)]
    fn look_back<I: Isa>(&mut self) -> [Lanes; HALF] {
        let mut energy = [Lanes::ZERO; HALF];
        for (band, gathered) in self.gathered.iter_mut().enumerate() {
            let seen: [&[[Lanes; CHANNELS]]; 3] = self.frames.each_ref().map(|frame| frame.around(band, 1, 3).as_chunks().0);
            let mut sums = [Lanes::ZERO; CHANNELS];
            for (channel, (sum, (weights, bias))) in sums.iter_mut().zip(&self.depth).enumerate() {
                let mut total = Lanes::splat(*bias);
                for (tap, weight) in weights.iter().enumerate() {
                    total = total.plus_product::<I>(*weight, &seen[tap / 3][tap % 3][channel]);
                }
                *sum = total.leaky(self.depth_slope);
            }
            self.gather.apply::<I, 1>([&sums], gathered, Linear);
            for (energy, value) in energy.iter_mut().zip(gathered.iter()) {
                *energy = energy.plus_product_of::<I>(value, value);
            }
        }
        energy.map(|sum| sum * Lanes::splat(1.0 / MIDDLE as f32))
    }
}
