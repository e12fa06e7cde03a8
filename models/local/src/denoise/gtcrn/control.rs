//! How much of the mask is applied: as much as helps, and none where there is nothing to help.
//!
//! Two measures bound it, both from the powers of a frame before and after the mask. The first is of the line: how far
//! the voice stands above the noise in the pauses. Where it stands far above, the network can only harm, and the sound
//! stays as it is, sample for sample. The second is of the frame: what may be taken away is the noise as the pauses know
//! it, and a small share of what is left. What goes beyond may have been speech, and comes back in part: a word that the
//! network takes for noise is 12 dB quieter, not gone.

/// Where a line is noisy enough for the mask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Voice over noise from which on up nothing is masked, in dB.
    pub(super) clean_db: f32,
    /// Voice over noise from which on down the mask is applied wholly, in dB.
    pub(super) noisy_db: f32,
}

impl Bounds {
    /// The mask, always and wholly.
    pub(super) const NONE: Self = Self { clean_db: f32::INFINITY, noisy_db: f32::INFINITY };
}

/// Share of the last frames in the smoothed power: half of it is three frames old.
const SMOOTHING: f32 = 0.6;
/// How fast the noise in the pauses is taken to grow, as a factor a frame: 3 dB a second.
const NOISE_RISE: f32 = 1.011_1;
/// The same while it is less than [`QUIET`], 20 dB a second: a line may begin with no sound at all.
const SILENCE_RISE: f32 = 1.076;
/// How fast the voice is taken to fade, as a factor a frame: 1 dB a second.
const VOICE_FALL: f32 = 0.996_3;
/// How far single frames of a steady noise lie above its mean: what may be taken away of it.
const NOISE_SPREAD: f32 = 2.0;
/// What may be taken away beyond, of what is left: -12 dB.
const DAMAGE: f32 = 0.063;
/// The least share of the mask in a frame, whatever it takes away: -12 dB remain.
const SHARE_MIN: f32 = 0.75;
/// Power of -62 dB of full scale: quieter than any line with noise on it. (Bins are sums: full scale is 65536.)
const QUIET: f32 = 0.041;
/// Power of -72 dB of full scale, the smallest step of mu-law: what is below is no sound of a line.
const SILENCE: f32 = 0.004_1;

/// Powers of a frame, sums over its bins.
#[derive(Clone, Copy)]
pub(super) struct Powers {
    pub(super) heard: f32,
    pub(super) left: f32,
    pub(super) taken: f32,
}

/// What the control of a call knows.
#[derive(Clone, Copy, Default)]
pub(super) struct Control {
    /// Smoothed power of what is heard; none before the first frame.
    level: Option<f32>,
    /// The lowest of it, slowly forgotten: the noise in the pauses.
    noise: f32,
    /// The highest of what the mask leaves, slowly forgotten: the voice.
    voice: f32,
}

impl Control {
    /// The share of the mask for this frame, 0 to 1.
    pub(super) fn share(&mut self, bounds: Bounds, frame: Powers) -> f32 {
        let heard = frame.heard.max(SILENCE);
        let level = self.level.map_or(heard, |level| SMOOTHING * level + (1.0 - SMOOTHING) * heard);
        let rise = if self.noise < QUIET { SILENCE_RISE } else { NOISE_RISE };
        self.noise = self.level.map_or(level, |_| level.min(self.noise * rise));
        self.level = Some(level);
        self.voice = frame.left.max(self.voice * VOICE_FALL);
        if bounds.noisy_db.is_infinite() {
            return 1.0;
        }
        let over_noise_db = 10.0 * (self.voice.max(SILENCE) / self.noise).log10();
        let of_line = (bounds.clean_db - over_noise_db) / (bounds.clean_db - bounds.noisy_db);
        let allowed = NOISE_SPREAD * self.noise + DAMAGE * frame.left;
        let of_frame = (allowed / frame.taken.max(SILENCE)).sqrt();
        of_line.clamp(0.0, 1.0) * of_frame.clamp(SHARE_MIN, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { clean_db: 35.0, noisy_db: 25.0 };

    /// Half a second of noise at this power, then one frame.
    fn after_noise(noise: f32, frame: Powers) -> f32 {
        let mut control = Control::default();
        for _ in 0..30 {
            control.share(BOUNDS, Powers { heard: noise, left: 0.01 * noise, taken: noise });
        }
        control.share(BOUNDS, frame)
    }

    #[test]
    fn a_voice_far_above_the_noise_is_left_alone() {
        assert_eq!(after_noise(0.01, Powers { heard: 100.0, left: 90.0, taken: 10.0 }), 0.0);
    }

    #[test]
    fn silence_before_a_noisy_line_is_forgotten() {
        let mut control = Control::default();
        let quiet = Powers { heard: 0.0, left: 0.0, taken: 0.0 };
        let voice = Powers { heard: 100.0, left: 90.0, taken: 2.0 };
        let noise = Powers { heard: 2.0, left: 0.02, taken: 2.0 };
        for (frame, count) in [(quiet, 60), (noise, 400), (voice, 1), (noise, 6)] {
            for _ in 0..count {
                control.share(BOUNDS, frame);
            }
        }
        assert_eq!(control.share(BOUNDS, noise), 1.0);
    }

    #[test]
    fn the_noise_of_the_pauses_is_taken_away_wholly() {
        assert_eq!(after_noise(1.0, Powers { heard: 1.2, left: 0.01, taken: 1.2 }), 1.0);
    }

    #[test]
    fn what_goes_beyond_the_noise_comes_back_in_part() {
        assert_eq!(after_noise(1.0, Powers { heard: 100.0, left: 0.1, taken: 100.0 }), SHARE_MIN);
    }
}
