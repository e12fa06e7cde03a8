//! Sound for moments without any: first the last pitch period again and again, fading out within [`FADE_MS`], under it
//! the line's own noise, so that neither listener nor model hears a hole. When real sound returns it is faded in over
//! [`RETURN_MS`].

use crate::frame::{Rate, energy};

/// How long a repeated voice lasts; longer sounds like a machine and misleads voice activity.
const FADE_MS: usize = 40;
/// Fade from made-up to real sound: long enough not to click.
const RETURN_MS: usize = 4;
/// Longest pitch period looked for, a voice of 67 Hz.
const PERIOD_MS_MAX: usize = 15;
/// Shortest one, 400 Hz.
const PERIOD_MS_MIN_X2: usize = 5;
/// Sound compared to find the period.
const MATCH_MS: usize = 8;
/// Sound remembered: the longest period and what it is compared with.
const HISTORY_MS: usize = PERIOD_MS_MAX + MATCH_MS + 1;
const HISTORY_LEN_MAX: usize = HISTORY_MS * Rate::Hz16000.hz() as usize / 1_000;

/// Noise at or below this counts as quiet on any line, -54 dB of full scale.
const QUIET_RMS: f32 = 0.002;
/// A frame this many times above the noise floor is not quiet.
const QUIET_ABOVE_FLOOR: f32 = 2.5;
/// Loudest comfort noise, -46 dB: a loud room must not be imitated.
const FLOOR_RMS_MAX: f32 = 0.005;

/// The concealment of one leg.
pub struct Conceal {
    per_ms: usize,
    /// The latest sound, a ring of [`HISTORY_MS`]; the oldest is at `oldest`.
    history: [f32; HISTORY_LEN_MAX],
    oldest: usize,
    state: State,
    noise_rms: f32,
    seed: u32,
}

#[derive(Clone, Copy)]
enum State {
    /// Real sound, faded in over what is left of the return, in samples.
    Real { fade_left: usize },
    /// Made-up sound: the period, in samples, and how much was made up so far.
    MadeUp { period: usize, done: usize },
}

impl Conceal {
    /// A line without history; 16 kHz at most.
    pub fn new(rate: Rate) -> Self {
        Self { per_ms: rate.hz() as usize / 1_000, history: [0.0; HISTORY_LEN_MAX], oldest: 0, state: State::Real { fade_left: 0 }, noise_rms: 0.0, seed: 1 }
    }

    /// Forgets the line.
    pub fn reset(&mut self) {
        self.history.fill(0.0);
        self.oldest = 0;
        self.state = State::Real { fade_left: 0 };
        (self.noise_rms, self.seed) = (0.0, 1);
    }

    /// Takes real sound in, fading it in after made-up sound.
    pub fn learn(&mut self, sound: &mut [f32]) {
        if let State::MadeUp { .. } = self.state {
            self.state = State::Real { fade_left: RETURN_MS * self.per_ms };
        }
        let fade = RETURN_MS * self.per_ms;
        for sample in sound.iter_mut() {
            let State::Real { fade_left } = &mut self.state else { break };
            if *fade_left == 0 {
                break;
            }
            *sample *= 1.0 - *fade_left as f32 / fade as f32;
            *fade_left -= 1;
        }
        self.remember(sound);
    }

    /// Makes sound up.
    pub fn make_up(&mut self, sound: &mut [f32]) {
        let (period, done) = match self.state {
            State::MadeUp { period, done } => (period, done),
            State::Real { .. } => (self.period(), 0),
        };
        let fade = (FADE_MS * self.per_ms) as f32;
        for (index, sample) in sound.iter_mut().enumerate() {
            let voice = self.at(period - 1 - (done + index) % period);
            let weight = (1.0 - (done + index) as f32 / fade).max(0.0);
            *sample = voice * weight + self.noise() * (1.0 - weight);
        }
        // the history stays as it is while sound is made up: it holds the period that is repeated
        self.state = State::MadeUp { period, done: (done + sound.len()).min(usize::MAX / 2) };
    }

    /// Follows the noise floor with a whole frame of real sound: down at once, up slowly (6 dB in 1.5 s).
    pub fn follow_noise(&mut self, frame: &[f32]) {
        let rms = rms(frame);
        let risen = self.noise_rms * 1.005 + 1e-6;
        self.noise_rms = if rms < risen { self.noise_rms + (rms - self.noise_rms) * 0.2 } else { risen };
    }

    /// No speech in this frame: near the noise floor.
    pub fn is_quiet(&self, frame: &[f32]) -> bool {
        rms(frame) <= QUIET_RMS.max(self.noise_rms * QUIET_ABOVE_FLOOR)
    }

    fn remember(&mut self, sound: &[f32]) {
        let len = self.len();
        let new = &sound[sound.len().saturating_sub(len)..];
        let (first, rest) = new.split_at(new.len().min(len - self.oldest));
        self.history[self.oldest..][..first.len()].copy_from_slice(first);
        self.history[..rest.len()].copy_from_slice(rest);
        self.oldest = (self.oldest + new.len()) % len;
    }

    fn len(&self) -> usize {
        HISTORY_MS * self.per_ms
    }

    /// The sample so many before the newest.
    fn at(&self, age: usize) -> f32 {
        let from_oldest = self.oldest + self.len() - 1 - age;
        self.history[if from_oldest < self.len() { from_oldest } else { from_oldest - self.len() }]
    }

    /// The lag at which the latest sound resembles itself most, compared at 8 kHz, which is enough for a voice.
    fn period(&self) -> usize {
        let stride = self.per_ms / 8;
        let mut best = (PERIOD_MS_MAX * self.per_ms, f32::MIN);
        for lag in (PERIOD_MS_MIN_X2 * self.per_ms / 2..=PERIOD_MS_MAX * self.per_ms).step_by(stride) {
            let (mut alike, mut energy) = (0.0, 1e-6);
            for age in (0..MATCH_MS * self.per_ms).step_by(stride) {
                alike += self.at(age) * self.at(age + lag);
                energy += self.at(age + lag) * self.at(age + lag);
            }
            let score = alike / f32::sqrt(energy);
            if score > best.1 {
                best = (lag, score);
            }
        }
        best.0
    }

    /// One sample of comfort noise.
    fn noise(&mut self) -> f32 {
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let uniform = (self.seed >> 8) as f32 / (1 << 23) as f32 - 1.0;
        // a uniform value in ±1 has an RMS of 1/√3
        uniform * 1.732 * self.noise_rms.min(FLOOR_RMS_MAX)
    }
}

fn rms(sound: &[f32]) -> f32 {
    (energy(sound) / sound.len().max(1) as f32).sqrt()
}
