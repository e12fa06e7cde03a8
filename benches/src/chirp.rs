//! A sound that is found again: chirps, no two alike, one after another without a pause, so that no encoder falls silent
//! between them. Where one is in what was heard is told by cross-correlation.

use std::f32::consts::TAU;

/// Length of one.
const CHIRP_MS: u32 = 200;
/// Within a telephone's band, in Hz.
const LOW_HZ: f32 = 400.0;
const HIGH_HZ: f32 = 3_000.0;
/// Sweep between the ends of one at least, so that it has one place where it fits.
const SWEEP_HZ: f32 = 600.0;
const LEVEL: f32 = 0.3;
/// Softened at both ends for so long, in s: a click is no part of it.
const EDGE_S: f32 = 0.005;
/// Likeness from which it is the same chirp: a codec for voices leaves half of some, and others are below.
const LIKENESS_MIN: f32 = 0.45;

/// A run of chirps.
#[derive(Clone, Copy, Debug)]
pub struct Chirps {
    hz: u32,
}

impl Chirps {
    /// Chirps at this rate; the same ones at each rate.
    pub fn at(hz: u32) -> Self {
        Self { hz }
    }

    /// So many, one after another, full scale ±1.
    pub fn sound(self, count: u32) -> Vec<f32> {
        (0..count).flat_map(|number| self.one(number)).collect()
    }

    /// Length of one, in ms.
    pub const fn len_ms() -> u32 {
        CHIRP_MS
    }

    /// The sample of `sound` at which this one begins, if it is there.
    pub fn find(self, number: u32, sound: &[f32]) -> Option<usize> {
        let chirp = self.one(number);
        let own = chirp.iter().map(|sample| sample * sample).sum::<f32>();
        let likeness = |part: &[f32]| {
            let (mut product, mut power) = (0.0, 0.0);
            for (heard, said) in part.iter().zip(&chirp) {
                product += heard * said;
                power += heard * heard;
            }
            product / (power * own).sqrt().max(f32::MIN_POSITIVE)
        };
        let places = sound.windows(chirp.len()).map(likeness).enumerate();
        let (place, best) = places.max_by(|a, b| a.1.total_cmp(&b.1))?;
        (best >= LIKENESS_MIN).then_some(place)
    }

    fn one(self, number: u32) -> Vec<f32> {
        let mut seed = number.wrapping_mul(2_654_435_761).wrapping_add(97);
        let mut share = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 24) as f32
        };
        let from = LOW_HZ + share() * (HIGH_HZ - LOW_HZ - SWEEP_HZ);
        let to = (from + SWEEP_HZ + share() * (HIGH_HZ - from - SWEEP_HZ)).min(HIGH_HZ);
        let (from, to) = if share() < 0.5 { (from, to) } else { (to, from) };
        let len_s = CHIRP_MS as f32 / 1_000.0;
        let sample = |at: u32| {
            let t = at as f32 / self.hz as f32;
            let edge = (t.min(len_s - t) / EDGE_S).min(1.0);
            LEVEL * edge * (TAU * (from + (to - from) * t / (2.0 * len_s)) * t).sin()
        };
        (0..CHIRP_MS * self.hz / 1_000).map(sample).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chirp_is_found_where_it_is_and_no_other_is_taken_for_it() {
        let chirps = Chirps::at(8_000);
        let mut sound = vec![0.0; 777];
        sound.extend(chirps.sound(12));
        for number in [0, 5, 11] {
            assert_eq!(chirps.find(number, &sound), Some(777 + number as usize * 1_600));
        }
        assert_eq!(chirps.find(20, &sound), None);
    }
}
