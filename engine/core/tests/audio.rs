//! Codec, resampling, hearing, tones and mixing, from outside.

use proptest::prelude::*;
use std::f64::consts::TAU;
use voiced_core::codec::{mulaw_from_sample, sample_from_mulaw};
use voiced_core::frame::{HEARD_LEN, Rate};
use voiced_core::hear::Hear;
use voiced_core::mix;
use voiced_core::packet::{Codec, Packet};
use voiced_core::resample::Resampler;
use voiced_core::tone::{Beep, DtmfDetector};

// --- codec

#[test]
fn every_mulaw_byte_survives_decoding_and_encoding() {
    for byte in 0..=255u8 {
        // the negative zero is the one byte without a sample of its own
        let expected = if byte == 0x7F { 0xFF } else { byte };
        assert_eq!(mulaw_from_sample(sample_from_mulaw(byte)), expected, "byte {byte:#x}");
    }
}

#[test]
fn mulaw_treats_both_halves_of_the_scale_alike_as_itu_does() {
    for sample in 0..=i16::MAX {
        assert_eq!(mulaw_from_sample(!sample), mulaw_from_sample(sample) & 0x7F, "sample {sample}");
    }
    // the values of ITU-T G.191 where common tables differ
    for (sample, byte) in [(-1, 0x7F), (-4, 0x7F), (-5, 0x7E), (0, 0xFF), (4, 0xFE), (i16::MAX, 0x80), (i16::MIN, 0x00)] {
        assert_eq!(mulaw_from_sample(sample), byte, "sample {sample}");
    }
}

// --- resampling

const PAIRS: [(u32, u32); 8] =
    [(8_000, 16_000), (16_000, 8_000), (16_000, 48_000), (48_000, 8_000), (24_000, 8_000), (24_000, 48_000), (22_050, 8_000), (22_050, 48_000)];

fn sine(hz: f64, rate: u32, len: usize) -> Vec<f32> {
    (0..len).map(|n| (0.5 * (TAU * hz * n as f64 / f64::from(rate)).sin()) as f32).collect()
}

fn resample(from: u32, to: u32, sound: &[f32]) -> Vec<f32> {
    let mut resampler = Resampler::new(from, to);
    let mut out = vec![0.0; resampler.output_len_max(sound.len())];
    let len = resampler.process(sound, &mut out);
    out.truncate(len);
    out
}

fn db(power: f64) -> f64 {
    10.0 * power.max(1e-30).log10()
}

/// Power of `sound`, and of what is left of it without the tone of `hz`.
fn with_and_without_tone(sound: &[f32], hz: f64, rate: u32) -> (f64, f64) {
    let angle = |n: usize| TAU * hz * n as f64 / f64::from(rate);
    let project =
        |wave: fn(f64) -> f64| -> f64 { sound.iter().enumerate().map(|(n, &s)| f64::from(s) * wave(angle(n))).sum::<f64>() * 2.0 / sound.len() as f64 };
    let (a, b) = (project(f64::sin), project(f64::cos));
    let rest = |(n, &s): (usize, &f32)| (f64::from(s) - a * angle(n).sin() - b * angle(n).cos()).powi(2);
    let power = |sum: f64| sum / sound.len() as f64;
    (power(sound.iter().map(|&s| f64::from(s).powi(2)).sum()), power(sound.iter().enumerate().map(rest).sum()))
}

#[test]
fn a_sine_survives_the_way_to_16_khz_and_back() {
    for hz in [400.0, 1_000.0, 3_200.0] {
        let there = resample(8_000, 16_000, &sine(hz, 8_000, 16_000));
        let back = resample(16_000, 8_000, &there);
        let (power, rest) = with_and_without_tone(&back[800..8_800], hz, 8_000);
        assert!(db(power) - db(0.125) > -0.5, "{hz} Hz lost {} dB", db(power) - db(0.125));
        assert!(db(power) - db(rest) > 60.0, "{hz} Hz: only {} dB above the rest", db(power) - db(rest));
    }
}

#[test]
fn what_the_lower_rate_cannot_hold_is_60_db_down() {
    for (from, to) in PAIRS {
        let nyquist = f64::from(from.min(to)) / 2.0;
        for share in [1.01, 1.2, 1.7, 2.3, 2.9] {
            let hz = nyquist * share;
            if hz < f64::from(from) / 2.0 {
                let out = resample(from, to, &sine(hz, from, from as usize));
                let power = with_and_without_tone(&out[500..out.len() / 2], hz, to).0;
                assert!(db(power) - db(0.125) < -60.0, "{from} to {to}, {hz} Hz: {} dB", db(power) - db(0.125));
            }
        }
        if to > from {
            let hz = nyquist * 0.8;
            let out = resample(from, to, &sine(hz, from, from as usize));
            // whole periods: 500 ms
            let (power, rest) = with_and_without_tone(&out[1_000..1_000 + to as usize / 2], hz, to);
            assert!(db(power) - db(rest) > 60.0, "{from} to {to}: images at {} dB", db(rest) - db(power));
        }
    }
}

#[test]
fn the_stated_delay_is_the_true_one_and_small() {
    for (from, to) in PAIRS {
        let mut click = vec![0.0; from as usize / 10];
        click[0] = 1.0;
        let out = resample(from, to, &click);
        let peak = (0..out.len()).max_by(|&a, &b| out[a].total_cmp(&out[b])).unwrap();
        let delay_ms = Resampler::new(from, to).delay_ms();
        let peak_ms = peak as f64 * 1_000.0 / f64::from(to);
        assert!((peak_ms - delay_ms).abs() <= 500.0 / f64::from(to.min(from)) + 1e-9, "{from} to {to}: {peak_ms} {delay_ms}");
        assert!(delay_ms < 3.5, "{from} to {to}: {delay_ms}");
    }
}

#[test]
fn sixteen_bit_sound_keeps_its_length_and_its_end() {
    let mut resampler = Resampler::new(22_050, 8_000);
    let sound: Vec<i16> = sine(440.0, 22_050, 22_050).iter().map(|s| (s * 32_767.0) as i16).collect();
    let mut out = Vec::new();
    resampler.process_i16(&sound, &mut out);
    resampler.finish_i16(&mut out);
    assert!((8_000..8_040).contains(&out.len()), "{}", out.len());
    assert!(out[7_900..8_000].iter().any(|s| s.abs() > 10_000), "the last words are there");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn sound_is_continuous_however_it_is_cut(pair in 0..PAIRS.len(), cuts in prop::collection::vec(0..700usize, 1..20)) {
        let (from, to) = PAIRS[pair];
        let sound = sine(700.0, from, cuts.iter().sum());
        let whole = resample(from, to, &sound);
        let mut resampler = Resampler::new(from, to);
        let mut pieces = Vec::new();
        let mut at = 0;
        for cut in cuts {
            let mut out = vec![0.0; resampler.output_len_max(cut)];
            let len = resampler.process(&sound[at..at + cut], &mut out);
            pieces.extend_from_slice(&out[..len]);
            at += cut;
        }
        prop_assert_eq!(pieces, whole);
    }
}

// --- hearing

const PACKET: usize = 160;

/// The caller's n-th 20 ms packet.
fn packet(n: u32, sound: impl Fn(usize) -> f32) -> Packet {
    let bytes: Vec<u8> = (0..PACKET).map(|i| mulaw_from_sample((sound(n as usize * PACKET + i) * 32_767.0) as i16)).collect();
    Packet::new(Codec::Mulaw, n, n * 20, &bytes).unwrap()
}

fn voice(n: usize) -> f32 {
    let t = n as f32 / 8_000.0;
    (1..8).map(|k| (std::f32::consts::TAU * 140.0 * k as f32 * t).sin() / k as f32).sum::<f32>() * 0.2
}

fn hush(_: usize) -> f32 {
    0.0
}

/// Plays packets that arrive at given ms into an ear and returns what it heard.
fn hear(ear: &mut Hear, arrivals: &[(u64, Packet)], ms: u64) -> Vec<f32> {
    let mut arrivals = arrivals.iter().peekable();
    let mut heard = Vec::new();
    for now in (0..ms).step_by(10) {
        while let Some((_, packet)) = arrivals.next_if(|(at, _)| *at <= now) {
            ear.receive(packet);
        }
        let mut frame = [f32::NAN; HEARD_LEN];
        ear.tick(&mut frame);
        assert!(frame.iter().all(|sample| sample.abs() <= 1.5), "each tick gives a whole frame");
        heard.extend_from_slice(&frame);
    }
    heard
}

fn steady(packets: u32) -> Vec<(u64, Packet)> {
    (0..packets).map(|n| (u64::from(n) * 20, packet(n, voice))).collect()
}

#[test]
fn a_steady_caller_is_heard_at_once_and_unchanged() {
    let mut ear = Hear::new();
    let heard = hear(&mut ear, &steady(100), 2_000);
    let counters = ear.counters();
    assert_eq!((counters.received, counters.concealed_frames, counters.lost, counters.skipped_ms), (100, 0, 0, 0));
    let said: Vec<f32> = (0..16_000).map(|n| f32::from(sample_from_mulaw(mulaw_from_sample((voice(n) * 32_767.0) as i16))) / 32_768.0).collect();
    assert_eq!(heard, resample(8_000, 16_000, &said));
    assert!(ear.waiting_ms() <= 20);
}

#[test]
fn duplicates_and_swapped_neighbours_change_nothing() {
    let plain: Vec<_> = steady(50).into_iter().map(|(at, packet)| (at.saturating_sub(40), packet)).collect();
    let mut mixed: Vec<(u64, Packet)> = plain.iter().flat_map(|p| [*p, *p]).collect();
    let times: Vec<u64> = mixed.iter().map(|(at, _)| *at).collect();
    for pair in mixed[8..].chunks_mut(4).step_by(3) {
        pair.rotate_left(2 % pair.len());
    }
    for (arrival, at) in mixed.iter_mut().zip(times) {
        arrival.0 = at;
    }
    let (mut one, mut two) = (Hear::new(), Hear::new());
    assert_eq!(hear(&mut one, &plain, 960), hear(&mut two, &mixed, 960));
    assert_eq!(two.counters().duplicate, 50);
    assert_eq!(two.counters().lost + two.counters().late, 0);
}

#[test]
fn a_lost_packet_costs_its_own_length_only() {
    let mut arrivals = steady(100);
    arrivals.remove(50);
    let mut ear = Hear::new();
    let heard = hear(&mut ear, &arrivals, 2_000);
    assert_eq!(ear.counters().lost, 1);
    assert_eq!(ear.counters().concealed_frames, 2);
    let whole = hear(&mut Hear::new(), &steady(100), 2_000);
    let from = 16 * 1_060;
    assert_eq!(heard[from..], whole[from..], "what follows is in its place");
    let hole = &heard[16 * 1_006..16 * 1_016];
    let power = hole.iter().map(|s| s * s).sum::<f32>() / hole.len() as f32;
    assert!(power > 0.003, "the voice goes on through the hole: {power}");
}

#[test]
fn a_packet_after_its_moment_is_late_and_changes_nothing() {
    let mut arrivals = steady(60);
    let late = arrivals.remove(20).1;
    let (mut one, mut two) = (Hear::new(), Hear::new());
    let without = hear(&mut one, &arrivals, 1_200);
    arrivals.insert(30, (620, late));
    assert_eq!(hear(&mut two, &arrivals, 1_200), without);
    assert_eq!(two.counters().late, 1);
}

#[test]
fn a_stalled_line_fades_and_its_burst_is_caught_up_in_the_next_pause() {
    // speech to 1 s, the socket hangs from 0.5 to 0.8 s, then a pause
    let arrivals: Vec<(u64, Packet)> = (0..250)
        .map(|n| {
            let at = u64::from(n) * 20;
            let said = if n < 50 { packet(n, voice) } else { packet(n, hush) };
            (if (500..800).contains(&at) { 800 } else { at }, said)
        })
        .collect();
    let mut ear = Hear::new();
    let heard = hear(&mut ear, &arrivals[..50], 1_000);
    assert_eq!(ear.waiting_ms(), 300, "nothing is thrown away while the caller speaks");
    let quiet = &heard[16 * 600..16 * 780];
    assert!(quiet.iter().all(|s| s.abs() < 0.01), "the repeated voice has faded out");
    let rest: Vec<_> = arrivals[50..].iter().map(|(at, packet)| (at - 1_000, *packet)).collect();
    hear(&mut ear, &rest, 4_000);
    assert!(ear.waiting_ms() <= 50, "{} ms", ear.waiting_ms());
    assert_eq!(ear.counters().dropped_ms, 0);
}

#[test]
fn more_than_can_wait_drops_the_oldest() {
    let arrivals: Vec<_> = (0..100).map(|n| (0, packet(n, voice))).collect();
    let mut ear = Hear::new();
    hear(&mut ear, &arrivals, 10);
    assert!((380..=400).contains(&ear.waiting_ms()));
    assert_eq!(ear.counters().dropped_ms, 1_600);
}

#[test]
fn a_sender_that_paused_its_stream_is_heard_at_once_again() {
    let mut arrivals = steady(20);
    arrivals.extend((100..120).map(|n| (u64::from(n) * 20, Packet::new(Codec::Mulaw, n - 80, n * 20, packet(n, voice).payload()).unwrap())));
    let mut ear = Hear::new();
    hear(&mut ear, &arrivals, 2_400);
    assert!(ear.waiting_ms() <= 20);
    assert_eq!((ear.counters().lost, ear.counters().late, ear.counters().concealed_frames), (0, 0, 160));
}

#[test]
fn ten_minutes_of_clock_drift_leave_the_delay_small() {
    for ppm in [-200i64, 200] {
        let arrivals: Vec<(u64, Packet)> = (0..30_000u32)
            .map(|n| {
                let at = i64::from(n) * 20 - i64::from(n) * 20 * ppm / 1_000_000;
                (at as u64, if n / 100 % 2 == 0 { packet(n, voice) } else { packet(n, hush) })
            })
            .collect();
        let mut ear = Hear::new();
        hear(&mut ear, &arrivals, 599_000);
        let counters = ear.counters();
        assert!(ear.waiting_ms() <= 60, "{ppm} ppm: {} ms", ear.waiting_ms());
        assert!(counters.concealed_frames <= 20, "{ppm} ppm: {counters:?}");
        assert_eq!((counters.dropped_ms, counters.lost, counters.late), (0, 0, 0), "{ppm} ppm");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_comes_there_is_one_bounded_frame_per_tick(
        wild in prop::collection::vec((0..3_000u64, any::<u32>(), any::<u32>(), 1..=320usize, any::<bool>()), 0..200)
    ) {
        let mut arrivals: Vec<(u64, Packet)> = wild
            .into_iter()
            .map(|(at, sequence, timestamp, len, tame)| {
                let (sequence, timestamp) = if tame { (at as u32 / 20, at as u32) } else { (sequence, timestamp) };
                (at, Packet::new(Codec::Mulaw, sequence, timestamp, &vec![0x20; len]).unwrap())
            })
            .collect();
        arrivals.sort_by_key(|(at, _)| *at);
        let mut ear = Hear::new();
        hear(&mut ear, &arrivals, 3_000);
        prop_assert!(ear.waiting_ms() <= 440);
    }
}

// --- tones

fn keys_in(sound: &[f32]) -> String {
    let mut detector = DtmfDetector::new();
    sound.as_chunks::<HEARD_LEN>().0.iter().filter_map(|frame| detector.push(frame)).collect()
}

fn key_tone(key: char, ms: usize, detune: f64) -> Vec<f32> {
    let place = "123A456B789C*0#D".find(key).unwrap();
    let low = [697.0, 770.0, 852.0, 941.0][place / 4] * detune;
    let high = [1_209.0, 1_336.0, 1_477.0, 1_633.0][place % 4] * detune;
    sine(low, 16_000, ms * 16).iter().zip(sine(high, 16_000, ms * 16)).map(|(a, b)| (a + b) * 0.3).collect()
}

#[test]
fn each_key_of_40_ms_is_told_once_wherever_it_begins() {
    for offset in [0, 37, 80, 119, 150] {
        for detune in [0.985, 1.0, 1.015] {
            let mut sound = vec![0.0; offset];
            for key in "123A456B789C*0#D5511".chars() {
                sound.extend(key_tone(key, 40, detune));
                sound.extend(vec![0.0; 40 * 16]);
            }
            assert_eq!(keys_in(&sound), "123A456B789C*0#D5511", "offset {offset}, detuned {detune}");
        }
    }
}

#[test]
fn a_long_press_is_one_key_and_a_short_click_none() {
    let mut sound = key_tone('7', 900, 1.0);
    sound.extend(vec![0.0; 1_600]);
    sound.extend(key_tone('8', 18, 1.0));
    sound.extend(vec![0.0; 1_600]);
    assert_eq!(keys_in(&sound), "7");
}

#[test]
fn a_voice_and_a_single_tone_are_no_keys() {
    let gliding: Vec<f32> = (0..160_000)
        .scan(0.0f32, |phase, n| {
            *phase += std::f32::consts::TAU * (90.0 + n as f32 / 640.0) / 16_000.0;
            Some((1..12).map(|k| (*phase * k as f32).sin() / k as f32).sum::<f32>() * 0.2)
        })
        .collect();
    assert_eq!(keys_in(&gliding), "");
    assert_eq!(keys_in(&sine(1_336.0, 16_000, 16_000)), "");
}

#[test]
fn a_key_is_told_over_a_lossy_and_noisy_line() {
    let mut seed = 1_u32;
    let mut sound = Vec::new();
    for (low, high) in [(0.4, 0.18), (0.2, 0.3)] {
        sound.extend(sine(770.0, 16_000, 60 * 16).iter().zip(sine(1_336.0, 16_000, 60 * 16)).map(|(a, b)| a * low + b * high));
        sound.extend(vec![0.0; 60 * 16]);
    }
    for sample in &mut sound {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *sample += (seed as f32 / u32::MAX as f32 - 0.5) * 0.1; // 15 dB below the key
    }
    assert_eq!(keys_in(&sound), "55");
}

#[test]
fn tones_off_their_frequency_or_beside_other_sound_are_no_keys() {
    for detune in [0.965, 1.035] {
        let keys = "123A456B789C*0#D".chars().flat_map(|key| [key_tone(key, 100, detune), vec![0.0; 640]].concat());
        assert_eq!(keys_in(&keys.collect::<Vec<f32>>()), "", "detuned {detune}");
    }
    let beside: Vec<f32> = key_tone('5', 400, 1.0).iter().zip(sine(330.0, 16_000, 6_400)).map(|(key, voice)| key + voice * 0.2).collect();
    assert_eq!(keys_in(&beside), "");
}

#[test]
fn a_beep_has_its_length_and_no_hard_edges() {
    let mut beep = Beep::new(Rate::Hz8000, 1_000.0, 100);
    let mut sound = [0; 1_000];
    let len = beep.write(&mut sound);
    assert_eq!((len, beep.write(&mut sound[len..])), (800, 0));
    assert!(sound[0].abs() < 300 && sound[799].abs() < 300);
    assert!(sound[300..500].iter().any(|s| s.abs() > 7_500));
}

// --- mixing

#[test]
fn two_loud_speakers_stay_within_full_scale_and_one_alone_is_untouched() {
    let one = sine(440.0, 16_000, 160);
    let mut sum = vec![0.0; 160];
    mix::mix_into(&mut sum, &one);
    mix::limit(&mut sum);
    assert_eq!(sum, one);
    for _ in 0..8 {
        mix::mix_into(&mut sum, &one);
    }
    mix::limit(&mut sum);
    assert!(sum.iter().all(|sample| sample.abs() < 1.0));
}

#[test]
fn a_listener_does_not_hear_himself() {
    let (a, b) = (sine(300.0, 16_000, 160), sine(500.0, 16_000, 160));
    let mut sum = a.clone();
    mix::mix_into(&mut sum, &b);
    mix::unmix(&mut sum, &a);
    assert!(sum.iter().zip(&b).all(|(left, b)| (left - b).abs() < 1e-6));
}
