//! End of turn against the reference pipeline: `reference/end_of_turn.py` made `end_of_turn.golden.json` from the
//! same sounds, which both sides compute from one formula. And our kernels against ONNX Runtime on the same questions.

use std::f32::consts::TAU;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Instant;

use assert_no_alloc::{AllocDisabler, assert_no_alloc};
use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;
use serde::Deserialize;
use voiced_core::frame::{HEARD_LEN, HeardFrame};
use voiced_core::model::{TURN_FRAMES, TURN_MELS, TurnFeatures, TurnJudge, TurnQuery};
use voiced_models_local::end_of_turn::{SmartTurn, SmartTurnFeatures};
use voiced_models_local::weights::{ONNX_RUNTIME, SILERO_VAD, SMART_TURN, Weights};

#[global_allocator]
static ALLOCATOR: AllocDisabler = AllocDisabler;

/// What single precision in the reference and here leaves between the two; the features lie between −1.5 and 2.
const FEATURE_TOLERANCE: f32 = 2e-5;
/// The same of the last window, and of the first two of a full span: their samples were kept as 16 bits of their block's peak.
const MIRRORED_TOLERANCE: f32 = 2e-4;
/// The model's arithmetic is 8-bit and its last step alone up to 0.01: the smallest change of a feature, or another
/// order of summation, moves the answer by a few steps, 0.035 on average over real speech (`end_of_turn_table`); and the padding's
/// part is learned, not computed. These sounds are answered clearly: where the model wavers, answers differ by more.
const PROBABILITY_TOLERANCE: f32 = 0.05;

#[derive(Deserialize)]
struct Case {
    blocks: usize,
    probability: f32,
    frame_means: Vec<f32>,
    mel_means: Vec<f32>,
    places: Vec<(usize, usize, f32)>,
}

#[test]
fn features_taken_10_ms_at_a_time_are_those_of_the_reference() {
    let mut worst = 0.0_f32;
    for case in cases() {
        let query = features_after(case.blocks);
        assert_eq!(query.frames, case.blocks.min(TURN_FRAMES));
        let at = |mel: usize, frame: usize| query.features[mel * TURN_FRAMES + frame];
        let mut check = |ours: f32, reference: f32, place: &str, tolerance: f32| {
            let difference = (ours - reference).abs();
            worst = worst.max(difference);
            assert!(difference <= tolerance, "{} blocks, {place}: {ours} is not {reference}", case.blocks);
        };
        let of_frame =
            |frame: usize| if frame == TURN_FRAMES - 1 || (case.blocks >= TURN_FRAMES && frame < 2) { MIRRORED_TOLERANCE } else { FEATURE_TOLERANCE };
        for &(mel, frame, reference) in &case.places {
            check(at(mel, frame), reference, &format!("mel {mel}, frame {frame}"), of_frame(frame));
        }
        for (mel, &reference) in case.mel_means.iter().enumerate() {
            check((0..TURN_FRAMES).map(|frame| at(mel, frame)).sum::<f32>() / 800.0, reference, &format!("mel {mel}"), FEATURE_TOLERANCE);
        }
        for (frame, &reference) in (0..).step_by(8).zip(&case.frame_means) {
            check((0..TURN_MELS).map(|mel| at(mel, frame)).sum::<f32>() / 80.0, reference, &format!("frame {frame}"), of_frame(frame));
        }
    }
    println!("largest difference {worst:e}");
}

#[test]
fn the_model_answers_as_in_the_reference() {
    let mut judge = smart_turn();
    for case in cases() {
        let probability = judge.judge(&features_after(case.blocks));
        println!("{} blocks: {probability}, reference {}", case.blocks, case.probability);
        assert!((probability - case.probability).abs() <= PROBABILITY_TOLERANCE, "{} blocks: {probability} is not {}", case.blocks, case.probability);
    }
}

#[test]
fn the_kernel_and_onnx_runtime_agree_on_who_has_finished() {
    let (mut judge, mut reference) = (smart_turn(), reference_session());
    // with padding and without
    let unfinished = [211, 400, 700, 900].map(|blocks| query_of(&hesitation(blocks)));
    let finished = [37, 180, 400, 800].map(features_after);
    let mut answers = [(0.0, 0.0); 8];
    for (answer, query) in answers.iter_mut().zip(unfinished.iter().chain(&finished)) {
        *answer = (judge.judge(query), infer(&mut reference, query));
        println!("{} blocks, {}: {:.4}, ONNX Runtime {:.4}", query.frames, judge.instruction_set(), answer.0, answer.1);
    }
    for (ours, theirs) in answers {
        assert!((ours - theirs).abs() <= PROBABILITY_TOLERANCE, "{ours} is not {theirs}");
    }
    assert!(answers[..4].iter().all(|answer| answer.1 < 0.1) && answers[4..].iter().all(|answer| answer.1 > 0.9), "{answers:?}");
}

#[test]
fn a_clone_answers_as_its_original_whatever_was_asked_before() {
    let mut judge = smart_turn();
    let queries = [features_after(120), features_after(900), query_of(&hesitation(333))];
    let answers = queries.each_ref().map(|query| judge.judge(query));
    let mut clone = judge.clone();
    let again = [2, 0, 1].map(|index| (index, clone.judge(&queries[index])));
    assert!(again.iter().all(|(index, answer)| answer.to_bits() == answers[*index].to_bits()), "{answers:?} and {again:?}");
}

#[test]
fn a_question_about_no_sound_at_all_is_answered() {
    let answer = smart_turn().judge(&TurnQuery::default());
    assert!((0.0..=1.0).contains(&answer));
}

#[test]
fn a_judgement_does_not_allocate() {
    let (mut judge, query) = (smart_turn(), features_after(300));
    assert_no_alloc(|| {
        black_box(judge.judge(&query));
    });
}

#[test]
fn a_file_of_another_model_is_refused() {
    assert!(SmartTurn::load(&weights(SILERO_VAD)).is_err());
}

#[test]
fn cost_per_question_is_printed() {
    let (mut judge, mut reference) = (smart_turn(), reference_session());
    let best = |work: &mut dyn FnMut()| {
        let time = |work: &mut dyn FnMut()| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e3
        };
        (0..5).map(|_| time(work)).fold(f64::INFINITY, f64::min)
    };
    for blocks in [50, 100, 200, 400, 800] {
        let query = features_after(blocks);
        let ms = best(&mut || {
            black_box(judge.judge(&query));
        });
        println!("{:3.1} s, {}: {ms:5.2} ms", blocks as f64 / 100.0, judge.instruction_set());
    }
    let query = features_after(800);
    let ms = best(&mut || {
        black_box(infer(&mut reference, &query));
    });
    println!("any length, ONNX Runtime without its saturating products: {ms:5.2} ms");
}

#[test]
fn a_reset_slot_knows_nothing_of_the_sound_before_and_slots_do_not_mix() {
    let mut features = SmartTurnFeatures::new(2);
    let sound = sound(900);
    for block in &sound {
        features.push(0, block);
    }
    features.reset(0);
    for (before, block) in sound[..700].iter().rev().zip(&sound) {
        features.push(1, before);
        features.push(0, block);
    }
    let mut query = TurnQuery::default();
    features.query(0, 0, &mut query);
    assert!(query.features == features_after(700).features);
}

#[test]
fn a_query_about_some_frames_ago_is_the_one_that_could_have_been_made_then() {
    let as_of = |blocks: usize, frames_ago: usize| {
        let (mut features, mut query) = (SmartTurnFeatures::new(1), TurnQuery::default());
        for block in &sound(blocks) {
            features.push(0, block);
        }
        features.query(0, frames_ago, &mut query);
        query
    };
    for blocks in [1, 300, 780] {
        let (then, now) = (as_of(blocks, 0), as_of(blocks + 17, 17));
        assert!(now.frames == blocks && now.features == then.features, "{blocks} blocks");
    }
    assert_eq!((as_of(5, 17).frames, as_of(1_200, 17).frames), (0, TURN_FRAMES - 17));
}

#[test]
fn a_call_without_any_sound_yet_can_be_asked() {
    let mut query = TurnQuery::default();
    SmartTurnFeatures::new(1).query(0, 0, &mut query);
    assert_eq!(query.frames, 0);
    // the floor of a band's power, 1e-10, scaled
    assert!(query.features.iter().all(|&feature| feature == -1.5));
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("end_of_turn.golden.json")).expect("the golden file is committed with this test")
}

fn smart_turn() -> SmartTurn {
    static LOADED: LazyLock<SmartTurn> = LazyLock::new(|| SmartTurn::load(&weights(SMART_TURN)).expect("the fetched model loads"));
    LOADED.clone()
}

fn weights(name: &str) -> PathBuf {
    Weights::at(Weights::default_dir()).path(name).expect("fetch the weights first")
}

/// Not optimised: between codes it then computes in floats. Optimised for AVX2, its sums of products saturate.
fn reference_session() -> Session {
    static ENVIRONMENT: LazyLock<Environment> =
        LazyLock::new(|| ort::init_from(weights(ONNX_RUNTIME)).expect("ONNX Runtime loads").build().expect("an environment"));
    let builder = Session::builder(&ENVIRONMENT).expect("a session");
    let builder = builder.with_optimization_level(GraphOptimizationLevel::Disable).expect("a session");
    let mut builder = builder.with_intra_threads(1).expect("a session");
    builder.commit_from_file(weights(SMART_TURN)).expect("ONNX Runtime opens the model")
}

fn infer(session: &mut Session, query: &TurnQuery) -> f32 {
    let features = TensorRef::from_array_view(([1, TURN_MELS, TURN_FRAMES], &*query.features)).expect("a picture's shape");
    let outputs = session.run(ort::inputs!["input_features" => features]).expect("the model runs");
    outputs[0].try_extract_tensor::<f32>().expect("a probability").1[0]
}

fn features_after(blocks: usize) -> TurnQuery {
    query_of(&sound(blocks))
}

fn query_of(sound: &[HeardFrame]) -> TurnQuery {
    let mut features = SmartTurnFeatures::new(1);
    for block in sound {
        features.push(0, block);
    }
    let mut query = TurnQuery::default();
    features.query(0, 0, &mut query);
    query
}

/// A voice without words that hesitates: pulses of falling pitch through two wandering resonances, five syllables a
/// second, then one drawn out, and a pause in which the question comes.
fn hesitation(blocks: usize) -> Vec<HeardFrame> {
    const PAUSE: f32 = 0.2;
    const DRAWN_OUT: f32 = 0.6;
    let length = blocks as f32 / 100.0;
    let (mut phase, mut resonances) = (0.0_f32, [[0.0_f32; 2]; 2]);
    let mut next = |i: usize| {
        let seconds = i as f32 / 16_000.0;
        let swing = |hz: f32| (TAU * hz * seconds).sin();
        let (loud, vowel) = match length - seconds {
            left if left < PAUSE => (0.0, 500.0),
            left if left < PAUSE + DRAWN_OUT => (0.7, 500.0),
            _ => (0.1 + swing(5.0).max(0.0), 500.0 + 300.0 * swing(1.3)),
        };
        phase += 120.0 * (1.0 - 0.3 * seconds / length) / 16_000.0;
        let pulse = if phase >= 1.0 { loud } else { 0.0 };
        phase -= phase.floor();
        let mut heard = 0.0;
        for ([newest, before], (hz, level)) in resonances.iter_mut().zip([(vowel, 0.05), (1_500.0 + vowel, 0.025)]) {
            let value = pulse + 1.94 * (TAU * hz / 16_000.0).cos() * *newest - 0.9409 * *before;
            (*before, *newest) = (*newest, value);
            heard += level * value;
        }
        heard
    };
    (0..blocks).map(|block| std::array::from_fn(|i| next(block * HEARD_LEN + i))).collect()
}

/// Bursts of a gliding tone with its overtones, breath noise and an offset, as in the reference script.
fn sound(blocks: usize) -> Vec<HeardFrame> {
    let (mut noise_state, mut phase) = (12_345_u32, 0_u32);
    let mut next = |i: usize| {
        noise_state = noise_state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        phase = phase.wrapping_add(24_159_191 + (i as u32 % 8_000) * 4_295);
        let noise = (noise_state >> 16) as i32 - 32_768;
        let saw = (phase >> 16) as i32 - 32_768;
        let loud = [0, 9, 5, 12][i / 3_200 % 4];
        ((saw * loud).div_euclid(32) + (noise * (1 + loud)).div_euclid(256) + 150) as f32 / 32_768.0
    };
    (0..blocks).map(|block| std::array::from_fn(|i| next(block * HEARD_LEN + i))).collect()
}
