//! The types of x86's own registers. Whoever makes a network of them has seen that the processor has the instructions: AVX2
//! and FMA for [`Avx2`], AVX-512F for [`Avx512`]. That is what every `SAFETY` here stands for.
#![allow(clippy::inline_always)] // as in lanes.rs
#![allow(unsafe_code)] // the instructions, and registers seen as arrays

#[allow(clippy::wildcard_imports)] // instructions have unmistakable names
use std::arch::x86_64::*;
use std::ops::{Add, Mul, Sub};

use super::{LANES, Lanes, ONE};

/// What both types have as sixteen numbers in a row, without room between them.
macro_rules! seen_as_array {
    () => {
        // SAFETY: they are as large, and any bits are numbers
        const ZERO: Self = unsafe { std::mem::transmute::<[f32; LANES], Self>([0.0; LANES]) };

        #[inline(always)]
        fn array(&self) -> &[f32; LANES] {
            // SAFETY: as above
            unsafe { &*std::ptr::from_ref(self).cast() }
        }

        #[inline(always)]
        fn array_mut(&mut self) -> &mut [f32; LANES] {
            // SAFETY: as above
            unsafe { &mut *std::ptr::from_mut(self).cast() }
        }
    };
}

/// Two registers of AVX2.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Avx2([__m256; 2]);

/// Of both halves the same.
macro_rules! halves {
    ($body:expr; $($half:ident of $lanes:expr),+) => {{
        // SAFETY: the processor has AVX2 and FMA
        let low = { $(let $half = $lanes.0[0];)+ unsafe { $body } };
        // SAFETY: the same
        let high = { $(let $half = $lanes.0[1];)+ unsafe { $body } };
        Avx2([low, high])
    }};
}

operators!(
    Avx2,
    |a: Self, b: Self| halves!(_mm256_add_ps(a, b); a of a, b of b),
    |a: Self, b: Self| halves!(_mm256_sub_ps(a, b); a of a, b of b),
    |a: Self, b: Self| halves!(_mm256_mul_ps(a, b); a of a, b of b)
);

impl Lanes for Avx2 {
    seen_as_array!();

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: the processor has AVX2
        let half = unsafe { _mm256_set1_ps(value) };
        Self([half, half])
    }

    #[inline(always)]
    fn plus_product(self, a: f32, b: &Self) -> Self {
        halves!(_mm256_fmadd_ps(_mm256_set1_ps(a), b, sum); sum of self, b of b)
    }

    #[inline(always)]
    fn plus_product_of(self, a: &Self, b: &Self) -> Self {
        halves!(_mm256_fmadd_ps(a, b, sum); sum of self, a of a, b of b)
    }

    #[inline(always)]
    fn at_least(self, bound: f32) -> Self {
        halves!(_mm256_max_ps(_mm256_set1_ps(bound), value); value of self)
    }

    #[inline(always)]
    fn at_most(self, bound: f32) -> Self {
        halves!(_mm256_min_ps(_mm256_set1_ps(bound), value); value of self)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        halves!(_mm256_sqrt_ps(value); value of self)
    }

    #[inline(always)]
    fn over(self, divisor: f32) -> Self {
        halves!(_mm256_div_ps(value, _mm256_set1_ps(divisor)); value of self)
    }

    #[inline(always)]
    fn inverse(self) -> Self {
        halves!(_mm256_div_ps(_mm256_set1_ps(1.0), value); value of self)
    }

    #[inline(always)]
    fn two_to_rounded(self) -> Self {
        halves!({
            let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(value));
            _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(ONE.cast_signed())))
        }; value of self)
    }

    #[inline(always)]
    fn larger(self, other: &Self) -> Self {
        halves!(_mm256_max_ps(value, other); value of self, other of other)
    }

    #[inline(always)]
    fn size(self) -> Self {
        halves!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), value); value of self)
    }

    #[inline(always)]
    fn of_sums(a: &[i32; LANES], b: &[i32; LANES]) -> Self {
        let half = |at: usize| {
            let [a, b] = [a, b].map(|sums| sums[at..at + LANES / 2].as_ptr().cast());
            // SAFETY: eight integers lie there, and the processor has AVX2
            unsafe { _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_loadu_si256(a), _mm256_loadu_si256(b))) }
        };
        Self([half(0), half(LANES / 2)])
    }

    #[inline(always)]
    fn pick<const SHIFT: u32>(self, table: &[f32; 16]) -> Self {
        // SAFETY: eight numbers lie there, and the processor has AVX2
        let [low, high] = [0, 8].map(|at| unsafe { _mm256_loadu_ps(table[at..at + 8].as_ptr()) });
        halves!({
            let index = _mm256_srl_epi32(_mm256_castps_si256(value), _mm_cvtsi32_si128(SHIFT as i32));
            let is_high = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index));
            _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, index), _mm256_permutevar8x32_ps(high, index), is_high)
        }; value of self)
    }

    #[inline(always)]
    fn low_bytes(self, plus: u8) -> [u8; LANES] {
        // SAFETY: the processor has AVX2, and the result is sixteen bytes
        unsafe {
            let lowest = |value| _mm256_and_si256(_mm256_castps_si256(value), _mm256_set1_epi32(0xff));
            // each 128 bits: four of the low half, four of the high half
            let pairs = _mm256_packus_epi32(lowest(self.0[0]), lowest(self.0[1]));
            let ordered = _mm256_permute4x64_epi64::<0b11_01_10_00>(pairs);
            let bytes = _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256::<1>(ordered));
            std::mem::transmute::<__m128i, [u8; LANES]>(_mm_add_epi8(bytes, _mm_set1_epi8(plus.cast_signed())))
        }
    }
}

/// A register of AVX-512.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Avx512(__m512);

operators!(
    Avx512,
    // SAFETY: the processor has AVX-512F, here and in all below
    |a: Self, b: Self| Self(unsafe { _mm512_add_ps(a.0, b.0) }),
    |a: Self, b: Self| Self(unsafe { _mm512_sub_ps(a.0, b.0) }),
    |a: Self, b: Self| Self(unsafe { _mm512_mul_ps(a.0, b.0) })
);

impl Lanes for Avx512 {
    seen_as_array!();

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: the processor has AVX-512F
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn plus_product(self, a: f32, b: &Self) -> Self {
        // SAFETY: the processor has AVX-512F
        Self(unsafe { _mm512_fmadd_ps(_mm512_set1_ps(a), b.0, self.0) })
    }

    #[inline(always)]
    fn plus_product_of(self, a: &Self, b: &Self) -> Self {
        // SAFETY: the processor has AVX-512F
        Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
    }

    #[inline(always)]
    fn at_least(self, bound: f32) -> Self {
        // SAFETY: the processor has AVX-512F
        Self(unsafe { _mm512_max_ps(_mm512_set1_ps(bound), self.0) })
    }

    #[inline(always)]
    fn at_most(self, bound: f32) -> Self {
        // SAFETY: the processor has AVX-512F
        Self(unsafe { _mm512_min_ps(_mm512_set1_ps(bound), self.0) })
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: the processor has AVX-512F
        Self(unsafe { _mm512_sqrt_ps(self.0) })
    }

    #[inline(always)]
    fn over(self, divisor: f32) -> Self {
        // SAFETY: the processor has AVX-512F
        Self(unsafe { _mm512_div_ps(self.0, _mm512_set1_ps(divisor)) })
    }

    #[inline(always)]
    fn inverse(self) -> Self {
        // SAFETY: the processor has AVX-512F
        Self(unsafe { _mm512_div_ps(_mm512_set1_ps(1.0), self.0) })
    }

    #[inline(always)]
    fn two_to_rounded(self) -> Self {
        // SAFETY: the processor has AVX-512F
        Self(unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(self.0));
            _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(ONE.cast_signed())))
        })
    }

    #[inline(always)]
    fn larger(self, other: &Self) -> Self {
        // SAFETY: the processor has AVX-512F
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn size(self) -> Self {
        // SAFETY: the processor has AVX-512F
        Self(unsafe { _mm512_abs_ps(self.0) })
    }

    #[inline(always)]
    fn of_sums(a: &[i32; LANES], b: &[i32; LANES]) -> Self {
        // SAFETY: sixteen integers are a register, and the processor has AVX-512F
        Self(unsafe { _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_loadu_si512(a.as_ptr().cast()), _mm512_loadu_si512(b.as_ptr().cast()))) })
    }

    #[inline(always)]
    fn pick<const SHIFT: u32>(self, table: &[f32; 16]) -> Self {
        // SAFETY: sixteen numbers are a register, and the processor has AVX-512F
        Self(unsafe {
            let index = _mm512_srlv_epi32(_mm512_castps_si512(self.0), _mm512_set1_epi32(SHIFT as i32));
            _mm512_permutexvar_ps(index, _mm512_loadu_ps(table.as_ptr()))
        })
    }

    #[inline(always)]
    fn low_bytes(self, plus: u8) -> [u8; LANES] {
        // SAFETY: the processor has AVX-512F, and the result is sixteen bytes
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_castps_si512(self.0));
            std::mem::transmute::<__m128i, [u8; LANES]>(_mm_add_epi8(bytes, _mm_set1_epi8(plus.cast_signed())))
        }
    }
}
