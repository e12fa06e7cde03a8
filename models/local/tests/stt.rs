//! Speech to text on the local voice's speech, near and over a phone line, and on what is not speech.

use voiced_models_local::stt::{SAMPLE_RATE, Scratch, SttError, UTTERANCE_SAMPLES_MAX, Whisper};
use voiced_models_local::tts::Piper;
use voiced_models_local::weights::{ONNX_RUNTIME, PIPER_VOICE, WHISPER, Weights};

/// Short words that mean little are left out of the count.
const WORD_CHARS_MIN: usize = 4;

/// What a caller may say, without numbers, which have two spellings.
const SENTENCES: [&str; 6] = [
    "My kitchen sink is leaking.",
    "There is water all over the bathroom floor.",
    "The boiler stopped working this morning.",
    "Please send somebody to look at the broken window.",
    "The front door does not close since yesterday.",
    "Somebody should come in the afternoon.",
];

/// The voice is a small one and the model the smallest, and both may round otherwise on another processor: that a word is
/// lost here and there is no fault, that a quarter of all is lost would be.
#[test]
fn most_words_are_understood_near_and_over_a_phone_line() {
    let whisper = whisper();
    let (mut voice, mut scratch) = (voice(), Scratch::default());
    let [mut near, mut phone] = [Understood::default(), Understood::default()];
    for sentence in SENTENCES {
        let (sound, rate_hz) = spoken(&mut voice, sentence);
        near.count(sentence, &whisper.transcribe(&resampled(&sound, rate_hz, SAMPLE_RATE), &mut scratch));
        let line: Vec<f32> = resampled(&sound, rate_hz, 8_000).into_iter().map(over_mu_law).collect();
        phone.count(sentence, &whisper.transcribe(&resampled(&line, 8_000, SAMPLE_RATE), &mut scratch));
    }
    println!("near {near:?}, over the phone {phone:?}");
    assert!(near.share() >= 0.75, "near: {near:?}");
    assert!(phone.share() >= 0.6, "over the phone: {phone:?}");
}

#[test]
fn silence_noise_and_a_tone_are_no_words() {
    let whisper = whisper();
    let mut scratch = Scratch::default();
    let mut seed = 1_u32;
    let mut noise = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed as f32 / u32::MAX as f32 - 0.5
    };
    let tone = |i: usize| 0.1 * (i as f32 * 440.0 * std::f32::consts::TAU / SAMPLE_RATE as f32).sin();
    let sounds: [(&str, Vec<f32>); 7] = [
        ("nothing", Vec::new()),
        ("silence", vec![0.0; 3 * SAMPLE_RATE]),
        ("not a number", vec![f32::NAN; SAMPLE_RATE]),
        ("faint noise", (0..3 * SAMPLE_RATE).map(|_| 0.01 * noise()).collect()),
        ("loud noise", (0..2 * SAMPLE_RATE).map(|_| 0.1 * noise()).collect()),
        ("a tone", (0..2 * SAMPLE_RATE).map(tone).collect()),
        ("a short tone", (0..SAMPLE_RATE).map(tone).collect()),
    ];
    for (name, samples) in sounds {
        assert_eq!(whisper.transcribe(&samples, &mut scratch), "", "{name}");
    }
}

#[test]
fn threads_share_the_weights_and_agree() {
    let whisper = whisper();
    let (sound, rate_hz) = spoken(&mut voice(), SENTENCES[1]);
    let samples = resampled(&sound, rate_hz, SAMPLE_RATE);
    let texts = std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(|| whisper.transcribe(&samples, &mut Scratch::default())));
        threads.map(|thread| thread.join().expect("no thread panics"))
    });
    assert!(!texts[0].is_empty());
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn what_follows_the_longest_utterance_is_not_heard() {
    let whisper = whisper();
    let (sound, rate_hz) = spoken(&mut voice(), SENTENCES[0]);
    let mut samples = vec![0.0; UTTERANCE_SAMPLES_MAX];
    samples.extend(resampled(&sound, rate_hz, SAMPLE_RATE));
    assert_eq!(whisper.transcribe(&samples, &mut Scratch::default()), "");
}

#[test]
fn a_broken_model_is_an_error_that_names_the_file() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    assert!(matches!(Whisper::load(dir.path()), Err(SttError::Read { file, .. }) if file.ends_with("model.bin")));
    for broken in [&b""[..], b"\x06\0\0\0\xff\xff", b"\x07\0\0\0"] {
        std::fs::write(dir.path().join("model.bin"), broken).expect("the folder is writable");
        assert!(matches!(Whisper::load(dir.path()), Err(SttError::Malformed { file, .. }) if file == "model.bin"));
    }
}

fn whisper() -> Whisper {
    let weights = Weights::at(Weights::default_dir());
    let model = weights.path(WHISPER).expect("the weights are fetched");
    Whisper::load(model.parent().expect("the file lies in a folder")).expect("the weights load")
}

fn voice() -> Piper {
    let weights = Weights::at(Weights::default_dir());
    let file = |name: &str| weights.path(name).expect("the weights are fetched");
    Piper::load(&file(ONNX_RUNTIME), &file(PIPER_VOICE), &file(&format!("{PIPER_VOICE}.json"))).expect("the voice loads")
}

fn spoken(voice: &mut Piper, text: &str) -> (Vec<f32>, usize) {
    let mut sound = Vec::new();
    let rate_hz = voice.synthesize(text, &mut sound).expect("plain text is spoken");
    (sound.into_iter().map(|sample| f32::from(sample) / 32_768.0).collect(), rate_hz as usize)
}

/// How many of the words said were heard.
#[derive(Debug, Default)]
struct Understood {
    words: usize,
    heard: usize,
    texts: Vec<String>,
}

impl Understood {
    fn count(&mut self, said: &str, heard: &str) {
        let heard_words = words(heard);
        let said_words = words(said);
        self.words += said_words.len();
        self.heard += said_words.iter().filter(|word| heard_words.contains(word)).count();
        self.texts.push(heard.to_owned());
    }

    fn share(&self) -> f32 {
        self.heard as f32 / self.words as f32
    }
}

fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() >= WORD_CHARS_MIN);
    words.map(str::to_lowercase).collect()
}

/// Each new sample is the mean of what it covers, or on the way up lies on the line between its neighbours.
fn resampled(samples: &[f32], from_hz: usize, to_hz: usize) -> Vec<f32> {
    (0..samples.len() * to_hz / from_hz)
        .map(|i| {
            let position = i as f32 * from_hz as f32 / to_hz as f32;
            let at = |i: usize| samples.get(i).copied().unwrap_or(0.0);
            let line = |position: f32| at(position as usize) + position.fract() * (at(position as usize + 1) - at(position as usize));
            let covered = from_hz as f32 / to_hz as f32;
            if covered < 1.0 { line(position) } else { (0..8).map(|part| line(position + covered * part as f32 / 8.0)).sum::<f32>() / 8.0 }
        })
        .collect()
}

/// What eight bits of mu-law leave of a sample.
fn over_mu_law(sample: f32) -> f32 {
    let code = ((1.0 + 255.0 * sample.abs()).ln() / 256.0_f32.ln() * 127.0).round() / 127.0;
    ((256.0_f32.powf(code) - 1.0) / 255.0).copysign(sample)
}
