//! Products of 8-bit matrices, compiled for each instruction set and chosen when the model is loaded.
//!
//! Activations are unsigned and weights signed 8-bit codes, which is what AVX-512 VNNI multiplies four at a time. AVX2
//! has no such instruction that does not saturate, so there both are widened to 16 bits. All kernels give the same sums
//! to the last bit. The rest of the network is arithmetic on [`Lanes`] of the same instruction set.

#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
pub(super) mod portable;
pub(super) mod vector;

use std::marker::PhantomData;

use crate::lanes::{LANES, Lanes};

/// Columns of a panel, and numbers in a vector.
pub(super) const WIDTH: usize = LANES;
/// Products that are summed at once.
pub(super) const GROUP: usize = 4;

/// [`GROUP`] rows of a panel: for each of its columns the codes of the group, one cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [i8; WIDTH * GROUP]);

impl Line {
    pub(super) const ZERO: Self = Self([0; WIDTH * GROUP]);
}

/// Where a panel of `depth` rows holds the code of a row and column: line and place in the line.
pub(super) fn place(row: usize, column: usize) -> (usize, usize) {
    (row / GROUP, column * GROUP + row % GROUP)
}

/// Rows of activations: `count` rows of `depth` codes, each beginning `stride` codes after the one before.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    codes: &'a [u8],
    stride: usize,
    count: usize,
    depth: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn new(codes: &'a [u8], stride: usize, count: usize, depth: usize) -> Self {
        assert!(count > 0 && depth.is_multiple_of(GROUP) && (count - 1) * stride + depth <= codes.len());
        Self { codes, stride, count, depth }
    }

    fn row(&self, row: usize) -> &'a [u8] {
        &self.codes[row * self.stride..][..self.depth]
    }

    /// At most [`BLOCK`] rows.
    fn block(&self, first: usize) -> Self {
        Self { codes: &self.codes[first * self.stride..], count: (self.count - first).min(BLOCK), ..*self }
    }
}

/// Rows and panels whose sums an instruction set can hold in its registers together.
const TILE_ROWS: usize = 6;
const TILE_PANELS: usize = 4;
/// Rows that meet all panels before the next: as 16-bit numbers they stay in a second-level cache of 512 KiB.
const BLOCK: usize = 16 * TILE_ROWS;
/// The deepest product.
const DEPTH_MAX: usize = 1536;

type Tile = [[[i32; WIDTH]; TILE_PANELS]; TILE_ROWS];

/// An instruction set's way to multiply matrices.
pub(super) trait Isa {
    type Lanes: Lanes;

    /// Panels that are multiplied at once.
    const PANELS: usize;

    /// Rearranges a block of rows for the tiles to come.
    fn prepare(block: Rows<'_>, room: &mut Room);

    /// The sums of the block's rows from `first` on with up to [`Self::PANELS`] panels. Sums of missing rows are anything.
    fn multiply(block: Rows<'_>, room: &Room, first: usize, panels: &[Line], sums: &mut Tile);
}

/// Room in which a kernel may rearrange activations.
pub(super) struct Room {
    widened: Vec<i16>,
}

impl Room {
    pub(super) fn new() -> Self {
        Self { widened: vec![0; BLOCK * DEPTH_MAX] }
    }
}

/// Each row's sums of products with each panel's columns, as (row, panel, sums), in the order that suits the caches.
///
/// An iterator, because a loop's body is compiled for the instruction set of the function around it; a closure's is
/// only if the compiler happens to inline it.
pub(super) struct Products<'a, I> {
    rows: Rows<'a>,
    panels: &'a [Line],
    room: &'a mut Room,
    sums: Tile,
    /// Where the tile in `sums` begins and how many rows and panels it has.
    first: (usize, usize),
    len: (usize, usize),
    /// What of the tile comes next.
    next: (usize, usize),
    isa: PhantomData<I>,
}

impl<'a, I: Isa> Products<'a, I> {
    /// The panels lie one after the other, each with the rows' depth.
    #[inline(always)]
    pub(super) fn new(rows: Rows<'a>, panels: &'a [Line], room: &'a mut Room) -> Self {
        let sums = [[[0; WIDTH]; TILE_PANELS]; TILE_ROWS];
        let mut products = Self { rows, panels, room, sums, first: (0, 0), len: (0, 0), next: (0, 0), isa: PhantomData };
        products.begin_block();
        products.begin_tile();
        products
    }

    #[inline(always)]
    fn begin_block(&mut self) {
        I::prepare(self.rows.block(self.first.0), self.room);
    }

    #[inline(always)]
    fn begin_tile(&mut self) {
        let (row, panel) = self.first;
        let groups = self.rows.depth / GROUP;
        let panels = (self.panels.len() / groups - panel).min(I::PANELS);
        let lines = &self.panels[panel * groups..(panel + panels) * groups];
        let block = self.rows.block(row / BLOCK * BLOCK);
        I::multiply(block, self.room, row % BLOCK, lines, &mut self.sums);
        self.len = ((block.count - row % BLOCK).min(TILE_ROWS), panels);
        self.next = (0, 0);
    }

    /// Moves on: down the block, then to the next panels, then to the next block.
    #[inline(always)]
    fn advance(&mut self) -> Option<()> {
        let (row, panel) = self.first;
        let block = row / BLOCK * BLOCK;
        if row + TILE_ROWS < self.rows.count.min(block + BLOCK) {
            self.first = (row + TILE_ROWS, panel);
        } else if (panel + self.len.1) * (self.rows.depth / GROUP) < self.panels.len() {
            self.first = (block, panel + self.len.1);
        } else if block + BLOCK < self.rows.count {
            self.first = (block + BLOCK, 0);
            self.begin_block();
        } else {
            return None;
        }
        self.begin_tile();
        Some(())
    }
}

impl<I: Isa> Iterator for Products<'_, I> {
    type Item = (usize, usize, [i32; WIDTH]);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.next.1 == self.len.1 {
            self.advance()?;
        }
        let (row, panel) = self.next;
        self.next = if row + 1 < self.len.0 { (row + 1, panel) } else { (0, panel + 1) };
        Some((self.first.0 + row, self.first.1 + panel, self.sums[row][panel]))
    }
}
