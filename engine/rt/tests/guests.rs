//! Guests of a call: who hears whom, at which level, and for how long.

mod phone;

use phone::{BySlot, Caller, Exchange};
use voiced_core::codec::mulaw_from_sample;
use voiced_core::codec::opus::OpusEncoder;
use voiced_core::codec::sample_from_mulaw;
use voiced_core::frame::Rate;
use voiced_core::id::GuestId;
use voiced_core::leg::{Command, LegEvent, LegSettings};
use voiced_core::line::ToLine;
use voiced_core::packet::{Codec, Packet};
use voiced_rt::{GUESTS_MAX, GuestPort, JoinError, PortSettings};

/// A tone's frequency in Hz tells who speaks.
const SUPERVISOR_HZ: f32 = 700.0;
/// His room is not silent, 46 dB below full scale: only that he sends nothing tells that he is.
const NOISE: f32 = 0.008;
const SUPERVISOR: GuestId = GuestId(7);

#[test]
fn a_guest_is_heard_by_the_caller_while_the_agent_is_silent_and_no_longer_than_he_speaks() {
    let mut call = Call::open(Codec::Opus);
    call.route(true, false);
    call.run(100, Some(0.0));
    call.line(SUPERVISOR_HZ);
    call.run(100, Some(0.3));
    let heard = call.line(SUPERVISOR_HZ);
    assert!(heard.loudness > 0.1, "{heard:?}");
    assert!((40..=51).contains(&heard.packets), "in real time: {heard:?}");
    call.run(100, None);
    let tail = call.line(SUPERVISOR_HZ);
    assert!(tail.packets <= 30, "{tail:?}");
    call.run(100, None);
    assert_eq!(call.line(SUPERVISOR_HZ).packets, 0);
}

#[test]
fn a_guest_is_heard_over_the_agent_and_is_not_in_the_agents_own_sound() {
    let mut call = Call::open(Codec::Mulaw);
    call.route(true, false);
    call.agent_speaks();
    call.run(60, Some(0.3));
    let heard = call.line(SUPERVISOR_HZ);
    assert!(heard.loudness > 0.1, "{heard:?}");
    assert!(heard.packets >= 25, "{heard:?}");
    let agent = call.agent(SUPERVISOR_HZ);
    assert!(agent.packets >= 20, "in real time: {agent:?}");
    assert!(agent.level > 500.0 && agent.loudness < 0.01, "{agent:?}");
}

#[test]
fn what_a_clear_took_back_was_never_in_the_agents_own_sound_and_guests_go_on_at_once() {
    let mut call = Call::open(Codec::Mulaw);
    call.route(true, false);
    call.agent_speaks();
    call.run(16, Some(0.3));
    call.line(SUPERVISOR_HZ);
    call.interrupt = true;
    call.run(40, Some(0.3));
    assert!(call.cleared);
    let heard = call.line(SUPERVISOR_HZ);
    assert!(heard.loudness > 0.1 && heard.packets >= 19, "{heard:?}");
    let agent = call.agent(SUPERVISOR_HZ);
    assert!((5..=15).contains(&agent.packets), "some 200 ms of it were played: {agent:?}");
}

#[test]
fn a_guest_whom_the_agent_hears_makes_a_turn() {
    let mut call = Call::open(Codec::Opus);
    call.route(false, true);
    call.run(60, Some(0.3));
    call.run(100, None);
    assert!(call.events.iter().any(|event| matches!(event, LegEvent::TurnEnded { by_agent: false, .. })), "{:?}", call.events);
    let line = call.line(SUPERVISOR_HZ);
    assert!(line.packets > 0 && line.loudness < 0.01, "the caller hears the agent's answer and not the guest: {line:?}");
}

#[test]
fn a_guest_whom_nobody_is_to_hear_is_not_heard() {
    let mut call = Call::open(Codec::Opus);
    call.run(100, Some(0.3));
    assert_eq!(call.line(SUPERVISOR_HZ).packets, 0);
    assert!(call.events.is_empty(), "{:?}", call.events);
}

#[test]
fn a_guest_who_leaves_is_silent_and_makes_room_for_another() {
    let mut call = Call::open(Codec::Opus);
    let others: Vec<_> = (1..GUESTS_MAX as u32).map(|id| call.caller.port.join(GuestId(id), Codec::Mulaw).unwrap()).collect();
    assert!(matches!(call.caller.port.join(GuestId(99), Codec::Opus), Err(JoinError::Full)));
    call.route(true, false);
    call.run(50, Some(0.3));
    assert!(call.line(SUPERVISOR_HZ).packets > 0);
    call.caller.command(Command::GuestLeft(SUPERVISOR));
    call.run(10, Some(0.3));
    call.line(SUPERVISOR_HZ);
    call.run(50, Some(0.3));
    assert_eq!(call.line(SUPERVISOR_HZ).packets, 0);
    let fifth = call.caller.port.join(GuestId(99), Codec::Opus).unwrap();
    drop((others, fifth));
    call.run(2, None);
    for id in 0..GUESTS_MAX as u32 {
        assert!(call.caller.port.join(GuestId(id), Codec::Mulaw).is_ok(), "those whose port was dropped have left, too");
    }
}

#[test]
fn four_loud_guests_stay_within_full_scale() {
    let mut call = Call::open(Codec::Mulaw);
    let mut voices = vec![Voice::new(Codec::Mulaw)];
    let mut ports = Vec::new();
    for id in 1..GUESTS_MAX as u32 {
        ports.push(call.caller.port.join(GuestId(id), Codec::Mulaw).unwrap());
        call.caller.command(Command::Guest { id: GuestId(id), to_caller: true, to_agent: true });
        voices.push(Voice::new(Codec::Mulaw));
    }
    call.route(true, true);
    for _ in 0..50 {
        for (port, voice) in std::iter::once(&mut call.guest).chain(&mut ports).zip(&mut voices) {
            port.packets.push(&voice.packet(Some(0.9))).unwrap();
        }
        call.run(2, None);
    }
    let heard = call.line(SUPERVISOR_HZ);
    // a sine that wrapped or was cut flat is no longer one: four in step bend to a rounder shape at full scale
    assert!(heard.level > 25_000.0 && heard.loudness > 0.9, "{heard:?}");
    let (loudest, _) = call.caller.heard();
    assert!(loudest < i16::MAX, "{loudest}");
}

/// A telephone call with one guest.
struct Call {
    exchange: Exchange,
    caller: Caller,
    guest: GuestPort,
    voice: Voice,
    now: u64,
    line: Vec<Packet>,
    events: Vec<LegEvent>,
    interrupt: bool,
    cleared: bool,
}

impl Call {
    fn open(guest: Codec) -> Self {
        let (mut exchange, _judge) = Exchange::open(1, BySlot(vec![0.9]));
        let leg = LegSettings { agent_alone: true, ..LegSettings::new(Rate::Hz8000) };
        let mut caller = Caller::new(exchange.link.admit(PortSettings { leg, ear: true, direct: false }).unwrap());
        let port = caller.port.join(SUPERVISOR, guest).unwrap();
        exchange.tick();
        let (line, events) = (Vec::new(), Vec::new());
        Self { exchange, caller, guest: port, voice: Voice::new(guest), now: 0, line, events, interrupt: false, cleared: false }
    }

    fn route(&mut self, to_caller: bool, to_agent: bool) {
        self.caller.command(Command::Guest { id: SUPERVISOR, to_caller, to_agent });
    }

    fn agent_speaks(&mut self) {
        self.caller.command(Command::TakeFloor);
    }

    /// Runs ticks in which the guest is this loud, or sends nothing.
    fn run(&mut self, ticks: u64, loud: Option<f32>) {
        for _ in 0..ticks {
            if self.now.is_multiple_of(2) {
                if loud.is_some() {
                    let _ = self.guest.packets.push(&self.voice.packet(loud));
                }
                self.caller.send(self.interrupt);
            }
            self.exchange.tick();
            self.now += 1;
            while let Some(event) = self.caller.next_event() {
                self.events.push(event);
            }
            self.caller.push_speech();
            while let Some(item) = self.caller.port.outgoing.pop() {
                match item {
                    ToLine::Audio(packet) => self.line.push(packet),
                    ToLine::Mark(number) => self.caller.command(Command::Mark(number)),
                    ToLine::Clear => self.cleared = true,
                    ToLine::HangUp => {}
                }
            }
        }
    }

    /// What the caller was sent since the last time.
    fn line(&mut self, hz: f32) -> Sound {
        Sound::of(&std::mem::take(&mut self.line), hz)
    }

    /// What the room was sent.
    fn agent(&mut self, hz: f32) -> Sound {
        let agent = self.caller.port.agent.as_mut().unwrap();
        Sound::of(&std::iter::from_fn(|| agent.pop()).collect::<Vec<_>>(), hz)
    }
}

/// A tone in packets.
struct Voice {
    codec: Codec,
    opus: OpusEncoder,
    sequence: u32,
}

impl Voice {
    fn new(codec: Codec) -> Self {
        Self { codec, opus: OpusEncoder::new().unwrap(), sequence: 0 }
    }

    fn packet(&mut self, loud: Option<f32>) -> Packet {
        let rate = self.codec.rate().hz() as usize;
        let len = rate / 50;
        let at = self.sequence as usize * len;
        let tone = |n: usize| {
            NOISE * ((n * 7_919 % 127) as f32 / 64.0 - 1.0)
                + loud.unwrap_or(0.0) * (std::f32::consts::TAU * SUPERVISOR_HZ * (at + n) as f32 / rate as f32).sin()
        };
        let sound: Vec<i16> = (0..len).map(|n| (tone(n) * 32_767.0) as i16).collect();
        let mut bytes = [0; 640];
        let len = match self.codec {
            Codec::Opus => self.opus.encode(&sound, &mut bytes),
            Codec::Mulaw => {
                bytes.iter_mut().zip(&sound).for_each(|(byte, &sample)| *byte = mulaw_from_sample(sample));
                sound.len()
            }
        };
        self.sequence += 1;
        Packet::new(self.codec, self.sequence, self.sequence * 20, &bytes[..len]).unwrap()
    }
}

/// What packets of mu-law hold.
#[derive(Debug)]
struct Sound {
    packets: usize,
    /// Loudest sample.
    level: f32,
    /// Amplitude of one tone, full scale 1, over all packets.
    loudness: f32,
}

impl Sound {
    fn of(packets: &[Packet], hz: f32) -> Self {
        let sound: Vec<f32> = packets.iter().flat_map(|packet| packet.payload().iter().map(|&byte| f32::from(sample_from_mulaw(byte)))).collect();
        // a packet at a time, so that a tone which paused between packets is still itself
        let amplitude = |packet: &[f32]| {
            let angle = |n: usize| std::f32::consts::TAU * hz * n as f32 / 8_000.0;
            let re: f32 = packet.iter().enumerate().map(|(n, s)| s * angle(n).cos()).sum();
            let im: f32 = packet.iter().enumerate().map(|(n, s)| s * angle(n).sin()).sum();
            re.hypot(im) * 2.0 / packet.len() as f32 / 32_768.0
        };
        let loudness = sound.chunks(160).map(amplitude).sum::<f32>() / packets.len().max(1) as f32;
        Self { packets: packets.len(), level: sound.iter().fold(0.0, |level, s| level.max(s.abs())), loudness }
    }
}
