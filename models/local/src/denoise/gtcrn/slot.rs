//! What a call carries from frame to frame, and its way into and out of the lanes.
//!
//! Sound comes in 10 ms at a time and is transformed 16 ms at a time, so a slot keeps what waits at both ends. The
//! blocks' history stays where it is: of its 32 rows a frame reads two for each block and writes one.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set

use voiced_core::frame::{HEARD_LEN, HeardFrame};

use super::control::{Bounds, Control, Powers};
use super::fourier::{Bin, FRAME, HOP};
use super::weights::{CHANNELS, MIDDLE};
use crate::lanes::{LANES, Lanes};

/// Samples by which the sound is delayed: a hop that the window looks ahead, and the longest that 10 ms frames wait for
/// the next hop of 16 ms.
pub(super) const DELAY: usize = HOP + HOP - HOP_STEP;
/// What 10 ms and 16 ms have in common: hops end at multiples of this many samples.
const HOP_STEP: usize = 32;
/// Hops that calls can be apart without a longer delay.
const PHASES: usize = HOP / HOP_STEP;
/// Numbers in a row of history.
const ROW: usize = MIDDLE * CHANNELS;
/// Rows of history of the six blocks: 2, 4 and 10, twice.
const ROWS: usize = 32;
/// Frames after which every block's rows are used in the same order again: 2, 4 and 10 go into it.
const ROUND: usize = 20;

/// One call's state.
pub(super) struct Slot {
    /// The frame's samples, then those that wait.
    samples: [f32; FRAME + HEARD_LEN],
    heard: usize,
    /// The second half of the last frame's result.
    overlap: [f32; HOP],
    /// Finished samples that wait to be taken.
    finished: [f32; 2 * HOP],
    ready: usize,
    /// Frames since the start, modulo [`ROUND`].
    frame: usize,
    history: Box<[f32]>,
    /// The attention's state of each block.
    pub(super) attention: [[f32; CHANNELS]; 6],
    /// The state along time of each path.
    pub(super) bands: [[f32; ROW]; 2],
    pub(super) control: Control,
    pub(super) bounds: Bounds,
}

impl Slot {
    /// A fresh one; `index` decides at which ticks its hops end, so that calls that began together do not work together.
    pub(super) fn new(index: usize, bounds: Bounds) -> Self {
        let mut slot = Self {
            samples: [0.0; FRAME + HEARD_LEN],
            heard: 0,
            overlap: [0.0; HOP],
            finished: [0.0; 2 * HOP],
            ready: 0,
            frame: 0,
            history: vec![0.0; ROWS * ROW].into_boxed_slice(),
            attention: [[0.0; CHANNELS]; 6],
            bands: [[0.0; ROW]; 2],
            control: Control::default(),
            bounds,
        };
        slot.reset(index, bounds);
        slot
    }

    pub(super) fn reset(&mut self, index: usize, bounds: Bounds) {
        self.bounds = bounds;
        let phase = index % PHASES * HOP_STEP;
        self.samples.fill(0.0);
        self.heard = HOP + phase;
        self.overlap.fill(0.0);
        self.finished.fill(0.0);
        self.ready = DELAY - HOP - phase;
        self.forget();
    }

    /// Makes the network's state new and leaves the sound on its way.
    fn forget(&mut self) {
        self.frame = 0;
        self.history.fill(0.0);
        self.attention = [[0.0; CHANNELS]; 6];
        self.bands = [[0.0; ROW]; 2];
        self.control = Control::default();
    }

    /// Takes 10 ms; whether a frame is full now, which must then be run before the next are taken.
    pub(super) fn hear(&mut self, frame: &HeardFrame) -> bool {
        self.samples[self.heard..][..HEARD_LEN].copy_from_slice(frame);
        self.heard += HEARD_LEN;
        self.heard >= FRAME
    }

    /// The oldest 10 ms that are finished.
    pub(super) fn take(&mut self, frame: &mut HeardFrame) {
        frame.copy_from_slice(&self.finished[..HEARD_LEN]);
        self.finished.copy_within(HEARD_LEN..self.ready, 0);
        self.ready -= HEARD_LEN;
    }

    /// The samples of the frame that is full.
    #[inline(always)]
    pub(super) fn frame(&self) -> &[f32] {
        &self.samples[..FRAME]
    }

    /// A block's row of so many frames after its oldest one.
    #[inline(always)]
    pub(super) fn history(&self, first: usize, dilation: usize, later: usize) -> &[f32] {
        let row = first + (self.frame + later) % (2 * dilation);
        &self.history[row * ROW..][..ROW]
    }

    /// A block's oldest row, to be overwritten by the newest.
    #[inline(always)]
    pub(super) fn history_mut(&mut self, first: usize, dilation: usize) -> &mut [f32] {
        let row = first + self.frame % (2 * dilation);
        &mut self.history[row * ROW..][..ROW]
    }

    fn finish(&mut self, samples: impl Fn(usize) -> f32) {
        let (mut sound, mut rest) = (0.0, 0.0);
        for n in 0..HOP {
            let sample = self.overlap[n] + samples(n);
            self.finished[self.ready + n] = sample;
            self.overlap[n] = samples(HOP + n);
            sound += sample;
            rest += self.overlap[n];
        }
        // a number that is none would stay in the state for ever
        if !(sound + rest).is_finite() {
            self.finished[self.ready..][..HOP].fill(0.0);
            self.overlap.fill(0.0);
            self.samples.fill(0.0);
            self.forget();
        }
        self.ready += HOP;
        self.samples.copy_within(HOP..self.heard, 0);
        self.heard -= HOP;
        self.frame = (self.frame + 1) % ROUND;
    }
}

/// The slots whose frames are full, at most [`LANES`] of them: the lane of each is its place in `members`.
pub(super) struct Group<'a> {
    pub(super) slots: &'a mut [Slot],
    pub(super) members: &'a [usize],
}

impl Group<'_> {
    /// Puts what each member has into its lane.
    #[inline(never)] // AVX-512 would scatter one number at a time, which takes longer than plain stores
    pub(super) fn gather<L: Lanes>(&self, from: impl Fn(&Slot) -> &[f32], to: &mut [L]) {
        // piece by piece: a piece of all lanes stays in the nearest cache
        for (piece, to) in to.chunks_mut(LANES).enumerate() {
            for (lane, &slot) in self.members.iter().take(LANES).enumerate() {
                for (to, value) in to.iter_mut().zip(&from(&self.slots[slot])[piece * LANES..]) {
                    to.array_mut()[lane] = *value;
                }
            }
        }
    }

    /// Puts each lane into what its member has.
    #[inline(never)] // as above
    pub(super) fn scatter<L: Lanes>(&mut self, from: &[L], to: impl Fn(&mut Slot) -> &mut [f32]) {
        for (piece, from) in from.chunks(LANES).enumerate() {
            for (lane, &slot) in self.members.iter().take(LANES).enumerate() {
                for (from, value) in from.iter().zip(&mut to(&mut self.slots[slot])[piece * LANES..]) {
                    *value = from.array()[lane];
                }
            }
        }
    }

    /// Applies the mask as far as each call's control lets it.
    #[inline(always)]
    pub(super) fn mix<L: Lanes>(&mut self, spectrum: &mut [Bin<L>], mask: &mut [[L; 2]]) {
        let [mut heard, mut left, mut taken] = [L::ZERO; 3];
        for (bin, [re, im]) in spectrum.iter().zip(mask.iter_mut()) {
            *re = *re - L::splat(1.0); // from here on: what is added
            let power = (bin.re * bin.re).plus_product_of(&bin.im, &bin.im);
            let added = (*re * *re).plus_product_of(im, im);
            let kept = added + L::splat(1.0).plus_product(2.0, re);
            heard = heard + power;
            left = left.plus_product_of(&power, &kept);
            taken = taken.plus_product_of(&power, &added);
        }
        let mut share = L::ZERO;
        for (lane, &slot) in self.members.iter().take(LANES).enumerate() {
            let powers = Powers { heard: heard.array()[lane], left: left.array()[lane], taken: taken.array()[lane] };
            let slot = &mut self.slots[slot];
            share.array_mut()[lane] = slot.control.share(slot.bounds, powers);
        }
        for (bin, [re, im]) in spectrum.iter_mut().zip(mask) {
            let (re, im) = (*re * share, *im * share);
            let real = (bin.re * re - bin.im * im) + bin.re;
            bin.im = (bin.im * re).plus_product_of(&bin.re, &im) + bin.im;
            bin.re = real;
        }
    }

    /// Adds the frame to what is finished.
    #[inline(never)] // as above
    pub(super) fn finish<L: Lanes>(&mut self, samples: &[L]) {
        for (lane, &slot) in self.members.iter().take(LANES).enumerate() {
            self.slots[slot].finish(|n| samples[n].array()[lane]);
        }
    }
}
