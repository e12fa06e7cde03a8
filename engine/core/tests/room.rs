//! A room's sound, from outside: Opus over a network that loses, delays and reorders, and the agent's way back into it.

#[path = "room/network.rs"]
mod network;
#[path = "room/spectrum.rs"]
mod spectrum;

use network::{Arrival, Network, packets, voice};
use spectrum::log_spectral_distance;
use voiced_core::call::{Leg, OpusGear};
use voiced_core::codec::opus::{OpusDecoder, OpusEncoder};
use voiced_core::frame::{HEARD_LEN, Rate};
use voiced_core::hear::HearCounters;
use voiced_core::hear::opus::OpusEar;
use voiced_core::hear::order::{Next, Order};
use voiced_core::hear::stretch::{lengthen, shorten};
use voiced_core::id::TurnId;
use voiced_core::leg::{ChunkEnd, Command, HeardUntil, LegSettings, SpeechChunk};
use voiced_core::line::ToLine;
use voiced_core::packet::{Codec, Packet};
use voiced_core::speak::{Playout, PlayoutEvent};
use voiced_core::time::MediaTime;

// --- hearing

/// What an ear made of packets.
struct Heard {
    sound: Vec<f32>,
    counters: HearCounters,
    /// Greatest waiting sound after the first pause, in ms.
    waiting_ms: u32,
    /// Target at the end.
    target_ms: u32,
}

fn hear(arrivals: &[Arrival], ms: u64) -> Heard {
    let mut ear = OpusEar::new().unwrap();
    let mut arrivals = arrivals.iter().peekable();
    let mut heard = Heard { sound: Vec::new(), counters: HearCounters::default(), waiting_ms: 0, target_ms: 0 };
    for now in (0..ms).step_by(10) {
        while let Some(arrival) = arrivals.next_if(|arrival| arrival.at_ms <= now) {
            ear.receive(&arrival.packet);
        }
        let mut frame = [f32::NAN; HEARD_LEN];
        ear.tick(&mut frame);
        assert!(frame.iter().all(|sample| sample.abs() <= 1.5), "each tick gives a whole frame, at {now}");
        heard.sound.extend_from_slice(&frame);
        if now >= 2_000 {
            heard.waiting_ms = heard.waiting_ms.max(ear.waiting_ms());
        }
    }
    heard.counters = ear.counters();
    heard.target_ms = heard.counters.target_ms;
    heard
}

#[test]
fn a_steady_sender_is_heard_without_a_seam_and_within_20_ms() {
    let heard = hear(&Network::STEADY.carry(&packets(10_000)), 10_000);
    let HearCounters { received, late, lost, concealed_frames, .. } = heard.counters;
    assert_eq!((received, late, lost, concealed_frames), (500, 0, 0, 0));
    assert_eq!(heard.target_ms, 0);
    assert!(heard.waiting_ms <= 20, "{} ms", heard.waiting_ms);
}

#[test]
fn loss_is_rebuilt_from_the_packet_after_it_and_the_delay_stays_small() {
    for loss in [5, 10, 20] {
        let sent = packets(20_000);
        let network = Network { loss_percent: loss, seed: loss, ..Network::STEADY };
        let heard = hear(&network.carry(&sent), 20_000);
        let counters = heard.counters;
        // the last ones had not come to their moment
        assert!((998..=1_000).contains(&(counters.received + counters.lost)), "{loss} %: {counters:?}");
        assert_eq!(counters.late, 0);
        assert!(counters.recovered * 10 >= counters.lost * 7, "{loss} %: {counters:?}");
        assert!(heard.waiting_ms <= 80 && heard.target_ms <= 40, "{loss} %: {} of {} ms", heard.waiting_ms, heard.target_ms);
    }
}

#[test]
fn what_is_rebuilt_sounds_more_like_the_original_than_what_is_made_up() {
    let network = Network { loss_percent: 10, seed: 7, ..Network::STEADY };
    // each against its own encoder's sound without loss
    let compare = |sent: &[Packet]| {
        let (clean, lossy) = (hear(&Network::STEADY.carry(sent), 10_000), hear(&network.carry(sent), 10_000));
        (log_spectral_distance(&clean.sound, &lossy.sound), lossy.counters.lost)
    };
    let (with_fec, lost) = compare(&packets(10_000));
    let (without, lost_without) = compare(&network::packets_without_fec(10_000));
    assert_eq!(lost, lost_without);
    println!("log-spectral distance at 10 % loss: {with_fec:.2} dB with FEC, {without:.2} dB without");
    assert!(with_fec < 0.75 * without, "{with_fec} {without}");
    // and what a leg sends where RED is not taken is rebuilt as well
    let ours = |encoder: OpusEncoder| compare(&network::packets_of(encoder, 10_000)).0;
    let (with_fec, without) = (ours(OpusEncoder::with_fec().unwrap()), ours(OpusEncoder::new().unwrap()));
    println!("of our own encoder: {with_fec:.2} dB with FEC, {without:.2} dB without");
    assert!(with_fec < 0.75 * without, "{with_fec} {without}");
}

#[test]
fn reorder_costs_delay_but_no_sound() {
    let network = Network { jitter_ms: 30, seed: 3, ..Network::STEADY };
    let heard = hear(&network.carry(&packets(20_000)), 20_000);
    let counters = heard.counters;
    assert!(counters.late + counters.lost <= 20, "{counters:?}");
    assert!((30..=60).contains(&heard.target_ms), "{}", heard.target_ms);
    assert!(heard.waiting_ms <= 120, "{}", heard.waiting_ms);
}

#[test]
fn a_burst_after_a_stall_is_caught_up_and_the_target_comes_back() {
    let mut arrivals = Network::STEADY.carry(&packets(30_000));
    for arrival in &mut arrivals {
        if (5_000..5_240).contains(&arrival.at_ms) {
            arrival.at_ms = 5_240;
        }
    }
    let before = hear(&arrivals, 8_000);
    let heard = hear(&arrivals, 30_000);
    assert!(before.waiting_ms <= 400);
    assert_eq!(heard.target_ms, 0, "the stall is forgotten");
    assert_eq!(heard.counters.dropped_ms, 0);
    assert!(heard.counters.skipped_ms >= 150, "{:?}", heard.counters);
}

#[test]
fn clocks_that_drift_apart_do_not_move_the_delay() {
    for ppm in [-200, 200] {
        let network = Network { drift_ppm: ppm, ..Network::STEADY };
        let heard = hear(&network.carry(&packets(120_000)), 119_000);
        let counters = heard.counters;
        assert!(heard.waiting_ms <= 80, "{ppm} ppm: {} ms", heard.waiting_ms);
        assert!(counters.concealed_frames <= 6 && counters.lost == 0 && counters.dropped_ms == 0, "{ppm} ppm: {counters:?}");
    }
}

#[test]
fn a_silent_sender_loses_nothing_and_each_of_its_spurts_waits_the_target_only() {
    // 1 s of speech in every 3 s; nothing is sent between: the sequence goes on, the timestamp jumps
    let mut sent = packets(30_000);
    sent.retain(|packet| packet.timestamp_ms % 3_000 < 1_000);
    for (sequence, packet) in sent.iter_mut().enumerate() {
        *packet = Packet::new(Codec::Opus, sequence as u32, packet.timestamp_ms, packet.payload()).unwrap();
    }
    let heard = hear(&Network::STEADY.carry(&sent), 30_000);
    let counters = heard.counters;
    assert_eq!((counters.lost, counters.late, counters.recovered), (0, 0, 0), "{counters:?}");
    assert!(counters.concealed_frames <= 10 * 13, "{counters:?}");
    assert!(heard.waiting_ms <= 60, "{}", heard.waiting_ms);
}

#[test]
fn a_packet_that_is_no_opus_or_came_twice_changes_nothing() {
    let plain = Network::STEADY.carry(&packets(4_000));
    let mut wild = plain.clone();
    for index in (10..150).rev() {
        let Arrival { at_ms, packet } = plain[index];
        wild.insert(index, Arrival { at_ms, packet });
        let junk = Packet::new(Codec::Mulaw, packet.sequence, packet.timestamp_ms, &[1, 2, 3]).unwrap();
        wild.insert(index, Arrival { at_ms, packet: junk });
    }
    let (one, two) = (hear(&plain, 4_000), hear(&wild, 4_000));
    assert!(one.sound == two.sound);
    assert_eq!((two.counters.duplicate, two.counters.foreign), (140, 140));
}

#[test]
fn the_order_decides_without_a_decoder() {
    let sent = packets(400);
    let mut order = Order::new();
    let mut counters = HearCounters::default();
    // the third is lost
    for packet in sent.iter().take(6).filter(|packet| packet.sequence != 2) {
        order.insert(packet, i64::from(packet.timestamp_ms), &mut counters);
    }
    assert!(matches!(order.next(0, &mut counters), Next::Rest(_)), "the first waits for the target");
    let mut told = Vec::new();
    for _ in 0..6 {
        told.push(match order.next(200, &mut counters) {
            Next::Play { packet, skip: 0 } => packet.sequence as i32,
            Next::Rebuild { packet, len: 320, skip: 0 } => -(packet.sequence as i32),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(told, [0, 1, -3, 3, 4, 5]);
    assert_eq!((counters.lost, counters.recovered), (1, 1));
}

#[test]
fn a_voice_made_shorter_or_longer_by_its_periods_has_no_seam() {
    // 125 Hz: 128 samples a period
    let voice: Vec<f32> = (0..1_200).map(|n| (std::f32::consts::TAU * n as f32 / 128.0).sin()).collect();
    let alike = |sound: &[f32]| sound.iter().zip(&voice).all(|(a, b)| (a - b).abs() < 0.02);
    let mut shorter = voice[..640].to_vec();
    let removed = shorten(&mut shorter, 160);
    assert_eq!(removed, 128);
    assert!(alike(&shorter[..640 - removed]));
    let mut longer = voice[..640].to_vec();
    longer.resize(900, 0.0);
    let added = lengthen(&mut longer, 640);
    assert_eq!(added, 128);
    assert!(alike(&longer[..640 + added]));
    assert_eq!((shorten(&mut longer[..100], 160), lengthen(&mut longer, 900)), (0, 0), "too little sound, or room");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_comes_each_tick_gives_a_bounded_frame(
        wild in proptest::collection::vec((0..3_000u64, proptest::prelude::any::<u32>(), proptest::prelude::any::<u32>(),
            proptest::collection::vec(proptest::prelude::any::<u8>(), 1..80), 0..4u8), 0..150)
    ) {
        let tame = packets(3_000);
        let mut arrivals: Vec<Arrival> = wild.into_iter().map(|(at_ms, sequence, timestamp, bytes, kind)| {
            let near = &tame[at_ms as usize / 20];
            let packet = match kind {
                0 => Packet::new(Codec::Opus, sequence, timestamp, &bytes).unwrap(),
                1 => Packet::new(Codec::Opus, near.sequence, near.timestamp_ms, &bytes).unwrap(),
                2 => Packet::new(Codec::Opus, near.sequence, timestamp, near.payload()).unwrap(),
                _ => *near,
            };
            Arrival { at_ms, packet }
        }).collect();
        arrivals.sort_by_key(|arrival| arrival.at_ms);
        let mut ear = OpusEar::new().unwrap();
        let mut arrivals = arrivals.iter().peekable();
        for now in (0..3_500).step_by(10) {
            while let Some(arrival) = arrivals.next_if(|arrival| arrival.at_ms <= now) {
                ear.receive(&arrival.packet);
            }
            let mut frame = [f32::NAN; HEARD_LEN];
            ear.tick(&mut frame);
            proptest::prop_assert!(frame.iter().all(|sample| sample.is_finite() && sample.abs() < 4.0));
            proptest::prop_assert!(ear.waiting_ms() <= 700, "{}", ear.waiting_ms());
        }
    }
}

// --- speaking

const TURN: TurnId = TurnId(1);

/// A room's line with an agent who speaks for `ms`, by tick.
struct Room {
    playout: Playout,
    now: u64,
    sent: Vec<(u64, Packet)>,
    events: Vec<(u64, PlayoutEvent)>,
    echo_marks: bool,
}

impl Room {
    fn speaking(ms: usize) -> Self {
        let mut playout = Playout::new();
        playout.reset(Codec::Opus, 20);
        playout.lend(Playout::room_memory());
        playout.set_far_end_ms(60);
        *playout.sender_mut().encoder_mut().opus_mut() = Some(OpusEncoder::new().unwrap());
        let sound: Vec<i16> = voice().take(ms * 48).map(|sample| (sample * 32_767.0) as i16).collect();
        for chunk in sound.chunks(960) {
            playout.push(&SpeechChunk::new(TURN, 0, ChunkEnd::Nothing, chunk));
        }
        playout.push(&SpeechChunk::new(TURN, 0, ChunkEnd::Reply, &[]));
        assert!(playout.start(TURN));
        Self { playout, now: 0, sent: Vec::new(), events: Vec::new(), echo_marks: true }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            let (now, mut marks) = (self.now, Vec::new());
            let mut line = |item| match item {
                ToLine::Audio(packet) => self.sent.push((now, packet)),
                ToLine::Mark(number) => marks.push(number),
                ToLine::Clear | ToLine::HangUp => {}
            };
            self.playout.tick(MediaTime(now), &mut line, &mut |event| self.events.push((now, event)));
            if self.echo_marks {
                for &number in &marks {
                    self.playout.mark(number, MediaTime(now));
                }
            }
            self.now += 10;
        }
    }
}

#[test]
fn a_room_is_sent_its_sound_in_real_time_then_a_short_tail_and_then_nothing() {
    let mut room = Room::speaking(1_000);
    room.run(3_000);
    assert_eq!(room.sent.len(), 52, "50 packets of speech and two of silence");
    for (index, (at, packet)) in room.sent.iter().enumerate() {
        let due = index as u64 * 20;
        assert_eq!((packet.sequence, packet.timestamp_ms, packet.codec), (index as u32, due as u32, Codec::Opus));
        assert!((due.saturating_sub(20)..=due).contains(at), "packet {index} at {at} ms");
    }
}

#[test]
fn what_the_room_was_sent_can_be_decoded_and_is_the_agents_voice() {
    let mut room = Room::speaking(2_000);
    room.run(3_000);
    let mut decoder = OpusDecoder::new().unwrap();
    let mut sound = Vec::new();
    for (_, packet) in &room.sent {
        let mut decoded = [0.0; 1_920];
        let len = decoder.decode(packet.payload(), &mut decoded);
        sound.extend_from_slice(&decoded[..len]);
    }
    assert_eq!(sound.len(), 102 * 320);
    let power = |sound: &[f32]| sound.iter().map(|s| s * s).sum::<f32>() / sound.len() as f32;
    assert!(power(&sound[3_200..30_000]) > 1e-3);
    assert!(power(&sound[101 * 320..]) < 1e-6, "and ends in silence");
}

#[test]
fn a_rooms_reply_is_heard_the_far_ends_delay_after_it_was_sent() {
    for echo_marks in [true, false] {
        let mut room = Room::speaking(1_000);
        room.echo_marks = echo_marks;
        room.run(520);
        let heard = room.playout.heard_until();
        assert!((420..=460).contains(&heard.phrase_ms), "{heard:?}");
        room.run(1_000);
        let heard = room.events.iter().find(|(_, event)| matches!(event, PlayoutEvent::ReplyHeard { .. })).unwrap().0;
        assert!((1_050..=1_070).contains(&heard), "{heard}");
    }
}

#[test]
fn a_clear_takes_nothing_back_from_a_room_and_time_there_never_runs_back() {
    let mut room = Room::speaking(2_000);
    room.run(510);
    assert!(room.playout.hold(MediaTime(room.now), &mut |_| {}));
    let sent = room.sent.len() as u32 * 20;
    assert_eq!(room.playout.heard_until(), HeardUntil { phrase: 0, phrase_ms: sent });
    room.playout.resume();
    room.run(2_500);
    assert_eq!(room.sent.len(), 102);
    assert!(room.sent.is_sorted_by(|a, b| a.1.timestamp_ms + 20 <= b.1.timestamp_ms));
}

#[test]
fn a_leg_in_a_room_hears_opus_and_gives_back_what_it_was_lent() {
    let settings = LegSettings { agent_alone: true, ..LegSettings::new(Rate::Hz48000) };
    let mut leg = Leg::new();
    leg.admit(settings);
    leg.equip(OpusGear::of(&settings).unwrap().unwrap());
    let mut loudest: f32 = 0.0;
    for arrival in Network::STEADY.carry(&packets(1_000)) {
        leg.receive(&arrival.packet);
        for tick in 0..2 {
            let mut heard = [0.0; HEARD_LEN];
            leg.hear(MediaTime(arrival.at_ms + 10 * tick), &mut heard);
            loudest = heard.iter().fold(loudest, |loudest, sample| loudest.max(sample.abs()));
        }
    }
    assert!(loudest > 0.1, "{loudest}");
    assert_eq!(leg.counters().received, 50);
    assert!(leg.strip().is_some());
    assert!(leg.strip().is_none());
    assert!(OpusGear::of(&LegSettings::new(Rate::Hz8000)).unwrap().is_none());
}

#[test]
fn a_leg_sends_what_in_band_fec_needs_where_it_is_told_to_and_the_low_delay_mode_else() {
    for in_band_fec in [true, false] {
        let settings = LegSettings { in_band_fec, ..LegSettings::new(Rate::Hz48000) };
        let mut leg = Leg::new();
        leg.admit(settings);
        leg.equip(OpusGear::of(&settings).unwrap().unwrap());
        leg.command(Command::TakeFloor);
        let sound: Vec<i16> = voice().take(48_000).map(|sample| (sample * 32_767.0) as i16).collect();
        let (mut chunks, mut sent) = (sound.chunks(960), Vec::new());
        for now in (0..1_000).step_by(10).map(MediaTime) {
            leg.hear(now, &mut [0.0; HEARD_LEN]);
            leg.listen(now, None, None, &mut |_| {});
            if now.ms() % 20 == 10 {
                chunks.next().into_iter().for_each(|chunk| leg.speech(&SpeechChunk::new(TURN, 0, ChunkEnd::Nothing, chunk)));
            }
            leg.speak(now, &mut |item| sent.extend(if let ToLine::Audio(packet) = item { Some(packet) } else { None }), &mut |_| {});
        }
        // RFC 6716, 3.1: configurations below 16 are SILK and hybrid, which alone have FEC
        let with_silk = sent.iter().filter(|packet| packet.payload()[0] >> 3 < 16).count();
        assert!(sent.len() > 40 && with_silk == if in_band_fec { sent.len() } else { 0 }, "{with_silk} of {}", sent.len());
    }
}
