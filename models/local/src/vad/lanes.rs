//! A vector with one number per call, and the few operations that the network needs.
//!
//! Plain arrays in fixed loops: inlined into a function compiled for an instruction set they become its vector
//! instructions. Whether that set fuses multiply and add is a type parameter, because without it `mul_add` is a
//! library call a hundred times slower.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set

use std::ops::{Add, Mul, Sub};

use crate::exp::exp;

/// Calls side by side: a 512-bit register of `f32`, two of AVX2, four of NEON.
pub const LANES: usize = 16;

/// One number per call.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Lanes(pub(super) [f32; LANES]);

/// What an instruction set can do, and how many outputs of a layer its registers can hold at once.
pub(super) trait Isa {
    /// Multiply and add are one instruction.
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
            sum[lane] = if I::FUSED { a.mul_add(b.0[lane], sum[lane]) } else { sum[lane] + a * b.0[lane] };
        }
        Self(sum)
    }

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

    #[inline(always)]
    pub(super) fn relu(self) -> Self {
        self.map(|value| if value > 0.0 { value } else { 0.0 })
    }

    #[inline(always)]
    pub(super) fn sigmoid(self) -> Self {
        self.map(sigmoid)
    }

    #[inline(always)]
    pub(super) fn tanh(self) -> Self {
        self.map(|value| 2.0 * sigmoid(2.0 * value) - 1.0)
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

/// The logistic function to 3e-7.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigmoid_and_tanh_are_within_1e_6_of_the_true_ones() {
        for step in -3_000..=3_000 {
            let x = step as f32 * 0.04;
            let (sigmoid, tanh) = (Lanes::splat(x).sigmoid().0[3], Lanes::splat(x).tanh().0[3]);
            let x = f64::from(x);
            assert!((f64::from(sigmoid) - 1.0 / (1.0 + (-x).exp())).abs() < 1e-6, "sigmoid({x}) = {sigmoid}");
            assert!((f64::from(tanh) - x.tanh()).abs() < 1e-6, "tanh({x}) = {tanh}");
        }
    }
}
