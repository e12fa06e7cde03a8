//! One frame type for every caller: 10 ms of mono sound at the rate it says.

/// The rates at which sound enters or leaves the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rate {
    /// Telephone: Twilio mu-law.
    Hz8000,
    /// What the models hear.
    Hz16000,
    /// What most TTS providers speak.
    Hz24000,
    /// WebRTC rooms: Opus.
    Hz48000,
}

impl Rate {
    /// Samples per second.
    pub const fn hz(self) -> u32 {
        match self {
            Self::Hz8000 => 8_000,
            Self::Hz16000 => 16_000,
            Self::Hz24000 => 24_000,
            Self::Hz48000 => 48_000,
        }
    }

    /// Samples in one 10 ms frame.
    pub const fn frame_len(self) -> usize {
        self.hz() as usize / 100
    }
}

/// Samples in the longest frame, 10 ms at 48 kHz.
pub const FRAME_LEN_MAX: usize = Rate::Hz48000.frame_len();

/// Samples in a frame at 16 kHz, the rate at which models hear.
pub const HEARD_LEN: usize = Rate::Hz16000.frame_len();

/// Energy of a sound: the sum of its squares. Summed sixteen by sixteen: one after the other each addition waits for the last.
pub fn energy(sound: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let (whole, rest) = sound.as_chunks::<16>();
    for samples in whole {
        for (sum, sample) in sums.iter_mut().zip(samples) {
            *sum += sample * sample;
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|sample| sample * sample).sum::<f32>()
}

/// What the models hear: 10 ms of mono f32 at 16 kHz, full scale ±1.
pub type HeardFrame = [f32; HEARD_LEN];

/// 10 ms of mono f32 sound, full scale ±1, at `rate`.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Rate of the samples.
    pub rate: Rate,
    buffer: [f32; FRAME_LEN_MAX],
}

impl Frame {
    /// Silence at `rate`.
    pub const fn silence(rate: Rate) -> Self {
        Self { rate, buffer: [0.0; FRAME_LEN_MAX] }
    }

    /// The frame's samples, `rate.frame_len()` of them.
    pub fn samples(&self) -> &[f32] {
        &self.buffer[..self.rate.frame_len()]
    }

    /// The frame's samples, to be written.
    pub fn samples_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[..self.rate.frame_len()]
    }
}
