//! What is measured of a cleaned sound.

use std::f32::consts::PI;

use realfft::RealFftPlanner;
use voiced_core::model::{TurnFeatures, TurnJudge, TurnQuery, VAD_WINDOW, VoiceActivity};
use voiced_models_local::end_of_turn::{SmartTurn, SmartTurnFeatures};
use voiced_models_local::stt::{Scratch, Whisper};
use voiced_models_local::vad::Silero;
use voiced_models_local::weights::{SILERO_VAD, SMART_TURN, WHISPER, Weights};

/// Sums over callers.
#[derive(Default)]
pub struct Measures {
    pub intelligibility: f32,
    pub pauses_db: f32,
    pub vad_wrong: f32,
    pub turn_change: f32,
    pub word_errors: usize,
    pub words: usize,
}

impl Measures {
    /// Means, as the table shows them.
    pub fn cells(&self, callers: usize) -> [String; 5] {
        let mean = |sum: f32| sum / callers as f32;
        [
            format!("{:.3}", mean(self.intelligibility)),
            format!("{:.0}", mean(self.pauses_db)),
            format!("{:.1}", 100.0 * mean(self.vad_wrong)),
            format!("{:.2}", mean(self.turn_change)),
            format!("{:.0}", 100.0 * self.word_errors as f32 / self.words.max(1) as f32),
        ]
    }
}

/// The models that hear.
pub struct Hearing {
    vad: Silero,
    features: SmartTurnFeatures,
    judge: SmartTurn,
    whisper: Whisper,
    scratch: Scratch,
}

/// What they heard.
pub struct Heard {
    speech: Vec<bool>,
    pub turn_over: f32,
    pub words: Vec<String>,
}

impl Hearing {
    pub fn load(weights: &Weights) -> Result<Self, Box<dyn std::error::Error>> {
        let whisper = weights.path(WHISPER)?;
        Ok(Self {
            vad: Silero::load(&weights.path(SILERO_VAD)?, 1)?,
            features: SmartTurnFeatures::new(1),
            judge: SmartTurn::load(&weights.path(SMART_TURN)?)?,
            whisper: Whisper::load(whisper.parent().ok_or("the weights lie in a folder")?)?,
            scratch: Scratch::default(),
        })
    }

    pub fn hear(&mut self, sound: &[f32]) -> Heard {
        self.vad.reset(0);
        self.features.reset(0);
        let mut probability = [0.0];
        let windows = sound.as_chunks::<VAD_WINDOW>().0.iter();
        let speech = windows.map(|window| {
            self.vad.run(&[0], &[*window], &mut probability);
            probability[0] > 0.5
        });
        let speech = speech.collect();
        for frame in sound.as_chunks().0 {
            self.features.push(0, frame);
        }
        let mut query = TurnQuery::default();
        self.features.query(0, 0, &mut query);
        let text = self.whisper.transcribe(sound, &mut self.scratch).to_lowercase();
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|word| !word.is_empty());
        Heard { speech, turn_over: self.judge.judge(&query), words: words.map(str::to_owned).collect() }
    }
}

impl Heard {
    /// Share of windows.
    pub fn vad_differs_from(&self, truth: &Self) -> f32 {
        let wrong = self.speech.iter().zip(&truth.speech).filter(|(found, truth)| found != truth).count();
        wrong as f32 / truth.speech.len().max(1) as f32
    }
}

/// Words to change, add or leave out.
pub fn word_errors(said: &[String], heard: &[String]) -> usize {
    let mut row: Vec<usize> = (0..=heard.len()).collect();
    for (count, word) in said.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], count + 1);
        for (at, other) in heard.iter().enumerate() {
            let best = (diagonal + usize::from(word != other)).min(row[at] + 1).min(row[at + 1] + 1);
            diagonal = std::mem::replace(&mut row[at + 1], best);
        }
    }
    row[heard.len()]
}

/// Level of a sound in the pauses of the clean one: where that is more than 35 dB below its loudest 20 ms.
pub fn pause_level_db(clean: &[f32], sound: &[f32]) -> f32 {
    let power = |piece: &[f32]| piece.iter().map(|sample| sample * sample).sum::<f32>() / piece.len() as f32;
    let loudest = clean.chunks(320).map(power).fold(0.0, f32::max);
    let pauses = clean.chunks(320).zip(sound.chunks(320)).filter(|(clean, _)| power(clean) < loudest * 3e-4);
    let powers: Vec<f32> = pauses.map(|(_, sound)| power(sound)).collect();
    10.0 * (powers.iter().sum::<f32>() / powers.len().max(1) as f32 + 1e-10).log10()
}

/// Third-octave bands from 150 Hz.
const BANDS: usize = 15;
/// Frames of 16 ms over which envelopes are compared, 384 ms.
const SEGMENT: usize = 24;

/// Short-time correlation of band envelopes with the clean sound, 1 when nothing is lost: after STOI (Taal and others
/// 2011), in frames of 32 ms.
pub fn intelligibility(clean: &[f32], sound: &[f32]) -> f32 {
    let (clean, sound) = (envelopes(clean), envelopes(sound));
    let energy: Vec<f32> = clean.iter().map(|bands| bands.iter().map(|value| value * value).sum()).collect();
    let floor = energy.iter().copied().fold(0.0, f32::max) * 1e-4;
    let spoken: Vec<usize> = (0..clean.len()).filter(|frame| energy[*frame] > floor).collect();
    let (mut sum, mut count) = (0.0, 0);
    for segment in spoken.windows(SEGMENT) {
        for band in 0..BANDS {
            let of = |envelopes: &[[f32; BANDS]]| -> Vec<f32> { segment.iter().map(|frame| envelopes[*frame][band]).collect() };
            sum += correlation(&of(&clean), &of(&sound));
            count += 1;
        }
    }
    sum / count.max(1) as f32
}

/// Of the clean envelope with the other at its level, no further above it than 15 dB under its own.
fn correlation(clean: &[f32], sound: &[f32]) -> f32 {
    let norm = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
    let gain = norm(clean) / (norm(sound) + 1e-12);
    let limit = 1.0 + 10f32.powf(15.0 / 20.0);
    let bounded: Vec<f32> = sound.iter().zip(clean).map(|(sound, clean)| (gain * sound).min(limit * clean)).collect();
    let centred = |values: &[f32]| -> Vec<f32> {
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        values.iter().map(|value| value - mean).collect()
    };
    let (clean, bounded) = (centred(clean), centred(&bounded));
    clean.iter().zip(&bounded).map(|(a, b)| a * b).sum::<f32>() / (norm(&clean) * norm(&bounded) + 1e-12)
}

fn envelopes(sound: &[f32]) -> Vec<[f32; BANDS]> {
    let forward = RealFftPlanner::<f32>::new().plan_fft_forward(512);
    let mut spectrum = forward.make_output_vec();
    let frame = |start: usize| {
        let mut frame: Vec<f32> = (0..512).map(|n| sound[start + n] * (PI * n as f32 / 512.0).sin().powi(2)).collect();
        // lengths fit by construction; a frame that failed would be all zeros
        let _ = forward.process(&mut frame, &mut spectrum);
        std::array::from_fn(|band| {
            let centre = 150.0 * 2f32.powf(band as f32 / 3.0);
            let bin = |hz: f32| (hz / 31.25).round() as usize;
            let (first, end) = (bin(centre * 0.890_9), bin(centre * 1.122_5));
            spectrum[first..end.max(first + 1)].iter().map(realfft::num_complex::Complex::norm_sqr).sum::<f32>().sqrt()
        })
    };
    (0..sound.len().saturating_sub(511)).step_by(256).map(frame).collect()
}
