//! A vector with one number per call, and the few operations that the network needs.
//!
//! Plain arrays in fixed loops: inlined into a function compiled for an instruction set they become its vector
//! instructions. Half of this network's work is the logistic function of its recurrent layers, so its polynomial uses
//! fused products where the set has them.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set

use std::ops::{Add, Mul, Sub};

use crate::exp::ROUND;

/// Calls side by side: a 512-bit register of `f32`, two of AVX2, four of NEON.
pub(super) const LANES: usize = 16;

/// One number per call.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Lanes(pub(super) [f32; LANES]);

/// What an instruction set can do.
pub(super) trait Isa {
    /// Multiply and add are one instruction; without it `mul_add` is a library call a hundred times slower.
    const FUSED: bool;
}

impl Lanes {
    pub(super) const ZERO: Self = Self::splat(0.0);

    #[inline(always)]
    pub(super) const fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    /// `self + a * b`
    #[inline(always)]
    pub(super) fn plus_product<I: Isa>(self, a: f32, b: &Self) -> Self {
        let mut sum = self.0;
        for lane in 0..LANES {
            sum[lane] = fused::<I>(a, b.0[lane], sum[lane]);
        }
        Self(sum)
    }

    /// `self + a * b`
    #[inline(always)]
    pub(super) fn plus_product_of<I: Isa>(self, a: &Self, b: &Self) -> Self {
        let mut sum = self.0;
        for lane in 0..LANES {
            sum[lane] = fused::<I>(a.0[lane], b.0[lane], sum[lane]);
        }
        Self(sum)
    }

    /// `f` must be without fused products: a closure that is not inlined has no instruction set of its caller's.
    #[inline(always)]
    pub(super) fn map(self, f: impl Fn(f32) -> f32) -> Self {
        let mut mapped = self.0;
        for value in &mut mapped {
            *value = f(*value);
        }
        Self(mapped)
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut zipped = self.0;
        for lane in 0..LANES {
            zipped[lane] = f(zipped[lane], other.0[lane]);
        }
        Self(zipped)
    }

    /// Negative numbers times `slope`.
    #[inline(always)]
    pub(super) fn leaky(self, slope: f32) -> Self {
        self.map(|value| if value > 0.0 { value } else { slope * value })
    }

    #[inline(always)]
    pub(super) fn sigmoid<I: Isa>(self) -> Self {
        let mut mapped = self.0;
        for value in &mut mapped {
            *value = sigmoid::<I>(*value);
        }
        Self(mapped)
    }

    #[inline(always)]
    pub(super) fn tanh<I: Isa>(self) -> Self {
        let mut mapped = self.0;
        for value in &mut mapped {
            *value = fused::<I>(2.0, sigmoid::<I>(2.0 * *value), -1.0);
        }
        Self(mapped)
    }
}

impl Add for Lanes {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
}

impl Sub for Lanes {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
}

impl Mul for Lanes {
    type Output = Self;
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
}

/// `a * b + c`
#[inline(always)]
fn fused<I: Isa>(a: f32, b: f32, c: f32) -> f32 {
    if I::FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// The logistic function to 3e-7: 2^n by the exponent bits and 2^f for |f| ≤ ½ by its series.
#[inline(always)]
fn sigmoid<I: Isa>(x: f32) -> f32 {
    // beyond these the result is 0 or 1, and 2^n would leave the normal numbers
    let x = if x > 80.0 { 80.0 } else { x };
    let x = if x < -80.0 { -80.0 } else { x };
    let rounded = fused::<I>(x, -std::f32::consts::LOG2_E, ROUND);
    let f = fused::<I>(x, -std::f32::consts::LOG2_E, ROUND - rounded);
    let two_to_n = f32::from_bits((rounded.to_bits() << 23).wrapping_add(0x3f80_0000));
    // ln(2)^k / k!
    let mut series = fused::<I>(1.540_353e-4, f, 1.333_355_8e-3);
    series = fused::<I>(series, f, 9.618_129e-3);
    series = fused::<I>(series, f, 5.550_411e-2);
    series = fused::<I>(series, f, 0.240_226_51);
    series = fused::<I>(series, f, std::f32::consts::LN_2);
    series = fused::<I>(series, f, 1.0);
    1.0 / fused::<I>(series, two_to_n, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Plain;
    impl Isa for Plain {
        const FUSED: bool = false;
    }
    struct Fused;
    impl Isa for Fused {
        const FUSED: bool = true;
    }

    #[test]
    fn sigmoid_and_tanh_are_within_1e_6_of_the_true_ones() {
        for step in -3_000..=3_000 {
            let x = Lanes::splat(step as f32 * 0.04);
            let near = |found: Lanes, truth: f64| assert!((f64::from(found.0[3]) - truth).abs() < 1e-6, "{} for {truth} at {}", found.0[3], x.0[3]);
            let truth = f64::from(x.0[3]);
            near(x.sigmoid::<Plain>(), 1.0 / (1.0 + (-truth).exp()));
            near(x.sigmoid::<Fused>(), 1.0 / (1.0 + (-truth).exp()));
            near(x.tanh::<Plain>(), truth.tanh());
            near(x.tanh::<Fused>(), truth.tanh());
        }
    }
}
