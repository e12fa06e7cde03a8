//! Bands of channels of lanes, with empty bands around them for the convolutions to reach into.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set

use crate::lanes::Lanes;

/// Empty bands on either side, for the longest reach.
pub(super) const PAD: usize = 3;

/// `C` channels of each band: `cells[(PAD + band) * C + channel]`.
pub(super) struct Map<L, const C: usize> {
    cells: Vec<L>,
}

impl<L: Lanes, const C: usize> Map<L, C> {
    pub(super) fn new(bands: usize) -> Self {
        Self { cells: vec![L::ZERO; (bands + 2 * PAD) * C] }
    }

    #[inline(always)]
    pub(super) fn row(&self, band: usize) -> &[L] {
        self.around(band, 0, 1)
    }

    #[inline(always)]
    pub(super) fn row_mut(&mut self, band: usize) -> &mut [L] {
        &mut self.cells[(PAD + band) * C..][..C]
    }

    /// So many bands from `before` below this one on; `before` is at most [`PAD`].
    #[inline(always)]
    pub(super) fn around(&self, band: usize, before: usize, bands: usize) -> &[L] {
        &self.cells[(PAD + band - before) * C..][..bands * C]
    }

    /// All bands without the empty ones.
    #[inline(always)]
    pub(super) fn inner(&self) -> &[L] {
        &self.cells[PAD * C..self.cells.len() - PAD * C]
    }

    #[inline(always)]
    pub(super) fn inner_mut(&mut self) -> &mut [L] {
        let end = self.cells.len() - PAD * C;
        &mut self.cells[PAD * C..end]
    }

    #[inline(always)]
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.inner_mut().copy_from_slice(other.inner());
    }

    #[inline(always)]
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, other) in self.inner_mut().iter_mut().zip(other.inner()) {
            *sum = *sum + *other;
        }
    }
}
