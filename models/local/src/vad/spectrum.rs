//! The first layer: magnitudes of a windowed Fourier transform of four overlapping frames.
//!
//! The file holds it as a convolution with cosines and sines, 264 thousand products a window. As a fast transform it
//! is a tenth of that: two frames go in as the real and imaginary part of one complex sequence, four radix-4 steps in
//! place, and the two spectra are told apart by their symmetry.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set

use std::f64::consts::TAU;

use super::weights::BINS;
use crate::lanes::Lanes;

/// Samples in a frame of the spectrum.
pub(super) const FRAME: usize = 256;
/// Samples from a frame to the next.
pub(super) const HOP: usize = 128;
/// Frames in a window.
pub(super) const FRAMES: usize = 4;

/// Tables and room for the transform.
pub(super) struct Spectrum<L> {
    window: [f32; FRAME],
    /// e^(-2πi k / 256) as cosine and sine.
    twiddles: [(f32, f32); FRAME],
    /// Where the transform leaves bin k: its base-4 digits reversed.
    place: [u8; FRAME],
    re: Vec<L>,
    im: Vec<L>,
}

impl<L: Lanes> Spectrum<L> {
    pub(super) fn new(window: &[f32; FRAME]) -> Self {
        let turn = |k: usize| TAU * k as f64 / FRAME as f64;
        let digits_reversed = |k: usize| ((k & 0x03) << 6 | (k & 0x0c) << 2 | (k & 0x30) >> 2 | (k & 0xc0) >> 6) as u8;
        Self {
            window: *window,
            twiddles: std::array::from_fn(|k| (turn(k).cos() as f32, -turn(k).sin() as f32)),
            place: std::array::from_fn(digits_reversed),
            re: vec![L::ZERO; FRAME],
            im: vec![L::ZERO; FRAME],
        }
    }

    /// Writes `magnitudes[bin * FRAMES + frame]` of the `HOP * (FRAMES + 1)` samples.
    #[inline(always)]
    pub(super) fn magnitudes(&mut self, samples: &[L], magnitudes: &mut [L]) {
        for pair in 0..FRAMES / 2 {
            let start = 2 * pair * HOP;
            for n in 0..FRAME {
                let window = L::splat(self.window[n]);
                self.re[n] = samples[start + n] * window;
                self.im[n] = samples[start + HOP + n] * window;
            }
            self.transform();
            for bin in 0..BINS {
                let (a, b) = (usize::from(self.place[bin]), usize::from(self.place[(FRAME - bin) % FRAME]));
                let (re, im, re_mirror, im_mirror) = (self.re[a], self.im[a], self.re[b], self.im[b]);
                let first = half_length(re + re_mirror, im - im_mirror);
                let second = half_length(im + im_mirror, re_mirror - re);
                magnitudes[bin * FRAMES + 2 * pair] = first;
                magnitudes[bin * FRAMES + 2 * pair + 1] = second;
            }
        }
    }

    /// Decimation in frequency, in place: the result lies at digit-reversed places.
    #[inline(always)]
    fn transform(&mut self) {
        let mut quarter = FRAME / 4;
        while quarter > 0 {
            let stride = FRAME / 4 / quarter;
            for group in (0..FRAME).step_by(4 * quarter) {
                for k in 0..quarter {
                    self.butterfly(group + k, quarter, k * stride);
                }
            }
            quarter /= 4;
        }
    }

    #[inline(always)]
    fn butterfly(&mut self, at: usize, quarter: usize, turn: usize) {
        let [p0, p1, p2, p3] = [at, at + quarter, at + 2 * quarter, at + 3 * quarter];
        let (even_re, odd_re) = (self.re[p0] + self.re[p2], self.re[p0] - self.re[p2]);
        let (even_im, odd_im) = (self.im[p0] + self.im[p2], self.im[p0] - self.im[p2]);
        let (sum_re, gap_re) = (self.re[p1] + self.re[p3], self.re[p1] - self.re[p3]);
        let (sum_im, gap_im) = (self.im[p1] + self.im[p3], self.im[p1] - self.im[p3]);
        (self.re[p0], self.im[p0]) = (even_re + sum_re, even_im + sum_im);
        (self.re[p1], self.im[p1]) = turned(odd_re + gap_im, odd_im - gap_re, self.twiddles[turn]);
        (self.re[p2], self.im[p2]) = turned(even_re - sum_re, even_im - sum_im, self.twiddles[2 * turn]);
        (self.re[p3], self.im[p3]) = turned(odd_re - gap_im, odd_im + gap_re, self.twiddles[3 * turn]);
    }
}

/// Complex product with a twiddle factor.
#[inline(always)]
fn turned<L: Lanes>(re: L, im: L, (cos, sin): (f32, f32)) -> (L, L) {
    let turned_re = (L::splat(cos) * re).plus_product(-sin, &im);
    let turned_im = (L::splat(cos) * im).plus_product(sin, &re);
    (turned_re, turned_im)
}

#[inline(always)]
fn half_length<L: Lanes>(x: L, y: L) -> L {
    L::splat(0.5) * (x * x + y * y).sqrt()
}

/// The window by which the file's cosines and sines are weighted; none when the basis is anything else.
pub(super) fn window_of_basis(basis: &[f32]) -> Option<[f32; FRAME]> {
    /// The file's f32 sines are right to about 1e-6.
    const TOLERANCE: f64 = 1e-5;
    let mut window = [0.0; FRAME];
    window.copy_from_slice(&basis[..FRAME]); // cosine of frequency 0
    let fourier = (0..2 * BINS).all(|row| {
        (0..FRAME).all(|n| {
            let turn = TAU * ((row % BINS) * n) as f64 / FRAME as f64;
            let (size, found) = (f64::from(window[n]), f64::from(basis[row * FRAME + n]));
            // magnitudes do not tell the sine's sign
            if row < BINS { (found - size * turn.cos()).abs() < TOLERANCE } else { (found.abs() - (size * turn.sin()).abs()).abs() < TOLERANCE }
        })
    });
    fourier.then_some(window)
}
