//! Products with AVX2: 16-bit pairs, 16 products an instruction.
//!
//! The 8-bit instruction adds pairs of products in 16 bits and saturates, which changes answers; so activations are
//! widened once for all panels they meet, and weights as they are loaded.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set
#![allow(unsafe_code)] // vector loads from slices whose lengths are checked before

use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_add_epi32, _mm256_cvtepi8_epi16, _mm256_hadd_epi32, _mm256_madd_epi16, _mm256_permute4x64_epi64, _mm256_set1_epi64x,
    _mm256_setzero_si256, _mm256_storeu_si256,
};

use crate::lanes;

use super::{GROUP, Isa, Line, Room, Rows, TILE_ROWS, Tile};

/// Widened codes of one group of a tile's rows.
const TILE_GROUP: usize = TILE_ROWS * GROUP;

pub(in super::super) struct Avx2;

impl Isa for Avx2 {
    type Lanes = lanes::Avx2;

    // the sums of half a panel take 12 of 16 registers, its weights two, and two remain to multiply
    const PANELS: usize = 1;

    /// Lays the rows out as `[tile][group][row][code of the group]`. What lies in missing rows is never looked at.
    #[inline(always)]
    fn prepare(block: Rows<'_>, room: &mut Room) {
        let tile_len = block.depth / GROUP * TILE_GROUP;
        for row in 0..block.count {
            let tile = room.widened[row / TILE_ROWS * tile_len..][..tile_len].as_chunks_mut::<TILE_GROUP>().0;
            let at = row % TILE_ROWS * GROUP;
            for (to, from) in tile.iter_mut().zip(block.row(row).as_chunks::<GROUP>().0) {
                for i in 0..GROUP {
                    to[at + i] = i16::from(from[i]);
                }
            }
        }
    }

    #[inline(always)]
    fn multiply(block: Rows<'_>, room: &Room, first: usize, panels: &[Line], sums: &mut Tile) {
        let tile_len = block.depth / GROUP * TILE_GROUP;
        let codes = &room.widened[first / TILE_ROWS * tile_len..][..tile_len];
        // SAFETY: this kernel is only chosen on processors with AVX2
        unsafe { multiply_tile(codes, panels, sums) };
    }
}

#[target_feature(enable = "avx2")]
fn multiply_tile(codes: &[i16], lines: &[Line], sums: &mut Tile) {
    let codes = codes.as_chunks::<TILE_GROUP>().0;
    assert!(codes.len() == lines.len());
    for half in 0..2 {
        let mut parts = [[_mm256_setzero_si256(); 2]; TILE_ROWS];
        for (codes, line) in codes.iter().zip(lines) {
            let weights: *const i8 = line.0[half * 32..].as_ptr();
            // SAFETY: half a line is 32 bytes long
            let weights = unsafe { [_mm256_cvtepi8_epi16(_mm_loadu_si128(weights.cast())), _mm256_cvtepi8_epi16(_mm_loadu_si128(weights.add(16).cast()))] };
            for (row, parts) in parts.iter_mut().enumerate() {
                // SAFETY: `row` is below TILE_ROWS, so four codes lie there
                let group = _mm256_set1_epi64x(unsafe { codes.as_ptr().add(row * GROUP).cast::<i64>().read_unaligned() });
                for (part, weights) in parts.iter_mut().zip(weights) {
                    *part = _mm256_add_epi32(*part, _mm256_madd_epi16(group, weights));
                }
            }
        }
        for (parts, [sums, ..]) in parts.iter().zip(sums.iter_mut()) {
            // pairs of columns 0 1 4 5 | 2 3 6 7
            let joined = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(parts[0], parts[1]));
            let to: *mut __m256i = sums[half * 8..].as_mut_ptr().cast();
            // SAFETY: eight sums lie there
            unsafe { _mm256_storeu_si256(to, joined) };
        }
    }
}
