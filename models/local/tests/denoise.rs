//! Noise cancellation from outside: the network's kernel against ONNX Runtime, quieter pauses, the same voice.

use std::collections::VecDeque;
use std::f32::consts::{PI, TAU};
use std::path::PathBuf;

use assert_no_alloc::{AllocDisabler, assert_no_alloc};
use ort::session::Session;
use ort::value::TensorRef;
use realfft::RealFftPlanner;
use realfft::num_complex::Complex;
use voiced_core::frame::{HEARD_LEN, HeardFrame, Rate};
use voiced_core::model::{Band, Denoise};
use voiced_models_local::denoise::{DenoiseKind, GTCRN_DELAY, Gtcrn};
use voiced_models_local::onnx::open_session;
use voiced_models_local::weights::{GTCRN, ONNX_RUNTIME, Weights};

#[global_allocator]
static ALLOCATOR: AllocDisabler = AllocDisabler;

#[test]
fn the_network_agrees_with_onnx_runtime_over_thousands_of_frames_of_carried_state() {
    const CALLS: usize = 19; // a whole group of lanes and a part
    const SECONDS: usize = 4;
    let sounds: Vec<Vec<f32>> = (0..CALLS).map(|call| sound(call, SECONDS * 16_000)).collect();
    let mut gtcrn = gtcrn(CALLS).without_control();
    let slots: Vec<usize> = (0..CALLS).rev().collect();
    let mut ours = vec![Vec::new(); CALLS];
    for tick in 0..SECONDS * 100 {
        let mut frames: Vec<HeardFrame> = sounds.iter().map(|sound| sound.as_chunks().0[tick]).collect();
        gtcrn.run(&slots, &mut frames);
        for (ours, frame) in ours.iter_mut().zip(frames) {
            ours.extend(frame);
        }
    }
    let mut session = open_session(&weights(ONNX_RUNTIME), &weights(GTCRN)).unwrap();
    let (mut worst, mut loudest) = (0f32, 0f32);
    for ((sound, ours), slot) in sounds.iter().zip(&ours).zip(slots) {
        let theirs = Reference::new(&mut session).clean(sound, slot % 8 * 32);
        for (ours, theirs) in ours[GTCRN_DELAY..].iter().zip(theirs) {
            worst = worst.max((ours - theirs).abs());
            loudest = loudest.max(theirs.abs());
        }
    }
    println!("{} frames, {}: samples differ by {worst:e} at most, the loudest is {loudest}", CALLS * SECONDS * 1_000 / 16, gtcrn.instruction_set());
    assert!(worst < 1e-4, "differs by {worst}");
    assert!(loudest > 0.1, "there must be something to compare: {loudest}");
}

#[test]
fn pauses_grow_quieter_and_the_voice_stays() {
    for band in [Band::Telephone, Band::Wide] {
        let (pauses_db, voice_db) = change_db(&mut gtcrn_for(band));
        println!("{band:?}: pauses {pauses_db:.1} dB, voice {voice_db:.1} dB");
        assert!(pauses_db < -12.0, "{band:?} changes pauses by {pauses_db} dB");
        assert!(voice_db > -3.0, "{band:?} changes the voice by {voice_db} dB");
    }
}

#[test]
fn clean_speech_comes_out_as_it_went_in_30_ms_later() {
    for band in [Band::Telephone, Band::Wide] {
        let mut engine = gtcrn_for(band);
        let sound: Vec<f32> = (0..6 * 16_000).map(|n| made_up(0, n)).collect();
        let mut cleaned = Vec::new();
        for frame in sound.as_chunks().0 {
            let mut frames = [*frame];
            engine.run(&[0], &mut frames);
            cleaned.extend(frames[0]);
        }
        // the first pause tells the control that the line is clean
        let after = 2 * 16_000;
        let worst = cleaned[after + GTCRN_DELAY..].iter().zip(&sound[after..]).fold(0f32, |worst, (out, sound)| worst.max((out - sound).abs()));
        println!("{band:?}: clean samples differ by {worst:e} at most");
        assert!(worst < 1e-5, "{band:?}: {worst}");
    }
}

#[test]
fn calls_that_join_and_leave_never_disturb_a_neighbour() {
    let (mut alone, mut together) = (gtcrn(40), gtcrn(40));
    let sounds: Vec<Vec<f32>> = (0..40).map(|call| sound(call, 16_000)).collect();
    for tick in 0..100 {
        let here: Vec<usize> = (0..40).filter(|call| *call == 21 || (tick / 7 + call) % 5 > 1).collect();
        let mut frames: Vec<HeardFrame> = here.iter().map(|call| sounds[*call].as_chunks().0[tick]).collect();
        let mut one = [sounds[21].as_chunks().0[tick]];
        alone.run(&[21], &mut one);
        together.run(&here, &mut frames);
        let place = here.iter().position(|call| *call == 21).unwrap();
        assert_eq!(one[0].map(f32::to_bits), frames[place].map(f32::to_bits), "tick {tick}");
        together.reset(tick % 20, Band::Wide);
    }
}

#[test]
fn a_slot_that_was_reset_hears_as_a_new_one() {
    let (mut used, mut new) = (gtcrn(1), gtcrn(1));
    let sound = sound(3, 3 * 16_000);
    let frames = sound.as_chunks().0;
    for frame in &frames[..100] {
        used.run(&[0], &mut [*frame]);
    }
    used.reset(0, Band::Wide);
    for frame in &frames[100..200] {
        let (mut a, mut b) = ([*frame], [*frame]);
        used.run(&[0], &mut a);
        new.run(&[0], &mut b);
        assert_eq!(a, b);
    }
}

#[test]
fn sound_that_is_no_number_is_forgotten() {
    let mut gtcrn = gtcrn(1);
    gtcrn.run(&[0], &mut [[f32::NAN; HEARD_LEN]]);
    let mut frames = [[0.0; HEARD_LEN]];
    for _ in 0..20 {
        frames = [[0.1; HEARD_LEN]];
        gtcrn.run(&[0], &mut frames);
    }
    assert!(frames[0].iter().all(|sample| sample.is_finite()));
}

#[test]
fn auto_is_telephony_for_a_telephone_and_standard_for_a_room() {
    let auto = DenoiseKind::parse("auto").unwrap();
    assert_eq!([auto.band(Rate::Hz8000), auto.band(Rate::Hz48000)], [Some(Band::Telephone), Some(Band::Wide)]);
    assert_eq!(DenoiseKind::parse("standard").unwrap().band(Rate::Hz8000), Some(Band::Wide), "who names it gets it");
    assert_eq!(DenoiseKind::parse("none").unwrap().band(Rate::Hz8000), None);
    assert_eq!(DenoiseKind::parse("krisp"), None);
}

#[test]
fn neither_run_nor_reset_allocates() {
    let mut noise = Noise(5);
    let mut gtcrn = gtcrn(4);
    for _ in 0..16 {
        let mut frames: [HeardFrame; 4] = std::array::from_fn(|_| std::array::from_fn(|_| noise.next()));
        assert_no_alloc(|| gtcrn.run(&[0, 1, 2, 3], &mut frames));
    }
    assert_no_alloc(|| gtcrn.reset(2, Band::Telephone));
}

/// Change of level in dB in the pauses and in the voice, over the last half of 12 s of a voice in steady noise.
fn change_db(denoise: &mut dyn Denoise) -> (f32, f32) {
    const FRAMES: usize = 1_200;
    let mut noise = Noise(9);
    let (mut before, mut after) = ([0f32; 2], [0f32; 2]);
    for frame in 0..FRAMES {
        let voiced = frame % 150 >= 75;
        let mut frames = [std::array::from_fn(|n| {
            let seconds = (frame * HEARD_LEN + n) as f32 / 16_000.0;
            4.0 * noise.next() + if voiced { voice(seconds) } else { 0.0 }
        })];
        // some frames after each change are left out: the engines delay by up to 30 ms and look back
        let counted = frame > FRAMES / 2 && frame % 75 > 10;
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

/// A recording where `VOICED_RECORDINGS` names a folder with some, else a made-up voice; either with noise.
fn sound(call: usize, len: usize) -> Vec<f32> {
    let mut noise = Noise(call as u32);
    let recording = recordings().get(call).map(recording);
    let clean = |n: usize| match &recording {
        Some(recording) => recording[n % recording.len()],
        None => made_up(call, n),
    };
    (0..len).map(|n| clean(n) + (call % 4) as f32 * noise.next()).collect()
}

/// A voice with a pause in each second and a half.
fn made_up(call: usize, n: usize) -> f32 {
    if n % 24_000 < 14_000 { voice((n + 5_000 * call) as f32 / 16_000.0) } else { 0.0 }
}

fn recordings() -> Vec<PathBuf> {
    let Some(folder) = std::env::var_os("VOICED_RECORDINGS") else {
        println!("no VOICED_RECORDINGS: made-up voices instead of recordings");
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "wav"));
    paths.sort();
    paths
}

/// 16-bit, its first channel; the rate is taken as it is.
fn recording(path: &PathBuf) -> Vec<f32> {
    let mut wav = hound::WavReader::open(path).unwrap();
    let channels = usize::from(wav.spec().channels);
    wav.samples::<i16>().step_by(channels).map(|sample| f32::from(sample.unwrap()) / 32_768.0).collect()
}

fn weights(name: &str) -> PathBuf {
    Weights::at(Weights::default_dir()).path(name).unwrap_or_else(|error| panic!("{error}"))
}

fn gtcrn(slots: usize) -> Gtcrn {
    Gtcrn::load(&weights(GTCRN), slots).unwrap()
}

/// For one call whose line carries this band.
fn gtcrn_for(band: Band) -> Gtcrn {
    let mut gtcrn = gtcrn(1);
    gtcrn.reset(0, band);
    gtcrn
}

/// The same network in ONNX Runtime, with the transforms that it was trained with.
struct Reference<'a> {
    session: &'a mut Session,
    caches: [Vec<f32>; 3],
}

impl<'a> Reference<'a> {
    fn new(session: &'a mut Session) -> Self {
        Self { session, caches: [2 * 16 * 16 * 33, 2 * 3 * 16, 2 * 33 * 16].map(|len| vec![0.0; len]) }
    }

    /// Frames begin `phase` samples and a hop before the sound.
    fn clean(&mut self, sound: &[f32], phase: usize) -> Vec<f32> {
        let window: Vec<f32> = (0..512).map(|n| (PI * n as f32 / 512.0).sin()).collect();
        let mut planner = RealFftPlanner::<f32>::new();
        let (forward, backward) = (planner.plan_fft_forward(512), planner.plan_fft_inverse(512));
        let padded: Vec<f32> = std::iter::repeat_n(0.0, 256 + phase).chain(sound.iter().copied()).collect();
        let mut cleaned = VecDeque::from(vec![0.0; padded.len()]);
        for start in (0..padded.len() - 511).step_by(256) {
            let mut frame: Vec<f32> = padded[start..start + 512].iter().zip(&window).map(|(sample, window)| sample * window).collect();
            let mut spectrum = forward.make_output_vec();
            forward.process(&mut frame, &mut spectrum).unwrap();
            self.mask(&mut spectrum);
            (spectrum[0].im, spectrum[256].im) = (0.0, 0.0);
            backward.process(&mut spectrum, &mut frame).unwrap();
            for (n, sample) in frame.iter().enumerate() {
                cleaned[start + n] += sample * window[n] / 512.0;
            }
        }
        cleaned.drain(..256 + phase);
        cleaned.truncate(sound.len() - 511);
        cleaned.into()
    }

    fn mask(&mut self, spectrum: &mut [Complex<f32>]) {
        let mix: Vec<f32> = spectrum.iter().flat_map(|bin| [bin.re, bin.im]).collect();
        let mix = TensorRef::from_array_view(([1usize, 257, 1, 2], mix.as_slice())).unwrap();
        let [conv, attention, inter] = &self.caches;
        let conv = TensorRef::from_array_view(([2usize, 1, 16, 16, 33], conv.as_slice())).unwrap();
        let attention = TensorRef::from_array_view(([2usize, 3, 1, 1, 16], attention.as_slice())).unwrap();
        let inter = TensorRef::from_array_view(([2usize, 1, 33, 16], inter.as_slice())).unwrap();
        let outputs = self.session.run(ort::inputs!["mix" => mix, "conv_cache" => conv, "tra_cache" => attention, "inter_cache" => inter]).unwrap();
        let values = |name: &str| outputs[name].try_extract_tensor::<f32>().unwrap().1.to_vec();
        let (cleaned, caches) = (values("enh"), ["conv_cache_out", "tra_cache_out", "inter_cache_out"].map(values));
        drop(outputs);
        self.caches = caches;
        for (bin, cleaned) in spectrum.iter_mut().zip(cleaned.as_chunks::<2>().0) {
            *bin = Complex::new(cleaned[0], cleaned[1]);
        }
    }
}
