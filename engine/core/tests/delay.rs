//! What an ear and a sender add to the way of a sound through a room: from a packet's arrival to the one made of it.

#[path = "room/network.rs"]
#[allow(dead_code)] // shared with the other tests of rooms
mod network;

use network::{Arrival, Network};
use voiced_core::codec::opus::{ENCODED_LEN, OpusDecoder, OpusEncoder};
use voiced_core::frame::HEARD_LEN;
use voiced_core::hear::HearCounters;
use voiced_core::hear::opus::OpusEar;
use voiced_core::line::ToLine;
use voiced_core::packet::{Codec, Packet};
use voiced_core::speak::Playout;
use voiced_core::time::MediaTime;

/// Beeps begin so far apart, in ms, with a hum between them: nobody pauses.
const APART_MS: usize = 500;
const BEEP_MS: usize = 40;
/// A packet at the mouth, and what an encoder looks ahead: there without an ear and a second encoder, too.
const WITHOUT_MS: f64 = 26.5;

#[test]
fn a_clean_network_costs_a_guests_voice_little_wherever_packets_fall_between_ticks() {
    for phase_ms in [0, 1, 5, 9] {
        let (delays, counters) = echo(&delayed(phase_ms), 20_000);
        // the first seconds are the network's trial
        let worst = delays[8..].iter().copied().fold(0.0, f64::max) - WITHOUT_MS;
        println!("packets {phase_ms} ms after a tick: {worst:.1} ms added");
        assert!(worst <= 35.0, "{worst} ms at {phase_ms}: {counters:?}");
        assert!(delays.len() >= 38 && counters.target_ms == 0, "{} of 39: {counters:?}", delays.len());
        assert_eq!((counters.concealed_frames, counters.late, counters.lost), (0, 0, 0), "{counters:?}");
    }
}

#[test]
fn the_first_late_or_lost_packet_brings_a_clean_network_a_packets_delay_until_it_was_calm_for_seconds() {
    let mut late = delayed(5);
    late[400].at_ms += 20;
    let mut lossy = delayed(5);
    lossy.remove(400);
    for arrivals in [late, lossy] {
        let target_ms = |until_ms| echo(&arrivals, until_ms).1.target_ms;
        assert_eq!([target_ms(8_000), target_ms(8_100), target_ms(12_000), target_ms(20_000)], [0, 20, 20, 0]);
    }
}

fn delayed(ms: u64) -> Vec<Arrival> {
    let mut arrivals = Network::STEADY.carry(&packets(&said(20_000)));
    for arrival in &mut arrivals {
        arrival.at_ms += ms + 20;
    }
    arrivals
}

/// Beeps of 1 kHz above a low hum, at 48 kHz.
fn said(ms: usize) -> Vec<i16> {
    let sine = |n: usize, hz: f32| (std::f32::consts::TAU * hz * n as f32 / 48_000.0).sin();
    let sample = |n: usize| if n / 48 % APART_MS < BEEP_MS { 15_000.0 * sine(n, 1_000.0) } else { 2_000.0 * sine(n, 150.0) };
    (0..ms * 48).map(|n| sample(n) as i16).collect()
}

fn packets(sound: &[i16]) -> Vec<Packet> {
    let mut encoder = OpusEncoder::new().unwrap();
    let packet = |(n, sound): (usize, &[i16])| {
        let mut bytes = [0; 640];
        let len = encoder.encode(sound, &mut bytes);
        Packet::new(Codec::Opus, n as u32, n as u32 * 20, &bytes[..len]).unwrap()
    };
    sound.chunks_exact(ENCODED_LEN).enumerate().map(packet).collect()
}

/// From each beep's beginning at the mouth to when it can be played at the ear of one who hears us, in ms.
fn echo(arrivals: &[Arrival], until_ms: u64) -> (Vec<f64>, HearCounters) {
    let mut ear = OpusEar::new().unwrap();
    let mut playout = Playout::new();
    playout.reset(Codec::Opus, 20);
    playout.lend(Playout::room_memory());
    *playout.sender_mut().encoder_mut().opus_mut() = Some(OpusEncoder::new().unwrap());
    let mut arrivals = arrivals.iter().peekable();
    let mut sent: Vec<(u64, Packet)> = Vec::new();
    for now in (0..until_ms).step_by(10) {
        while let Some(arrival) = arrivals.next_if(|arrival| arrival.at_ms <= now) {
            ear.receive(&arrival.packet);
        }
        let mut frame = [0.0; HEARD_LEN];
        ear.tick(&mut frame);
        playout.guests(Some(&frame));
        let mut line = |item| {
            if let ToLine::Audio(packet) = item {
                sent.push((now, packet));
            }
        };
        playout.tick(MediaTime(now), &mut line, &mut |_| {});
    }
    (beeps(&sent).into_iter().map(|at_ms| at_ms % APART_MS as f64).collect(), ear.counters())
}

/// When each beep could be played, in ms.
fn beeps(sent: &[(u64, Packet)]) -> Vec<f64> {
    let mut decoder = OpusDecoder::new().unwrap();
    let (mut beeps, mut loud_until) = (Vec::new(), f64::MIN);
    for (at_ms, packet) in sent {
        let mut sound = [0.0; 1_920];
        let len = decoder.decode(packet.payload(), &mut sound);
        for (n, _) in sound[..len].iter().enumerate().filter(|(_, sample)| sample.abs() > 0.2) {
            let at_ms = *at_ms as f64 + n as f64 / 16.0;
            if at_ms > loud_until + 100.0 {
                beeps.push(at_ms);
            }
            loud_until = at_ms;
        }
    }
    beeps
}
