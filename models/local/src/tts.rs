//! Text to speech without a network: a Piper voice (VITS) on ONNX Runtime.
//!
//! Text is cut into clauses where a reader would breathe (`clauses`), each clause becomes IPA through the
//! `espeak-ng` program (`espeak`), a sentence's IPA with its punctuation becomes the ids that the voice was trained
//! on (`phoneme_ids`), and one inference makes its sound. The voice pads its sound with silence, which on a call is
//! only delay, so the edges are trimmed and faded (`trim`).

mod clauses;
mod espeak;
mod phoneme_ids;
mod trim;

use std::fs;
use std::path::{Path, PathBuf};

use ort::session::Session;
use ort::value::TensorRef;
use serde::Deserialize;

use crate::onnx::{OnnxError, open_session};
use clauses::sentences;
pub use espeak::EspeakError;
use espeak::clause_phonemes;
use phoneme_ids::PhonemeIds;

/// Why a voice cannot be loaded or a text not be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TtsError {
    /// The voice's settings cannot be read.
    #[error("cannot read the voice's settings {path}: {reason}")]
    Settings {
        /// The JSON file beside the model.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// ONNX Runtime or the voice's model failed.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// The phonemes could not be had.
    #[error(transparent)]
    Phonemes(#[from] EspeakError),
}

/// A Piper voice; one per thread that speaks.
pub struct Piper {
    session: Session,
    ids: PhonemeIds,
    espeak_voice: String,
    rate_hz: u32,
    /// Noise of the sound, length of the phonemes, noise of their lengths.
    scales: [f32; 3],
}

/// Noise that the voice mixes into its sound and rhythm: none. With it every run sounds a little different, now and then
/// with a swallowed word; without it a text always has the same sound, just as lively (the pitch moves as far).
const NOISE: f32 = 0.0;

impl Piper {
    /// Loads a voice from its model and its JSON settings. Fails early when `espeak-ng` is not installed.
    pub fn load(onnx_library: &Path, model: &Path, settings: &Path) -> Result<Self, TtsError> {
        let voice = VoiceSettings::read(settings).map_err(|reason| TtsError::Settings { path: settings.to_path_buf(), reason })?;
        let ids = PhonemeIds::new(voice.phoneme_id_map).map_err(|reason| TtsError::Settings { path: settings.to_path_buf(), reason: reason.to_owned() })?;
        clause_phonemes(&voice.espeak.voice, &["ready"])?;
        Ok(Self {
            session: open_session(onnx_library, model)?,
            ids,
            espeak_voice: voice.espeak.voice,
            rate_hz: voice.audio.sample_rate,
            scales: [NOISE, voice.inference.length_scale, NOISE],
        })
    }

    /// Samples per second of the voice.
    pub fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    /// Replaces `out` by the sound of `text`, mono, and returns its rate; the same text gives the same sound. Text without a word gives no sound; text
    /// beyond 2000 characters is not spoken. Blocks for about a twentieth of the sound's length.
    pub fn synthesize(&mut self, text: &str, out: &mut Vec<i16>) -> Result<u32, TtsError> {
        out.clear();
        let sentences = sentences(text);
        let words: Vec<&str> = sentences.iter().flatten().map(|clause| clause.text.as_str()).collect();
        if words.is_empty() {
            return Ok(self.rate_hz);
        }
        let mut phonemes = clause_phonemes(&self.espeak_voice, &words)?.into_iter();
        let mut sound = Vec::new();
        for sentence in &sentences {
            let clauses = sentence.iter().zip(&mut phonemes).map(|(clause, ipa)| (ipa, clause.end));
            for ids in self.ids.of_sentence(clauses) {
                self.speak(&ids, &mut sound).map_err(OnnxError::Run)?;
            }
        }
        trim::to_voice(&mut sound, self.rate_hz);
        out.extend(sound.iter().map(|&sample| (sample.clamp(-1.0, 1.0) * f32::from(i16::MAX)) as i16));
        Ok(self.rate_hz)
    }

    fn speak(&mut self, ids: &[i64], sound: &mut Vec<f32>) -> ort::Result<()> {
        let length = [ids.len() as i64];
        let outputs = self.session.run(ort::inputs![
            "input" => TensorRef::from_array_view(([1, ids.len()], ids))?,
            "input_lengths" => TensorRef::from_array_view(([1], &length[..]))?,
            "scales" => TensorRef::from_array_view(([3], &self.scales[..]))?,
        ])?;
        let (_, samples) = outputs[0].try_extract_tensor::<f32>()?;
        sound.extend_from_slice(samples);
        Ok(())
    }
}

/// What Piper writes beside a voice, as far as it is needed here.
#[derive(Deserialize)]
struct VoiceSettings {
    audio: Audio,
    espeak: Espeak,
    inference: Inference,
    phoneme_id_map: phoneme_ids::IdMap,
}

#[derive(Deserialize)]
struct Audio {
    sample_rate: u32,
}

#[derive(Deserialize)]
struct Espeak {
    voice: String,
}

#[derive(Deserialize)]
struct Inference {
    length_scale: f32,
}

impl VoiceSettings {
    fn read(path: &Path) -> Result<Self, String> {
        let json = fs::read_to_string(path).map_err(|error| error.to_string())?;
        serde_json::from_str(&json).map_err(|error| error.to_string())
    }
}
