//! The local voice: what it makes of text that is easy, empty, or far too long.

use voiced_models_local::tts::Piper;
use voiced_models_local::weights::{ONNX_RUNTIME, PIPER_VOICE, Weights};

#[test]
fn a_greeting_becomes_a_second_or_two_of_speech_with_its_silence_trimmed() {
    let (sound, rate_hz) = spoken("Hello, how can I help you?");
    assert_eq!(rate_hz, 22_050);
    let seconds = sound.len() as f32 / rate_hz as f32;
    assert!((0.8..3.0).contains(&seconds), "{seconds} s");

    let level_db = |sound: &[i16]| {
        let power: f32 = sound.iter().map(|&sample| (f32::from(sample) / 32_768.0).powi(2)).sum();
        10.0 * (power / sound.len() as f32).log10()
    };
    assert!((-35.0..-10.0).contains(&level_db(&sound)), "{} dB", level_db(&sound));
    // speech, not a burst and silence: each quarter carries some
    for quarter in sound.chunks(sound.len().div_ceil(4)) {
        assert!(level_db(quarter) > -45.0, "{} dB", level_db(quarter));
    }
    let loudest = sound.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0);
    let lead = sound.iter().position(|sample| sample.unsigned_abs() > loudest / 50).unwrap_or(0);
    assert!(lead < rate_hz as usize * 60 / 1_000, "speech begins after {lead} samples");
}

#[test]
fn more_words_take_longer() {
    let mut voice = voice();
    let mut length = |text: &str| {
        let mut sound = Vec::new();
        voice.synthesize(text, &mut sound).expect("plain text is spoken");
        sound.len()
    };
    let one = length("Yes.");
    let two = length("Yes. I will send somebody to have a look at it tomorrow morning.");
    assert!(two > 3 * one, "{one} and {two} samples");
}

#[test]
fn the_same_words_are_the_same_sound() {
    let mut voice = voice();
    let [mut first, mut again] = [Vec::new(), Vec::new()];
    for sound in [&mut first, &mut again] {
        voice.synthesize("Somebody will be with you.", sound).expect("plain text is spoken");
    }
    assert!(first == again, "{} and {} samples", first.len(), again.len());
}

#[test]
fn text_without_a_word_is_no_sound_and_no_error() {
    let mut voice = voice();
    for text in ["", " \n\t", "🎉🎉", "…", "?!", "**"] {
        let mut sound = vec![1; 10];
        voice.synthesize(text, &mut sound).expect("nothing to say is no error");
        assert!(sound.is_empty(), "{text:?} gave {} samples", sound.len());
    }
}

#[test]
fn text_that_looks_like_an_option_or_a_command_is_only_spoken() {
    for text in ["--help", "$(touch x); `id` | cat <speak>", "[[bbbb]] hello [[bbbb]]"] {
        let (sound, rate_hz) = spoken(text);
        assert!(sound.len() > rate_hz as usize / 10, "{text:?} gave {} samples", sound.len());
    }
}

#[test]
fn a_text_far_too_long_is_spoken_up_to_a_limit() {
    // no mark and no space for the voice to pause at, which is the hardest to bound
    let (sound, rate_hz) = spoken(&"7".repeat(100_000));
    let seconds = sound.len() / rate_hz as usize;
    assert!((1..120).contains(&seconds), "{seconds} s");
}

fn spoken(text: &str) -> (Vec<i16>, u32) {
    let mut sound = Vec::new();
    let rate_hz = voice().synthesize(text, &mut sound).expect("text is spoken");
    (sound, rate_hz)
}

fn voice() -> Piper {
    let weights = Weights::at(Weights::default_dir());
    let path = |name: &str| weights.path(name).expect("fetch the weights first");
    let settings = path(&format!("{PIPER_VOICE}.json"));
    Piper::load(&path(ONNX_RUNTIME), &path(PIPER_VOICE), &settings).expect("the fetched voice loads")
}
