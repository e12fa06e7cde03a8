//! temporary probe
use voiced_core::{codec::*, resample::Resampler};
use voiced_models_local::stt::SAMPLE_RATE;
use voiced_models_local::tts::Piper;
use voiced_models_local::weights::{ONNX_RUNTIME, PIPER_VOICE, Weights};
fn core(x: &[f32], a: usize, b: usize) -> Vec<f32> {
    let mut r = Resampler::new(a as u32, b as u32);
    let mut x = x.to_vec();
    x.resize(x.len() + a / 50, 0.0);
    let mut o = vec![0.0; r.output_len_max(x.len())];
    let n = r.process(&x, &mut o);
    o.truncate(n);
    o
}
fn save(n: &str, x: &[f32]) {
    let mut w =
        hound::WavWriter::create(n, hound::WavSpec { channels: 1, sample_rate: 16000, bits_per_sample: 16, sample_format: hound::SampleFormat::Int }).unwrap();
    for v in x {
        w.write_sample(sample_from_f32(*v)).unwrap();
    }
}
#[test]
fn probe() {
    for i in 0..12 {
        let (s, r) = spoken("The kitchen sink is leaking.");
        let r = r as usize;
        save(&format!("/tmp/probe/nearlin{i}.wav"), &resampled(&s, r, SAMPLE_RATE));
        save(&format!("/tmp/probe/nearcore{i}.wav"), &core(&s, r, SAMPLE_RATE));
        let p: Vec<f32> = resampled(&s, r, 8000).into_iter().map(over_mu_law).collect();
        save(&format!("/tmp/probe/phonelin{i}.wav"), &resampled(&p, 8000, SAMPLE_RATE));
        let p: Vec<f32> = core(&s, r, 8000).into_iter().map(|v| f32_from_sample(sample_from_mulaw(mulaw_from_sample(sample_from_f32(v))))).collect();
        save(&format!("/tmp/probe/phonecore{i}.wav"), &core(&p, 8000, SAMPLE_RATE));
    }
}
fn spoken(text: &str) -> (Vec<f32>, u32) {
    let weights = Weights::at(Weights::default_dir());
    let file = |name: &str| weights.path(name).expect("the weights are fetched");
    let mut voice = Piper::load(&file(ONNX_RUNTIME), &file(PIPER_VOICE), &file(&format!("{PIPER_VOICE}.json"))).expect("the voice loads");
    let mut sound = Vec::new();
    let rate_hz = voice.synthesize(text, &mut sound).expect("plain text is spoken");
    (sound.into_iter().map(|sample| f32::from(sample) / 32_768.0).collect(), rate_hz)
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
