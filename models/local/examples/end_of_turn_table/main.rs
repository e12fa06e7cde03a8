//! How often our end-of-turn kernel decides as the shipped graph does: the table of `models/README.md`.
//!
//!     cargo run --release -p voiced-models-local --example end_of_turn_table -- FOLDER
//!
//! FOLDER holds recordings of voices: 16-bit WAV, one channel, any rate. At each pause of 200 ms both are asked about the
//! turn so far, on a wide line and over a telephone. The reference is ONNX Runtime in exact arithmetic, and is shown the last 8 s.

#[path = "../line/band.rs"]
mod band;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use band::{Band, converted};
use indicatif::ProgressIterator as _;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;
use voiced_core::frame::HEARD_LEN;
use voiced_core::model::{TURN_FRAMES, TURN_MELS, TurnFeatures, TurnJudge, TurnQuery, VAD_WINDOW, VoiceActivity};
use voiced_models_local::end_of_turn::{SmartTurn, SmartTurnFeatures};
use voiced_models_local::vad::Silero;
use voiced_models_local::weights::{ONNX_RUNTIME, SILERO_VAD, SMART_TURN, Weights};

type Failure = Box<dyn std::error::Error>;

/// What ours is shown, in seconds.
const SHOWN_S: [usize; 4] = [8, 6, 5, 4];
/// Samples a second of what the models hear.
const RATE: usize = 16_000;
/// Probabilities at which voice activity begins and ends.
const VOICE: [f32; 2] = [0.5, 0.35];
/// Of the pause, what the models are shown; a pause so long ends a turn; what a turn begins with before its first word. In samples.
const PAUSE: usize = RATE / 5;
const TURN_OVER: usize = RATE;
const BEFORE: usize = RATE / 2;

fn main() -> Result<(), Failure> {
    let folder = std::env::args_os().nth(1).ok_or("which folder holds the recordings?")?;
    let weights = Weights::at(Weights::default_dir());
    let mut vad = Silero::load(&weights.path(SILERO_VAD)?, 1)?;
    let mut ours = SmartTurn::load(&weights.path(SMART_TURN)?)?;
    let mut reference = Reference::load(&weights)?;

    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "wav"));
    paths.sort();
    let mut table = SHOWN_S.map(|seconds| Row { seconds, ..Row::default() });
    let mut truths = Vec::new();
    for path in paths.iter().progress() {
        let wide = read(path)?;
        let windows = windows(&mut vad, &wide);
        for band in [Band::Wide, Band::Telephone] {
            let heard = band.carry(&wide);
            for window in &windows {
                let sound = &heard[window.start..window.end];
                let truth = reference.judge(&query(sound, TURN_FRAMES))?;
                truths.push((truth, window.is_end));
                for row in &mut table {
                    let query = query(sound, 100 * row.seconds);
                    let start = Instant::now();
                    let answer = ours.judge(&query);
                    row.took += start.elapsed();
                    row.answers.push((answer, window.is_end));
                }
            }
        }
    }
    if truths.is_empty() {
        return Err("no pause in any recording: are they 16-bit WAV files of voices?".into());
    }

    let ends = truths.iter().filter(|(_, is_end)| *is_end).count();
    println!("{} windows of {} recordings, {ends} at ends of turns; {}", truths.len(), paths.len(), ours.instruction_set());
    println!("ends over pauses (AUC): shipped graph {:.3}\n", separation(&truths));
    println!("| shown, s | same decision | mean difference | AUC | ms a question |\n|---|---|---|---|---|");
    for row in &table {
        let count = truths.len() as f32;
        let pairs = || row.answers.iter().zip(&truths).map(|((ours, _), (truth, _))| (*ours, *truth));
        let same = pairs().filter(|(ours, truth)| (*ours > 0.5) == (*truth > 0.5)).count() as f32;
        let difference: f32 = pairs().map(|(ours, truth)| (ours - truth).abs()).sum();
        let ms = row.took.as_secs_f32() * 1e3 / count;
        println!("| {} | {:.1} % | {:.3} | {:.3} | {ms:.1} |", row.seconds, 100.0 * same / count, difference / count, separation(&row.answers));
    }
    Ok(())
}

/// What the kernel answered when it was shown so much.
#[derive(Default)]
struct Row {
    seconds: usize,
    answers: Vec<(f32, bool)>,
    took: Duration,
}

/// A question's sound, and whether the turn was over.
struct Window {
    start: usize,
    end: usize,
    is_end: bool,
}

/// A question for each pause.
fn windows(vad: &mut Silero, sound: &[f32]) -> Vec<Window> {
    vad.reset(0);
    let (mut windows, mut probability) = (Vec::<Window>::new(), [0.0]);
    let (mut speaks, mut turn, mut quiet_since) = (false, None, 0);
    for (index, window) in sound.as_chunks::<VAD_WINDOW>().0.iter().enumerate() {
        vad.run(&[0], &[*window], &mut probability);
        let (from, until) = (index * VAD_WINDOW, (index + 1) * VAD_WINDOW);
        let quiet = from.saturating_sub(quiet_since);
        let was_speaking = speaks;
        speaks = probability[0] > VOICE[usize::from(was_speaking)];
        if !was_speaking && speaks {
            if quiet >= TURN_OVER || turn.is_none() {
                turn = Some(from.saturating_sub(BEFORE));
            } else if quiet >= PAUSE {
                windows.last_mut().into_iter().for_each(|window| window.is_end = false);
            }
        } else if was_speaking && !speaks {
            quiet_since = from;
        }
        let is_question = !speaks && quiet_since > 0 && (quiet_since + PAUSE..quiet_since + PAUSE + VAD_WINDOW).contains(&until);
        if let Some(start) = turn.filter(|_| is_question) {
            windows.push(Window { start, end: quiet_since + PAUSE, is_end: true });
        }
    }
    windows
}

fn query(sound: &[f32], frames_max: usize) -> TurnQuery {
    let mut features = SmartTurnFeatures::new(1);
    let (_, blocks) = sound.as_rchunks::<HEARD_LEN>();
    for block in &blocks[blocks.len().saturating_sub(frames_max)..] {
        features.push(0, block);
    }
    let mut query = TurnQuery::default();
    features.query(0, 0, &mut query);
    query
}

/// The shipped graph. Not optimised: optimised for AVX2, its sums of products saturate.
struct Reference(Session);

impl Reference {
    fn load(weights: &Weights) -> Result<Self, Failure> {
        let environment = ort::init_from(weights.path(ONNX_RUNTIME)?)?.build()?;
        let builder = Session::builder(&environment)?.with_optimization_level(GraphOptimizationLevel::Disable);
        let mut builder = builder.map_err(|error| error.to_string())?.with_intra_threads(1).map_err(|error| error.to_string())?;
        Ok(Self(builder.commit_from_file(weights.path(SMART_TURN)?)?))
    }

    fn judge(&mut self, query: &TurnQuery) -> Result<f32, Failure> {
        let features = TensorRef::from_array_view(([1, TURN_MELS, TURN_FRAMES], &*query.features))?;
        let outputs = self.0.run(ort::inputs!["input_features" => features])?;
        Ok(outputs[0].try_extract_tensor::<f32>()?.1[0])
    }
}

/// How often an end is answered higher than a pause: 0.5 by chance, 1 at best.
fn separation(answers: &[(f32, bool)]) -> f32 {
    let of = |end: bool| answers.iter().filter(move |(_, is_end)| *is_end == end).map(|(answer, _)| *answer);
    let pairs = of(true).flat_map(|end| of(false).map(move |pause| f32::midpoint(f32::from(end >= pause), f32::from(end > pause))));
    let (count, sum) = pairs.fold((0.0, 0.0), |(count, sum), won| (count + 1.0, sum + f64::from(won)));
    (sum / f64::max(count, 1.0)) as f32
}

/// At [`RATE`].
fn read(path: &Path) -> Result<Vec<f32>, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::from(format!("{}: {error}", path.display()));
    let mut wav = hound::WavReader::open(path).map_err(|error| failed(&error))?;
    if wav.spec().channels != 1 {
        return Err(failed(&"more than one channel"));
    }
    let samples: Result<Vec<i16>, _> = wav.samples::<i16>().collect();
    let sound: Vec<f32> = samples.map_err(|error| failed(&error))?.into_iter().map(|sample| f32::from(sample) / 32_768.0).collect();
    let rate = wav.spec().sample_rate;
    Ok(if rate as usize == RATE { sound } else { converted(&sound, rate, RATE as u32) })
}
