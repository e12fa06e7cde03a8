//! Arithmetic on [`Lanes`] of one call's numbers.
//!
//! Multiplications and additions are never fused, though some processors could: so all kernels round alike and give
//! the same answer. It is made of 8-bit codes, and a last bit can tip one.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set

use super::WIDTH;
use crate::exp::{ROUND, exp};
use crate::lanes::Lanes;

/// The vectors of a slice whose length is a multiple of [`WIDTH`].
#[inline(always)]
pub(in super::super) fn vectors(values: &[f32]) -> &[[f32; WIDTH]] {
    values.as_chunks().0
}

/// As [`vectors`], to write.
#[inline(always)]
pub(in super::super) fn vectors_mut(values: &mut [f32]) -> &mut [[f32; WIDTH]] {
    values.as_chunks_mut().0
}

/// The nearest 8-bit code, counted from the code of zero, in the low bits.
#[inline(always)]
fn rounded<L: Lanes>(value: L, zero: f32) -> L {
    value.at_most(255.0 - zero).at_least(-zero) + L::splat(ROUND)
}

/// Rounds to the nearest 8-bit code, counted from the code of zero.
#[inline(always)]
pub(in super::super) fn quantise<L: Lanes>(value: L, zero: f32) -> L {
    rounded(value, zero) - L::splat(ROUND)
}

/// The nearest 8-bit codes.
#[inline(always)]
pub(in super::super) fn codes<L: Lanes>(value: L, zero: f32) -> [u8; WIDTH] {
    rounded(value, zero).low_bytes(zero as u8)
}

/// Sum of the numbers.
#[inline(always)]
pub(in super::super) fn sum<L: Lanes>(values: L) -> f32 {
    let mut sums = *values.array();
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
    }
    sums[0]
}

/// The largest of the numbers.
#[inline(always)]
pub(in super::super) fn largest<L: Lanes>(values: L) -> f32 {
    values.array().iter().fold(f32::NEG_INFINITY, |largest, &value| if value > largest { value } else { largest })
}

/// x · Φ(x), half the error function as a cubic for each of 16 stretches of |x|: to 5e-6, far less than a step of the result's code,
/// at a third of the cost of [`gelu`].
#[inline(always)]
pub(in super::super) fn gelu_of<L: Lanes>(x: L, half_erf: &HalfErf) -> L {
    let size = x.size();
    let place = (size * L::splat(1.0 / STRETCH)).at_most(STRETCHES as f32 - 0.501);
    let nearest = place + L::splat(ROUND);
    let f = place - (nearest - L::splat(ROUND));
    let mut cubic = L::ZERO;
    for terms in &half_erf.0 {
        cubic = cubic * f + nearest.pick::<0>(terms);
    }
    size * cubic + L::splat(0.5) * x
}

/// Stretches of |x|, the first half as long as the others; beyond the last, 5.4, Φ is 1.
const STRETCHES: usize = 16;
const STRETCH: f32 = 0.35;

/// Half the error function of |x|/√2 around the middle of each stretch, in its lengths: the terms of the third power, of the second, …
pub(in super::super) struct HalfErf([[f32; STRETCHES]; 4]);

impl HalfErf {
    pub(in super::super) fn new() -> Self {
        let mut terms = [[0.0; STRETCHES]; 4];
        for stretch in 0..STRETCHES {
            let x = stretch as f32 * STRETCH;
            let density = (-0.5 * x * x).exp() / std::f32::consts::TAU.sqrt();
            let half_erf = if stretch == 0 { 0.0 } else { gelu(x) / x - 0.5 };
            let [h, hh, hhh, hhhh] = [1, 2, 3, 4].map(|power| STRETCH.powi(power));
            // of f⁴, f²/4 - 1/128 is the nearest
            let fourth = (3.0 - x * x) * x * density * hhhh / 24.0;
            let second = -x * density * hh / 2.0 + fourth / 4.0;
            let of_stretch = [(x * x - 1.0) * density * hhh / 6.0, second, density * h, half_erf - fourth / 128.0];
            for (terms, term) in terms.iter_mut().zip(of_stretch) {
                terms[stretch] = term;
            }
        }
        Self(terms)
    }
}

/// e to the power of how far codes are below the largest, times their scale.
pub(in super::super) struct Powers {
    /// Of sixteens of codes, and of single codes.
    coarse: [f32; 16],
    fine: [f32; 16],
}

impl Powers {
    pub(in super::super) fn new(scale: f32) -> Self {
        let power = |codes: usize| (-f64::from(scale) * codes as f64).exp() as f32;
        Self { coarse: std::array::from_fn(|at| power(16 * (15 - at))), fine: std::array::from_fn(|at| power(15 - at)) }
    }

    /// Of whole numbers of codes, up to 255 below the top.
    #[inline(always)]
    pub(in super::super) fn of<L: Lanes>(&self, codes: L, top: f32) -> L {
        let from_below = codes + L::splat(ROUND + 255.0 - top);
        from_below.pick::<4>(&self.coarse) * from_below.pick::<0>(&self.fine)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::Plain;

    #[test]
    fn the_tables_of_gelu_and_of_powers_are_as_good_as_their_words() {
        let half_erf = HalfErf::new();
        for step in -4_000..4_000 {
            let x = step as f32 * 0.002;
            let fast = gelu_of(Plain::splat(x), &half_erf).array()[0];
            assert!((fast - gelu(x)).abs() < 5e-6, "{fast} is not {} at {x}", gelu(x));
        }
        let powers = Powers::new(0.07);
        for code in 0..=255 {
            let power = powers.of(Plain::splat(code as f32 - 130.0), 125.0).array()[0];
            let truth = (0.07 * (code as f32 - 255.0)).exp();
            assert!((power / truth - 1.0).abs() < 1e-6, "{power} is not {truth}");
        }
    }
}
