//! Numbers side by side in vector registers, and the few operations that the networks need: where calls are batched one number
//! per call, in the end-of-turn model sixteen of one call.
//!
//! Each instruction set has a type of its own made of its own instructions. Plain loops over arrays are left to the
//! optimiser only where the set is the target's own: given AVX-512 it vectorises other loops than these, by gathers and
//! scatters, and runs fourteen times longer.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set

use std::ops::{Add, Mul, Sub};

use crate::exp::ROUND;

/// Numbers side by side: a 512-bit register of `f32`, two of AVX2, four of NEON.
pub const LANES: usize = 16;

/// The bits of 1.0.
const ONE: u32 = 0x3f80_0000;

/// Numbers side by side. A number that is none stays none.
pub(crate) trait Lanes: Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> {
    const ZERO: Self;

    fn splat(value: f32) -> Self;

    /// `self + a * b`
    fn plus_product(self, a: f32, b: &Self) -> Self;

    /// `self + a * b`
    fn plus_product_of(self, a: &Self, b: &Self) -> Self;

    fn at_least(self, bound: f32) -> Self;

    fn at_most(self, bound: f32) -> Self;

    fn sqrt(self) -> Self;

    /// `self / divisor`
    fn over(self, divisor: f32) -> Self;

    /// `1 / self`
    fn inverse(self) -> Self;

    /// 2^n for the n in the low bits of a number to which [`ROUND`] was added.
    fn two_to_rounded(self) -> Self;

    /// The lanes' larger numbers.
    fn larger(self, other: &Self) -> Self;

    /// Without the signs.
    fn size(self) -> Self;

    /// The sums of integers, wrapped.
    fn of_sums(a: &[i32; LANES], b: &[i32; LANES]) -> Self;

    /// The table's numbers at the four bits from `SHIFT` up of numbers to which [`ROUND`] was added.
    fn pick<const SHIFT: u32>(self, table: &[f32; 16]) -> Self;

    /// The lowest bytes of numbers to which [`ROUND`] was added, each plus `plus`, wrapped.
    fn low_bytes(self, plus: u8) -> [u8; LANES];

    fn array(&self) -> &[f32; LANES];

    fn array_mut(&mut self) -> &mut [f32; LANES];

    #[inline(always)]
    fn load(numbers: &[f32; LANES]) -> Self {
        let mut lanes = Self::ZERO;
        *lanes.array_mut() = *numbers;
        lanes
    }

    #[inline(always)]
    fn negative(self) -> Self {
        Self::ZERO - self
    }

    #[inline(always)]
    fn relu(self) -> Self {
        self.at_least(0.0)
    }

    /// Negative numbers times `slope`.
    #[inline(always)]
    fn leaky(self, slope: f32) -> Self {
        self.at_least(0.0).plus_product(slope, &self.at_most(0.0))
    }

    /// The logistic function to 3e-7: 2^n by the exponent bits and 2^f for |f| ≤ ½ by its series.
    #[inline(always)]
    fn sigmoid(self) -> Self {
        // beyond these the result is 0 or 1, and 2^n would leave the normal numbers
        let x = self.at_most(80.0).at_least(-80.0);
        let rounded = Self::splat(ROUND).plus_product(-std::f32::consts::LOG2_E, &x);
        let f = (Self::splat(ROUND) - rounded).plus_product(-std::f32::consts::LOG2_E, &x);
        // ln(2)^k / k!
        let mut series = Self::splat(1.333_355_8e-3).plus_product(1.540_353e-4, &f);
        series = Self::splat(9.618_129e-3).plus_product_of(&series, &f);
        series = Self::splat(5.550_411e-2).plus_product_of(&series, &f);
        series = Self::splat(0.240_226_51).plus_product_of(&series, &f);
        series = Self::splat(std::f32::consts::LN_2).plus_product_of(&series, &f);
        series = Self::splat(1.0).plus_product_of(&series, &f);
        Self::splat(1.0).plus_product_of(&series, &rounded.two_to_rounded()).inverse()
    }

    #[inline(always)]
    fn tanh(self) -> Self {
        Self::splat(-1.0).plus_product(2.0, &(self + self).sigmoid())
    }
}

/// The operators of a type by functions of it.
macro_rules! operators {
    ($lanes:ty, $add:expr, $sub:expr, $mul:expr) => {
        impl Add for $lanes {
            type Output = Self;
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                $add(self, other)
            }
        }
        impl Sub for $lanes {
            type Output = Self;
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                $sub(self, other)
            }
        }
        impl Mul for $lanes {
            type Output = Self;
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                $mul(self, other)
            }
        }
    };
}

/// What the target has without asking: NEON, SSE2.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Plain([f32; LANES]);

impl Plain {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut zipped = self.0;
        for lane in 0..LANES {
            zipped[lane] = f(zipped[lane], other.0[lane]);
        }
        Self(zipped)
    }

    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        self.zip(self, |value, _| f(value))
    }
}

/// `a * b + c`, fused where that is part of the target's base instruction set: elsewhere it is a library call a hundred
/// times slower.
#[inline(always)]
fn product_plus(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
}

operators!(Plain, |a: Self, b| a.zip(b, |a, b| a + b), |a: Self, b| a.zip(b, |a, b| a - b), |a: Self, b| a.zip(b, |a, b| a * b));

impl Lanes for Plain {
    const ZERO: Self = Self([0.0; LANES]);

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    fn plus_product(self, a: f32, b: &Self) -> Self {
        self.zip(*b, |sum, b| product_plus(a, b, sum))
    }

    #[inline(always)]
    fn plus_product_of(self, a: &Self, b: &Self) -> Self {
        let mut sum = self.0;
        for lane in 0..LANES {
            sum[lane] = product_plus(a.0[lane], b.0[lane], sum[lane]);
        }
        Self(sum)
    }

    #[inline(always)]
    fn at_least(self, bound: f32) -> Self {
        self.map(|value| if bound > value { bound } else { value })
    }

    #[inline(always)]
    fn at_most(self, bound: f32) -> Self {
        self.map(|value| if bound < value { bound } else { value })
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        self.map(f32::sqrt)
    }

    #[inline(always)]
    fn over(self, divisor: f32) -> Self {
        self.map(|value| value / divisor)
    }

    #[inline(always)]
    fn inverse(self) -> Self {
        self.map(|value| 1.0 / value)
    }

    #[inline(always)]
    fn two_to_rounded(self) -> Self {
        self.map(|value| f32::from_bits((value.to_bits() << 23).wrapping_add(ONE)))
    }

    #[inline(always)]
    fn larger(self, other: &Self) -> Self {
        self.zip(*other, |value, other| if value > other { value } else { other })
    }

    #[inline(always)]
    fn size(self) -> Self {
        self.map(f32::abs)
    }

    #[inline(always)]
    fn of_sums(a: &[i32; LANES], b: &[i32; LANES]) -> Self {
        let mut sums = Self::ZERO;
        for lane in 0..LANES {
            sums.0[lane] = a[lane].wrapping_add(b[lane]) as f32;
        }
        sums
    }

    #[inline(always)]
    fn pick<const SHIFT: u32>(self, table: &[f32; 16]) -> Self {
        self.map(|value| table[(value.to_bits() >> SHIFT & 15) as usize])
    }

    #[inline(always)]
    fn low_bytes(self, plus: u8) -> [u8; LANES] {
        self.0.map(|value| (value.to_bits() as u8).wrapping_add(plus))
    }

    #[inline(always)]
    fn array(&self) -> &[f32; LANES] {
        &self.0
    }

    #[inline(always)]
    fn array_mut(&mut self) -> &mut [f32; LANES] {
        &mut self.0
    }
}

#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(test)]
mod tests {
    use super::*;

    fn near_the_truth<L: Lanes>() {
        for step in -3_000..=3_000 {
            let x = step as f32 * 0.04;
            let near = |found: L, truth: f64| assert!((f64::from(found.array()[3]) - truth).abs() < 1e-6, "{} for {truth} at {x}", found.array()[3]);
            let truth = f64::from(x);
            near(L::splat(x).sigmoid(), 1.0 / (1.0 + (-truth).exp()));
            near(L::splat(x).tanh(), truth.tanh());
        }
        assert!(L::splat(f32::NAN).sigmoid().array()[5].is_nan(), "a number that is none stays none");
    }

    #[test]
    fn sigmoid_and_tanh_are_within_1e_6_of_the_true_ones_on_every_instruction_set() {
        near_the_truth::<Plain>();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                near_the_truth::<Avx2>();
            }
            if is_x86_feature_detected!("avx512f") {
                near_the_truth::<Avx512>();
            }
        }
    }
}
