//! End of turn against the reference pipeline: `reference/end_of_turn.py` made `end_of_turn.golden.json` from the
//! same sounds, which both sides compute from one formula.

use serde::Deserialize;
use voiced_core::frame::{HEARD_LEN, HeardFrame};
use voiced_core::model::{TURN_FRAMES, TURN_MELS, TurnFeatures, TurnJudge, TurnQuery};
use voiced_models_local::end_of_turn::{SmartTurn, SmartTurnFeatures};
use voiced_models_local::weights::{ONNX_RUNTIME, SMART_TURN, Weights};

/// What single precision in the reference and here leaves between the two; the features lie between −1.5 and 2.
const FEATURE_TOLERANCE: f32 = 2e-5;
/// The model's arithmetic is 8-bit: the smallest change of a feature can move the answer by a few steps.
const PROBABILITY_TOLERANCE: f32 = 0.02;

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
        let mut check = |ours: f32, reference: f32, place: &str| {
            let difference = (ours - reference).abs();
            worst = worst.max(difference);
            assert!(difference <= FEATURE_TOLERANCE, "{} blocks, {place}: {ours} is not {reference}", case.blocks);
        };
        for &(mel, frame, reference) in &case.places {
            check(at(mel, frame), reference, &format!("mel {mel}, frame {frame}"));
        }
        for (mel, &reference) in case.mel_means.iter().enumerate() {
            check((0..TURN_FRAMES).map(|frame| at(mel, frame)).sum::<f32>() / 800.0, reference, &format!("mel {mel}"));
        }
        for (frame, &reference) in (0..).step_by(8).zip(&case.frame_means) {
            check((0..TURN_MELS).map(|mel| at(mel, frame)).sum::<f32>() / 80.0, reference, &format!("frame {frame}"));
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
    features.query(0, &mut query);
    assert!(query.features == features_after(700).features);
}

#[test]
fn a_call_without_any_sound_yet_can_be_asked() {
    let mut query = TurnQuery::default();
    SmartTurnFeatures::new(1).query(0, &mut query);
    assert_eq!(query.frames, 0);
    // the floor of a band's power, 1e-10, scaled
    assert!(query.features.iter().all(|&feature| feature == -1.5));
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("end_of_turn.golden.json")).expect("the golden file is committed with this test")
}

fn smart_turn() -> SmartTurn {
    let weights = Weights::at(Weights::default_dir());
    let path = |name| weights.path(name).expect("fetch the weights first");
    SmartTurn::load(&path(ONNX_RUNTIME), &path(SMART_TURN)).expect("the fetched model loads")
}

fn features_after(blocks: usize) -> TurnQuery {
    let mut features = SmartTurnFeatures::new(1);
    for block in sound(blocks) {
        features.push(0, &block);
    }
    let mut query = TurnQuery::default();
    features.query(0, &mut query);
    query
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
