//! What noise cancellation does to what hears it: the table of `models/README.md`.
//!
//!     cargo run -p voiced-models-local --example denoise_table -- FOLDER
//!
//! FOLDER holds recordings of single voices: 16-bit WAV at 16 kHz. The first ones are the callers, the next ones the babble
//! behind them; the other noises are made up. Each caller is heard in each noise at each level, off, through a cheap
//! engine (WebRTC's suppressor) and through the good one, and everything is compared with the same caller in the same band without noise.

#[path = "../line/band.rs"]
mod band;
mod measures;
mod sounds;

use std::path::Path;

use band::Band;
use measures::{Hearing, Measures, intelligibility, pause_level_db, word_errors};
use sonora_ns::config::{NsConfig, SuppressionLevel};
use sonora_ns::noise_suppressor::NoiseSuppressor;
use sounds::{Cast, Noise, cast};
use voiced_core::model::{self, Denoise};
use voiced_models_local::denoise::{GTCRN_DELAY, Gtcrn};
use voiced_models_local::weights::{GTCRN, Weights};

/// Voice over noise, in dB.
const LEVELS_DB: [f32; 2] = [15.0, 5.0];
/// The cheap engine counts in 16-bit sample values.
const FULL_SCALE: f32 = 32_768.0;
/// Samples by which the cheap engine delays.
const CHEAP_DELAY: usize = 96;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).ok_or("which folder holds the recordings?")?;
    let Cast { callers, babble } = cast(Path::new(&folder))?;
    let weights = Weights::at(Weights::default_dir());
    let network = weights.path(GTCRN)?;
    let mut hearing = Hearing::load(&weights)?;
    println!(
        "{} callers; off · cheap · good: intelligibility, noise left in pauses (dB), wrong VAD windows (%), change of end of turn, WER (%)\n",
        callers.len()
    );
    println!("| band | noise | dB | intelligibility | pauses | VAD | end of turn | WER |\n|---|---|---|---|---|---|---|---|");
    for band in [Band::Wide, Band::Telephone] {
        let clean: Vec<Vec<f32>> = callers.iter().map(|caller| band.carry(caller)).collect();
        let truth: Vec<_> = clean.iter().map(|clean| hearing.hear(clean)).collect();
        let mut row = |noise: &str, level: &str, heard: &[Vec<f32>]| -> Result<(), Box<dyn std::error::Error>> {
            let mut cells: [Vec<String>; 5] = Default::default();
            for engine in [Engine::Off, Engine::Cheap, Engine::Good] {
                let mut total = Measures::default();
                for ((clean, truth), heard) in clean.iter().zip(&truth).zip(heard) {
                    let cleaned = engine.clean(band, &network, heard)?;
                    let found = hearing.hear(&cleaned);
                    total.intelligibility += intelligibility(clean, &cleaned);
                    total.pauses_db += pause_level_db(clean, &cleaned) - pause_level_db(clean, heard);
                    total.vad_wrong += found.vad_differs_from(truth);
                    total.turn_change += (found.turn_over - truth.turn_over).abs();
                    total.word_errors += word_errors(&truth.words, &found.words);
                    total.words += truth.words.len();
                }
                for (cells, cell) in cells.iter_mut().zip(total.cells(clean.len())) {
                    cells.push(cell);
                }
            }
            println!("| {band} | {noise} | {level} | {} |", cells.map(|cells| cells.join(" · ")).join(" | "));
            Ok(())
        };
        row("none", "", &clean)?;
        for noise in Noise::ALL {
            for level in LEVELS_DB {
                let noisy: Vec<Vec<f32>> = callers.iter().map(|caller| band.carry(&noise.behind(caller, &babble, level))).collect();
                row(noise.name(), &level.to_string(), &noisy)?;
            }
        }
    }
    Ok(())
}

/// Cleans 10 ms in place.
type Clean = Box<dyn FnMut(&mut [f32; 160])>;

#[derive(Clone, Copy)]
enum Engine {
    Off,
    Cheap,
    Good,
}

impl Engine {
    /// The sound through a new engine, without its delay.
    fn clean(self, band: Band, network: &Path, sound: &[f32]) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
        let (level, band) = match band {
            Band::Telephone => (SuppressionLevel::K12dB, model::Band::Telephone),
            Band::Wide => (SuppressionLevel::K18dB, model::Band::Wide),
        };
        let (mut engine, delay): (Clean, usize) = match self {
            Self::Off => return Ok(sound.to_vec()),
            Self::Cheap => {
                let mut suppressor = NoiseSuppressor::new(NsConfig { target_level: level });
                let clean = move |frame: &mut [f32; 160]| {
                    *frame = frame.map(|sample| sample * FULL_SCALE);
                    suppressor.analyze(frame);
                    suppressor.process(frame);
                    *frame = frame.map(|sample| sample / FULL_SCALE);
                };
                (Box::new(clean), CHEAP_DELAY)
            }
            Self::Good => {
                let mut network = Gtcrn::load(network, 1)?;
                network.reset(0, band);
                (Box::new(move |frame| network.run(&[0], std::slice::from_mut(frame))), GTCRN_DELAY)
            }
        };
        let mut padded = sound.to_vec();
        padded.resize((sound.len() + delay).next_multiple_of(160), 0.0);
        for frame in padded.as_chunks_mut().0 {
            engine(frame);
        }
        Ok(padded[delay..][..sound.len()].to_vec())
    }
}
