//! Callers, and the noises behind them.

use std::path::{Path, PathBuf};

/// Recordings taken as callers, and those taken for the babble.
const CALLERS: usize = 5;
const BABBLERS: usize = 6;
/// Of each recording, 6 s: the whole table is a matter of minutes.
const CLIP_SAMPLES: usize = 6 * 16_000;
/// Quiet at a clip's ends, so that each has a pause, 0.5 s.
const PAUSE_SAMPLES: usize = 8_000;

/// Who is heard.
pub struct Cast {
    /// Each between two pauses.
    pub callers: Vec<Vec<f32>>,
    /// The sum of some others.
    pub babble: Vec<f32>,
}

pub fn cast(folder: &Path) -> Result<Cast, Box<dyn std::error::Error>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "wav"));
    paths.sort();
    if paths.len() < CALLERS + BABBLERS {
        return Err(format!("{} recordings, and {} are needed", paths.len(), CALLERS + BABBLERS).into());
    }
    let mut clips = Vec::new();
    for path in &paths[..CALLERS + BABBLERS] {
        clips.push(clip(path)?);
    }
    let mut babble = vec![0.0; CLIP_SAMPLES + 2 * PAUSE_SAMPLES];
    for clip in clips.split_off(CALLERS) {
        for (sum, sample) in babble.iter_mut().zip(clip.iter().cycle()) {
            *sum += sample;
        }
    }
    let callers = clips.into_iter().map(|clip| {
        let pause = || std::iter::repeat_n(0.0, PAUSE_SAMPLES);
        pause().chain(clip).chain(pause()).collect()
    });
    Ok(Cast { callers: callers.collect(), babble })
}

fn clip(path: &Path) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
    let mut wav = hound::WavReader::open(path)?;
    if wav.spec().sample_rate != 16_000 || wav.spec().channels != 1 {
        return Err(format!("{} is not mono at 16 kHz", path.display()).into());
    }
    let samples: Result<Vec<i16>, _> = wav.samples::<i16>().take(CLIP_SAMPLES).collect();
    Ok(samples?.into_iter().map(|sample| f32::from(sample) / 32_768.0).collect())
}

/// What is behind a caller.
#[derive(Clone, Copy)]
pub enum Noise {
    White,
    Babble,
    Hum,
    Street,
}

impl Noise {
    pub const ALL: [Self; 4] = [Self::White, Self::Babble, Self::Hum, Self::Street];

    pub fn name(self) -> &'static str {
        match self {
            Self::White => "white",
            Self::Babble => "babble",
            Self::Hum => "hum",
            Self::Street => "street",
        }
    }

    /// The caller with this noise so many dB below.
    pub fn behind(self, caller: &[f32], babble: &[f32], level_db: f32) -> Vec<f32> {
        let noise = self.samples(caller.len(), babble);
        let power = |sound: &[f32]| sound.iter().map(|sample| sample * sample).sum::<f32>();
        let gain = (power(caller) / power(&noise)).sqrt() * 10f32.powf(-level_db / 20.0);
        caller.iter().zip(noise).map(|(voice, noise)| voice + gain * noise).collect()
    }

    fn samples(self, len: usize, babble: &[f32]) -> Vec<f32> {
        let mut seed = 7u32;
        let mut white = move || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / 8_388_608.0 - 1.0
        };
        let seconds = |n: usize| n as f32 / 16_000.0;
        match self {
            Self::White => (0..len).map(|_| white()).collect(),
            Self::Babble => babble.iter().copied().cycle().take(len).collect(),
            Self::Hum => (0..len).map(|n| (1..12).map(|of| (std::f32::consts::TAU * 50.0 * of as f32 * seconds(n)).sin() / of as f32).sum()).collect(),
            // low rumble, and cars that come by every two seconds
            Self::Street => {
                let (mut rumble, mut hiss) = (0.0, 0.0);
                let pass = |n: usize| (-((seconds(n) % 2.0 - 1.0) * 3.0).powi(2)).exp();
                let sample = |n: usize| {
                    let fresh = white();
                    rumble += 0.02 * (fresh - rumble);
                    hiss += 0.3 * (fresh - hiss);
                    rumble * (1.0 + 2.0 * pass(n)) + 0.25 * hiss * pass(n)
                };
                (0..len).map(sample).collect()
            }
        }
    }
}
