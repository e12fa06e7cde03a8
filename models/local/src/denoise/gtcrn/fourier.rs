//! The transform between 512 samples and 257 bins, for all lanes at once, forth and back.
//!
//! Real samples go in as 256 complex numbers, even ones real and odd ones imaginary: four radix-4 steps in place, and
//! the spectra of the two halves are told apart by their symmetry. The way back is the same in the other order. Both
//! ways weigh with the root of a Hann window, whose squares add up to one at half a frame's step: what is not masked
//! comes back as it was.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set

use std::f64::consts::{PI, TAU};

use crate::lanes::Lanes;

/// Samples in a frame, 32 ms.
pub(super) const FRAME: usize = 512;
/// Samples from a frame to the next, 16 ms.
pub(super) const HOP: usize = FRAME / 2;
/// Bins of a spectrum.
pub(super) const BINS: usize = FRAME / 2 + 1;
/// Points of the complex transform.
const POINTS: usize = FRAME / 2;
/// The way back halves and divides by the points, in one.
const SCALE: f32 = 1.0 / FRAME as f32;

/// A bin of all lanes.
#[derive(Clone, Copy)]
pub(super) struct Bin<L> {
    pub(super) re: L,
    pub(super) im: L,
}

impl<L: Lanes> Bin<L> {
    pub(super) const ZERO: Self = Self { re: L::ZERO, im: L::ZERO };

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        Self { re: self.re + other.re, im: self.im + other.im }
    }

    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        Self { re: self.re - other.re, im: self.im - other.im }
    }

    #[inline(always)]
    fn conjugate(self) -> Self {
        Self { re: self.re, im: self.im.negative() }
    }

    #[inline(always)]
    fn halved(self) -> Self {
        Self { re: self.re * L::splat(0.5), im: self.im * L::splat(0.5) }
    }

    /// Times -i.
    #[inline(always)]
    fn quarter_turn_back(self) -> Self {
        Self { re: self.im, im: self.re.negative() }
    }

    /// Times i.
    #[inline(always)]
    fn quarter_turn(self) -> Self {
        Self { re: self.im.negative(), im: self.re }
    }

    #[inline(always)]
    fn turned(self, (cos, sin): (f32, f32)) -> Self {
        Self { re: (L::splat(cos) * self.re).plus_product(-sin, &self.im), im: (L::splat(cos) * self.im).plus_product(sin, &self.re) }
    }
}

/// Tables and room for the transforms.
pub(super) struct Fourier<L> {
    window: [f32; FRAME],
    /// e^(-2πi k / 256) as cosine and sine.
    twiddles: [(f32, f32); POINTS],
    /// e^(-2πi k / 512).
    halfway: [(f32, f32); BINS],
    /// Where the transform leaves point k: its base-4 digits reversed.
    place: [u8; POINTS],
    points: Vec<Bin<L>>,
}

impl<L: Lanes> Fourier<L> {
    pub(super) fn new() -> Self {
        let turn = |k: usize, of: usize| TAU * k as f64 / of as f64;
        let twiddle = |k: usize, of: usize| (turn(k, of).cos() as f32, -turn(k, of).sin() as f32);
        let digits_reversed = |k: usize| ((k & 0x03) << 6 | (k & 0x0c) << 2 | (k & 0x30) >> 2 | (k & 0xc0) >> 6) as u8;
        Self {
            window: std::array::from_fn(|n| (PI * n as f64 / FRAME as f64).sin() as f32),
            twiddles: std::array::from_fn(|k| twiddle(k, POINTS)),
            halfway: std::array::from_fn(|k| twiddle(k, FRAME)),
            place: std::array::from_fn(digits_reversed),
            points: vec![Bin::ZERO; POINTS],
        }
    }

    /// The windowed spectrum of `FRAME` samples.
    #[inline(always)]
    pub(super) fn forward(&mut self, samples: &[L], spectrum: &mut [Bin<L>]) {
        for (n, point) in self.points.iter_mut().enumerate() {
            point.re = samples[2 * n] * L::splat(self.window[2 * n]);
            point.im = samples[2 * n + 1] * L::splat(self.window[2 * n + 1]);
        }
        self.transform();
        for (k, bin) in spectrum.iter_mut().enumerate() {
            let (here, mirror) = (self.point(k), self.point(POINTS - k).conjugate());
            let odd = here.minus(mirror).quarter_turn_back();
            *bin = here.plus(mirror).plus(odd.turned(self.halfway[k])).halved();
        }
    }

    /// The windowed `FRAME` samples of a spectrum.
    #[inline(always)]
    pub(super) fn backward(&mut self, spectrum: &[Bin<L>], samples: &mut [L]) {
        for k in 0..POINTS {
            let (here, mirror) = (real_at_ends(spectrum, k), real_at_ends(spectrum, POINTS - k).conjugate());
            let (cos, sin) = self.halfway[k];
            let odd = here.minus(mirror).turned((cos, -sin));
            // the inverse is the conjugate of the transform of the conjugate
            self.points[k] = here.plus(mirror).plus(odd.quarter_turn()).conjugate();
        }
        self.transform();
        for n in 0..POINTS {
            let point = self.point(n);
            samples[2 * n] = point.re * L::splat(SCALE * self.window[2 * n]);
            samples[2 * n + 1] = point.im * L::splat(-SCALE * self.window[2 * n + 1]);
        }
    }

    #[inline(always)]
    fn point(&self, k: usize) -> Bin<L> {
        self.points[usize::from(self.place[k % POINTS])]
    }

    /// Decimation in frequency, in place: the result lies at digit-reversed places.
    #[inline(always)]
    fn transform(&mut self) {
        let mut quarter = POINTS / 4;
        while quarter > 0 {
            let stride = POINTS / 4 / quarter;
            for group in (0..POINTS).step_by(4 * quarter) {
                for k in 0..quarter {
                    self.butterfly(group + k, quarter, k * stride);
                }
            }
            quarter /= 4;
        }
    }

    #[inline(always)]
    fn butterfly(&mut self, at: usize, quarter: usize, turn: usize) {
        let places = [at, at + quarter, at + 2 * quarter, at + 3 * quarter];
        let [p0, p1, p2, p3] = [self.points[places[0]], self.points[places[1]], self.points[places[2]], self.points[places[3]]];
        let (even, odd) = (p0.plus(p2), p0.minus(p2));
        let (sum, gap) = (p1.plus(p3), p1.minus(p3).quarter_turn_back());
        self.points[places[0]] = even.plus(sum);
        self.points[places[1]] = odd.plus(gap).turned(self.twiddles[turn]);
        self.points[places[2]] = even.minus(sum).turned(self.twiddles[2 * turn]);
        self.points[places[3]] = odd.minus(gap).turned(self.twiddles[3 * turn]);
    }
}

/// The first and the last bin of real samples have no imaginary part; a mask may have given them one.
#[inline(always)]
fn real_at_ends<L: Lanes>(spectrum: &[Bin<L>], k: usize) -> Bin<L> {
    let bin = spectrum[k];
    if k == 0 || k == BINS - 1 { Bin { re: bin.re, im: L::ZERO } } else { bin }
}
