//! Offline speech to text: Whisper tiny.en, in f32 and int8 on one core, without a foreign runtime.
//!
//! An utterance (at most 28 s at 16 kHz) becomes a log-mel picture of 80 bands every 10 ms, two convolutions halve its
//! rate, four layers of self-attention turn it into one vector every 20 ms, and a decoder of four layers then writes the
//! text token by token, each time taking the likeliest.
//!
//! Whisper was trained on windows of exactly 30 s, and the field pads to that. The cost of the encoder grows with the
//! window, so a caller's four seconds would pay for thirty. We pad by [`PADDING_SAMPLES`] only. That shortened window
//! now and then makes the decoder repeat itself, hence a limit of tokens by duration and a stop on repetition.
//!
//! Whisper also likes to write "Thank you." over silence. Three guards: sound below `QUIET_RMS` is never decoded; the
//! probability that the model itself gives to "no speech"; and how sure it was of the words that it wrote.

mod ct2;
mod decoder;
mod encoder;
mod greedy;
mod layers;
mod mel;
mod vocabulary;

use std::io;
use std::path::Path;
use std::sync::Arc;

use ct2::Tensors;
use decoder::{Decoder, DecoderState};
use encoder::{Encoder, EncoderBuffers};
use greedy::{Outcome, Search};
use mel::LogMel;
use vocabulary::Vocabulary;

/// Samples a second of what [`Whisper::transcribe`] takes.
pub const SAMPLE_RATE: usize = 16_000;
/// The window that the model was trained on, 30 s.
const WINDOW_SAMPLES: usize = 30 * SAMPLE_RATE;
/// Samples of one utterance that are looked at, 28 s: the model finds the end of text by some silence. What follows is not
/// heard.
pub const UTTERANCE_SAMPLES_MAX: usize = 28 * SAMPLE_RATE;
/// Silence after the utterance, 5 s, less where the window ends. After 2 s the decoder repeats every third short utterance
/// until it is stopped, after 5 s every tenth, and more silence costs more time. The numbers are in `models/README.md`.
pub const PADDING_SAMPLES: usize = 5 * SAMPLE_RATE;
/// Loudness of the loudest 30 ms under which an utterance is silence, -54 dB of full scale: below any voice on a phone line.
const QUIET_RMS: f32 = 0.002;
/// Samples in one piece of the loudness measure, 30 ms.
const LOUDNESS_SAMPLES: usize = 480;

/// Whisper's weights, shared by all who transcribe. Cloning shares.
#[derive(Clone)]
pub struct Whisper {
    model: Arc<Model>,
}

struct Model {
    encoder: Encoder,
    decoder: Decoder,
    search: Search,
    vocabulary: Vocabulary,
}

/// The working memory of one transcription at a time; grows to the longest utterance seen. One for each thread.
#[derive(Default)]
pub struct Scratch {
    mel: LogMel,
    features: Vec<f32>,
    encoder: EncoderBuffers,
    decoder: DecoderState,
}

/// Why the weights did not load.
#[derive(Debug, thiserror::Error)]
pub enum SttError {
    /// A file is missing or unreadable.
    #[error("cannot read {file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what its name promises.
    #[error("{file} is not usable: {reason}")]
    Malformed {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Whisper {
    /// Loads `model.bin`, `vocabulary.txt` and `config.json` (a `CTranslate2` model of an English Whisper) from `dir`.
    pub fn load(dir: &Path) -> Result<Self, SttError> {
        let tensors = Tensors::parse(read(dir, "model.bin")?).map_err(|reason| malformed("model.bin", reason))?;
        let vocabulary = Vocabulary::parse(&read(dir, "vocabulary.txt")?).map_err(|reason| malformed("vocabulary.txt", reason))?;
        let search = Search::parse(&read(dir, "config.json")?, &vocabulary).map_err(|reason| malformed("config.json", reason))?;
        let encoder = Encoder::build(&tensors).map_err(|reason| malformed("model.bin", reason))?;
        let decoder = Decoder::build(&tensors).map_err(|reason| malformed("model.bin", reason))?;
        if decoder.tokens() < vocabulary.len() {
            return Err(malformed("vocabulary.txt", "more tokens than the model knows".into()));
        }
        Ok(Self { model: Arc::new(Model { encoder, decoder, search, vocabulary }) })
    }

    /// The words of one utterance: mono at [`SAMPLE_RATE`], in -1..=1, at most [`UTTERANCE_SAMPLES_MAX`] samples.
    /// Empty when nobody spoke.
    pub fn transcribe(&self, samples: &[f32], scratch: &mut Scratch) -> String {
        self.decode(samples, scratch).map_or_else(String::new, |outcome| {
            tracing::debug!(no_speech = outcome.no_speech, confidence = outcome.mean_log_probability, tokens = outcome.tokens.len(), "transcribed");
            if outcome.is_speech() { self.model.vocabulary.text(&outcome.tokens) } else { String::new() }
        })
    }

    fn decode(&self, samples: &[f32], scratch: &mut Scratch) -> Option<Outcome> {
        let samples = &samples[..samples.len().min(UTTERANCE_SAMPLES_MAX)];
        if is_quiet(samples) {
            return None;
        }
        let model = &*self.model;
        scratch.mel.run(samples, PADDING_SAMPLES.min(WINDOW_SAMPLES - samples.len()), &mut scratch.features);
        let heard = model.encoder.run(&scratch.features, &mut scratch.encoder);
        model.decoder.listen(heard, &mut scratch.decoder);
        let seconds = samples.len() as f32 / SAMPLE_RATE as f32;
        Some(model.search.run(&model.decoder, &mut scratch.decoder, seconds))
    }
}

fn is_quiet(samples: &[f32]) -> bool {
    let power = |piece: &[f32]| piece.iter().map(|sample| sample * sample).sum::<f32>() / piece.len() as f32;
    // a NaN in the input makes no piece loud, and so is silence
    !samples.chunks(LOUDNESS_SAMPLES).any(|piece| power(piece) >= QUIET_RMS * QUIET_RMS)
}

fn read(dir: &Path, name: &str) -> Result<Vec<u8>, SttError> {
    let path = dir.join(name);
    std::fs::read(&path).map_err(|source| SttError::Read { file: path.display().to_string(), source })
}

fn malformed(file: &str, reason: String) -> SttError {
    SttError::Malformed { file: file.to_owned(), reason }
}
