//! The lines that carry a voice, for the tables of `models/README.md`.

use std::fmt;

use voiced_core::codec::{mulaw_decode, mulaw_encode, sample_from_f32};
use voiced_core::resample::Resampler;

/// The line.
#[derive(Clone, Copy)]
pub enum Band {
    Wide,
    Telephone,
}

impl Band {
    /// What arrives of a sound: over the telephone 8 kHz in mu-law.
    pub fn carry(self, sound: &[f32]) -> Vec<f32> {
        match self {
            Self::Wide => sound.to_vec(),
            Self::Telephone => {
                let narrow: Vec<i16> = converted(sound, 16_000, 8_000).into_iter().map(sample_from_f32).collect();
                let mut bytes = vec![0; narrow.len()];
                mulaw_encode(&narrow, &mut bytes);
                let mut heard = vec![0.0; bytes.len()];
                mulaw_decode(&bytes, &mut heard);
                let mut wide = converted(&heard, 8_000, 16_000);
                wide.resize(sound.len(), 0.0);
                wide
            }
        }
    }
}

impl fmt::Display for Band {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wide => "wide",
            Self::Telephone => "telephone",
        })
    }
}

/// At another rate.
pub fn converted(sound: &[f32], from_hz: u32, to_hz: u32) -> Vec<f32> {
    let mut resampler = Resampler::new(from_hz, to_hz);
    let mut output = vec![0.0; resampler.output_len_max(sound.len())];
    let len = resampler.process(sound, &mut output);
    output.truncate(len);
    output
}
