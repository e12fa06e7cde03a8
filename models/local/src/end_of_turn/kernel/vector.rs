//! Arithmetic on [`WIDTH`] numbers at once, without branches, so that it vectorises.
//!
//! Multiplications and additions are never fused, though some processors could: so all kernels round alike and give
//! the same answer. It is made of 8-bit codes, and a last bit can tip one.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set

use super::WIDTH;
use crate::exp::{ROUND, exp};

/// Numbers side by side.
pub(in super::super) type Vector = [f32; WIDTH];

/// The vectors of a slice whose length is a multiple of [`WIDTH`].
#[inline(always)]
pub(in super::super) fn vectors(values: &[f32]) -> &[Vector] {
    values.as_chunks().0
}

/// As [`vectors`], to write.
#[inline(always)]
pub(in super::super) fn vectors_mut(values: &mut [f32]) -> &mut [Vector] {
    values.as_chunks_mut().0
}

/// `f` of each number.
#[inline(always)]
pub(in super::super) fn map(values: &Vector, f: impl Fn(f32) -> f32) -> Vector {
    let mut mapped = *values;
    for value in &mut mapped {
        *value = f(*value);
    }
    mapped
}

/// Rounds to the nearest 8-bit code, counted from the code of zero.
#[inline(always)]
pub(in super::super) fn quantise(value: f32, zero: f32) -> f32 {
    let value = if value > 255.0 - zero { 255.0 - zero } else { value };
    let value = if value < -zero { -zero } else { value };
    value + ROUND - ROUND
}

/// The codes themselves.
#[inline(always)]
pub(in super::super) fn codes(values: &Vector, zero: f32) -> [u8; WIDTH] {
    let mut codes = [0; WIDTH];
    for (code, value) in codes.iter_mut().zip(values) {
        *code = (value + (ROUND + zero)).to_bits() as u8;
    }
    codes
}

/// Sum of the numbers.
#[inline(always)]
pub(in super::super) fn sum(values: &Vector) -> f32 {
    let mut sums = *values;
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
    }
    sums[0]
}

/// The largest of the numbers.
#[inline(always)]
pub(in super::super) fn largest(values: &Vector) -> f32 {
    values.iter().fold(f32::NEG_INFINITY, |largest, &value| if value > largest { value } else { largest })
}

/// Hyperbolic tangent.
#[inline(always)]
pub(in super::super) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (1.0 + exp(2.0 * x))
}

/// x · Φ(x), Φ by the error function of Abramowitz and Stegun 7.1.26, good to 1.5e-7.
#[inline(always)]
pub(in super::super) fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (0.327_591_1 * z + 1.0);
    let mut series = 1.061_405_4;
    series = series * t - 1.453_152;
    series = series * t + 1.421_413_7;
    series = series * t - 0.284_496_74;
    series = series * t + 0.254_829_6;
    let erf = 1.0 - series * t * exp(-z * z);
    0.5 * (x.abs() * erf + x)
}
