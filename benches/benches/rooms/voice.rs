//! What is said: lines of the offline voice, or recordings from a folder.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use voiced_core::codec::opus::{ENCODED_LEN, OpusEncoder};
use voiced_core::packet::{Codec, PACKET_BYTES_MAX, Packet};
use voiced_core::resample::Resampler;
use voiced_lab::phone::Line;
use voiced_models_local::tts::Piper;
use voiced_models_local::weights::{ONNX_RUNTIME, PIPER_VOICE, Weights};

/// Lines of a caller, of a second to four each.
const LINES: [&str; 8] = [
    "Hi, I am calling about the sink in my kitchen.",
    "It has been leaking since yesterday evening.",
    "I put a bucket under it, but that is full every two hours.",
    "It is twelve Oak Street, on the second floor.",
    "Tomorrow morning would be fine.",
    "No, nobody else lives here.",
    "You can reach me under this number all day.",
    "Could you tell me what it will cost?",
];

/// What callers say, at the rate at which it was recorded.
pub struct Voice(Vec<(String, u32, Vec<i16>)>);

impl Voice {
    /// The recordings of a folder, or the offline voice.
    pub fn of(folder: Option<&Path>) -> Result<Self> {
        folder.map_or_else(spoken, read).map(Self)
    }

    /// The lines at 8 kHz, as a dialogue has them.
    pub fn lines(&self) -> Vec<Line> {
        self.0.iter().map(|(name, rate, sound)| (name.clone(), at_rate(sound, *rate, 8_000))).collect()
    }

    /// All lines one after another, at this rate.
    pub fn speech(&self, hz: u32) -> Vec<i16> {
        self.0.iter().flat_map(|(_, rate, sound)| at_rate(sound, *rate, hz)).collect()
    }
}

/// Sound at 48 kHz in packets of 20 ms.
pub fn packets(at_48k: &[i16]) -> Result<Vec<Packet>> {
    let mut encoder = OpusEncoder::new()?;
    let packet = |(number, sound): (usize, &[i16])| {
        let mut bytes = [0; PACKET_BYTES_MAX];
        let len = encoder.encode(sound, &mut bytes);
        Packet::new(Codec::Opus, number as u32, number as u32 * 20, &bytes[..len]).context("an encoder's packet fits")
    };
    at_48k.chunks_exact(ENCODED_LEN).enumerate().map(packet).collect()
}

fn spoken() -> Result<Vec<(String, u32, Vec<i16>)>> {
    let weights = Weights::at(Weights::default_dir());
    let mut voice = Piper::load(&weights.path(ONNX_RUNTIME)?, &weights.path(PIPER_VOICE)?, &weights.path(&format!("{PIPER_VOICE}.json"))?)?;
    let say = |line: &&str| {
        let mut sound = Vec::new();
        let rate = voice.synthesize(line, &mut sound)?;
        Ok(((*line).to_owned(), rate, sound))
    };
    LINES.iter().map(say).collect()
}

/// Every WAV file of a folder (mono, 16-bit, any rate), by name.
fn read(folder: &Path) -> Result<Vec<(String, u32, Vec<i16>)>> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wav") {
            let mut file = hound::WavReader::open(&path).with_context(|| path.display().to_string())?;
            let format = file.spec();
            ensure!(format.channels == 1 && format.bits_per_sample == 16, "{} is not mono 16-bit", path.display());
            let sound = file.samples::<i16>().collect::<Result<_, _>>()?;
            lines.push((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), format.sample_rate, sound));
        }
    }
    ensure!(!lines.is_empty(), "no .wav files in {}", folder.display());
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(lines)
}

fn at_rate(sound: &[i16], from_hz: u32, to_hz: u32) -> Vec<i16> {
    let (mut resampler, mut out) = (Resampler::new(from_hz, to_hz), Vec::new());
    resampler.process_i16(sound, &mut out);
    resampler.finish_i16(&mut out);
    out
}
