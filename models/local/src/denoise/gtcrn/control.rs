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
/// How fast the voice is taken to fade, as a factor a frame: 1 dB a second.
const VOICE_FALL: f32 = 0.996_3;
/// How far single frames of a steady noise lie above its mean: what may be taken away of it.
const NOISE_SPREAD: f32 = 2.0;
/// What may be taken away beyond, of what is left: -12 dB.
const DAMAGE: f32 = 0.063;
/// The least share of the mask in a frame, whatever it takes away: -12 dB remain.
const SHARE_MIN: f32 = 0.75;
/// Power under which there is nothing, so that no level is minus infinity: -100 dB of full scale.
const SILENCE: f32 = 1e-8;

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
        let level = self.level.map_or(frame.heard, |level| SMOOTHING * level + (1.0 - SMOOTHING) * frame.heard);
        self.noise = if self.level.is_none() { level } else { level.min(self.noise * NOISE_RISE) };
        self.level = Some(level);
        self.voice = frame.left.max(self.voice * VOICE_FALL);
        if bounds.noisy_db.is_infinite() {
            return 1.0;
        }
        let over_noise_db = 10.0 * ((self.voice + SILENCE) / (self.noise + SILENCE)).log10();
        let of_line = (bounds.clean_db - over_noise_db) / (bounds.clean_db - bounds.noisy_db);
        let allowed = NOISE_SPREAD * self.noise + DAMAGE * frame.left;
        let of_frame = (allowed / (frame.taken + SILENCE)).sqrt();
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
        assert_eq!(after_noise(1e-3, Powers { heard: 10.0, left: 9.0, taken: 1.0 }), 0.0);
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
