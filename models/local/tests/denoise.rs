//! Noise cancellation from outside: quieter pauses, the same voice.

use std::f32::consts::TAU;

use assert_no_alloc::{AllocDisabler, assert_no_alloc};
use voiced_core::frame::{HEARD_LEN, HeardFrame, Rate};
use voiced_core::model::Denoise;
use voiced_models_local::denoise::{DenoiseKind, SonoraDenoise};

#[global_allocator]
static ALLOCATOR: AllocDisabler = AllocDisabler;

#[test]
fn pauses_grow_quieter_by_more_than_6_db_and_the_voice_stays() {
    for kind in [DenoiseKind::Telephony, DenoiseKind::Standard] {
        let (pauses_db, voice_db) = change_db(kind);
        println!("{kind:?}: pauses {pauses_db:.1} dB, voice {voice_db:.1} dB");
        assert!(pauses_db < -6.0, "{kind:?} changes pauses by {pauses_db} dB");
        assert!(voice_db > -3.0, "{kind:?} changes the voice by {voice_db} dB");
    }
}

#[test]
fn none_leaves_every_sample_as_it_is() {
    let mut denoise = SonoraDenoise::new(1, DenoiseKind::None);
    let mut noise = Noise(1);
    let before: HeardFrame = std::array::from_fn(|_| noise.next());
    let mut frames = [before];
    denoise.run(&[0], &mut frames);
    assert_eq!(frames[0], before);
}

#[test]
fn auto_is_telephony_for_a_telephone_and_standard_for_a_room() {
    let auto = DenoiseKind::parse("auto").unwrap();
    assert_eq!(auto.at(Rate::Hz8000), DenoiseKind::Telephony);
    assert_eq!(auto.at(Rate::Hz48000), DenoiseKind::Standard);
    assert_eq!(DenoiseKind::parse("none").unwrap().at(Rate::Hz8000), DenoiseKind::None);
    assert_eq!(DenoiseKind::parse("krisp"), None);
}

#[test]
fn slots_do_not_hear_one_another_and_a_reset_one_is_new() {
    let mut noise = Noise(3);
    let (mut alone, mut together) = (SonoraDenoise::new(1, DenoiseKind::Standard), SonoraDenoise::new(2, DenoiseKind::Standard));
    for _ in 0..100 {
        together.run(&[1], &mut [std::array::from_fn(|_| noise.next())]);
    }
    together.reset(1);
    for _ in 0..50 {
        let frame: HeardFrame = std::array::from_fn(|_| noise.next());
        let (mut one, mut two) = ([frame], [std::array::from_fn(|_| noise.next()), frame]);
        alone.run(&[0], &mut one);
        together.run(&[0, 1], &mut two);
        assert_eq!(one[0], two[1]);
    }
}

#[test]
fn neither_run_nor_reset_allocates() {
    let mut denoise = SonoraDenoise::new(4, DenoiseKind::Standard);
    let mut noise = Noise(5);
    // beyond the 500 frames after which the suppressor looks at its histograms
    for _ in 0..1_100 {
        let mut frames: [HeardFrame; 4] = std::array::from_fn(|_| std::array::from_fn(|_| noise.next()));
        assert_no_alloc(|| denoise.run(&[0, 1, 2, 3], &mut frames));
    }
    assert_no_alloc(|| denoise.reset(2));
}

/// Change of level in dB in the pauses and in the voice, over the last half of 12 s of a voice in steady noise.
fn change_db(kind: DenoiseKind) -> (f32, f32) {
    const FRAMES: usize = 1_200;
    let mut denoise = SonoraDenoise::new(1, kind);
    let mut noise = Noise(9);
    let (mut before, mut after) = ([0f32; 2], [0f32; 2]);
    for frame in 0..FRAMES {
        let voiced = frame % 150 >= 75;
        let mut frames = [std::array::from_fn(|n| {
            let seconds = (frame * HEARD_LEN + n) as f32 / 16_000.0;
            noise.next() + if voiced { voice(seconds) } else { 0.0 }
        })];
        // a frame after each change is left out: the suppressor delays by 6 ms
        let counted = frame > FRAMES / 2 && frame % 75 > 1;
        let energy = |frame: &HeardFrame| frame.iter().map(|sample| sample * sample).sum::<f32>();
        let heard = energy(&frames[0]);
        denoise.run(&[0], &mut frames);
        if counted {
            before[usize::from(voiced)] += heard;
            after[usize::from(voiced)] += energy(&frames[0]);
        }
    }
    let db = |which: usize| 10.0 * (after[which] / before[which]).log10();
    (db(0), db(1))
}

/// Harmonics of a gliding 140 Hz in syllables.
fn voice(seconds: f32) -> f32 {
    let phase = TAU * (140.0 * seconds + 3.0 * (seconds * 4.0).sin());
    let syllable = 0.3 + 0.7 * (seconds * 11.0).sin().abs();
    let harmonics: f32 = (1..=20).map(|harmonic| (phase * harmonic as f32).sin() / harmonic as f32).sum();
    0.15 * syllable * harmonics
}

/// White noise at about -45 dB.
struct Noise(u32);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((self.0 >> 8) as f32 / 8_388_608.0 - 1.0) * 0.01
    }
}
