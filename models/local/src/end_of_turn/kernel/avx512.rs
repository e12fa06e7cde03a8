//! Products with AVX-512 VNNI: 64 products an instruction, activations and weights as they lie in memory.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set
#![allow(unsafe_code)] // vector loads from slices whose lengths are checked before

use std::arch::x86_64::{_mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_storeu_si512};
use std::array;

use crate::lanes;

use super::{GROUP, Isa, Line, Room, Rows, TILE_PANELS, TILE_ROWS, Tile};

pub(in super::super) struct Avx512;

impl Isa for Avx512 {
    type Lanes = lanes::Avx512;

    // 24 of 32 registers for sums, four for weights, one for activations
    const PANELS: usize = TILE_PANELS;

    #[inline(always)]
    fn prepare(_: Rows<'_>, _: &mut Room) {}

    #[inline(always)]
    fn multiply(block: Rows<'_>, _: &Room, first: usize, panels: &[Line], sums: &mut Tile) {
        let groups = block.depth / GROUP;
        // a missing row is the last one again
        let rows: [&[u8]; TILE_ROWS] = array::from_fn(|row| block.row((first + row).min(block.count - 1)));
        if panels.len() == TILE_PANELS * groups {
            // SAFETY: this kernel is only chosen on processors with AVX-512 VNNI
            unsafe { multiply_tile::<TILE_PANELS>(rows, panels, 0, sums) };
        } else {
            for (index, panel) in panels.chunks_exact(groups).enumerate() {
                // SAFETY: as above
                unsafe { multiply_tile::<1>(rows, panel, index, sums) };
            }
        }
    }
}

/// Writes the sums of `N` panels from the one at `index` on.
#[target_feature(enable = "avx512f,avx512vnni")]
fn multiply_tile<const N: usize>(rows: [&[u8]; TILE_ROWS], lines: &[Line], index: usize, sums: &mut Tile) {
    let groups = lines.len() / N;
    assert!(lines.len() == N * groups && rows.iter().all(|row| row.len() == groups * GROUP));
    let rows = rows.map(<[u8]>::as_ptr);
    let lines = lines.as_ptr();
    let mut parts = [[_mm512_setzero_si512(); N]; TILE_ROWS];
    for group in 0..groups {
        // SAFETY: `group` is below the number of lines of each of the N panels, and a line is 64 bytes
        let weights: [_; N] = array::from_fn(|panel| unsafe { _mm512_loadu_si512(lines.add(panel * groups + group).cast()) });
        for (row, parts) in rows.iter().zip(&mut parts) {
            // SAFETY: each row holds `groups` times four codes
            let codes = _mm512_set1_epi32(unsafe { row.add(group * GROUP).cast::<i32>().read_unaligned() });
            for (part, weights) in parts.iter_mut().zip(weights) {
                *part = _mm512_dpbusd_epi32(*part, codes, weights);
            }
        }
    }
    for (parts, sums) in parts.iter().zip(sums) {
        for (part, sums) in parts.iter().zip(&mut sums[index..]) {
            // SAFETY: sixteen sums are 64 bytes
            unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), *part) };
        }
    }
}
