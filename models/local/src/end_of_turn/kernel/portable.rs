//! Products in the target's own instructions: NEON, SSE2.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set

use crate::lanes::Plain;

use super::{GROUP, Isa, Line, Room, Rows, Tile, WIDTH};

pub(in super::super) struct Portable;

impl Isa for Portable {
    type Lanes = Plain;

    const PANELS: usize = 1;

    #[inline(always)]
    fn prepare(_: Rows<'_>, _: &mut Room) {}

    #[inline(always)]
    fn multiply(block: Rows<'_>, _: &Room, first: usize, panels: &[Line], sums: &mut Tile) {
        for (row, [sums, ..]) in (first..block.count).zip(sums) {
            *sums = [0; WIDTH];
            for (codes, line) in block.row(row).as_chunks::<GROUP>().0.iter().zip(panels) {
                let codes = codes.map(i16::from);
                let line = line.0.map(i16::from);
                for (sum, weights) in sums.iter_mut().zip(line.as_chunks::<GROUP>().0) {
                    // as pairs, which many instruction sets add up
                    let pair = |i: usize| i32::from(codes[i]) * i32::from(weights[i]) + i32::from(codes[i + 1]) * i32::from(weights[i + 1]);
                    *sum += pair(0) + pair(2);
                }
            }
        }
    }
}
