//! Callers at the rim's end of a worker, and models whose answers a test can foresee.
#![allow(dead_code)] // each test binary uses its part

use voiced_core::codec::mulaw_from_sample;
use voiced_core::codec::opus::{ENCODED_LEN, OpusEncoder};
use voiced_core::frame::{HeardFrame, Rate};
use voiced_core::id::TurnId;
use voiced_core::leg::{ChunkEnd, Command, LegEvent, LegSettings, SpeechChunk, TextEnding, TranscriptHint};
use voiced_core::line::ToLine;
use voiced_core::model::{TurnFeatures, TurnJudge, TurnQuery, VAD_WINDOW, VoiceActivity};
use voiced_core::packet::{Codec, PACKET_BYTES_MAX, Packet};
use voiced_core::time::Tick;
use voiced_rt::{CallPort, Judge, PortSettings, ThreadModels, Worker, WorkerLink};

/// What the transcript says of every turn: words, and not whether they are all, so that the model is asked.
pub const WORDS: Command = Command::Hint(TranscriptHint { words: 3, backchannel: false, ending: TextEnding::Unmarked, settled: true });
/// Bytes of 20 ms of mu-law.
const PACKET_LEN: usize = 160;
/// Chunks of 20 ms in an agent's reply.
pub const REPLY_CHUNKS: u32 = 25;

/// A worker with its clock.
pub struct Exchange {
    pub worker: Worker,
    pub link: WorkerLink,
    now: u64,
}

impl Exchange {
    pub fn open(limit: usize, judge: impl TurnJudge + 'static) -> (Self, Judge) {
        let models = ThreadModels { denoise: None, vad: Box::new(Energy), end_of_turn: Some((Box::new(SlotNumber), Box::new(judge))) };
        let (worker, link, judge) = Worker::new(limit, models);
        (Self { worker, link, now: 0 }, judge)
    }

    pub fn try_admit(&mut self) -> Option<Caller> {
        let settings = PortSettings { leg: LegSettings::new(Rate::Hz8000), ear: true, direct: false };
        self.link.admit(settings).map(Caller::new)
    }

    /// A caller in a room, whose agent's sound goes out alone, too.
    pub fn try_admit_to_room(&mut self) -> Option<Caller> {
        let leg = LegSettings { agent_alone: true, ..LegSettings::new(Rate::Hz48000) };
        let caller = Caller::new(self.link.admit(PortSettings { leg, ear: true, direct: false })?);
        Some(Caller { room: Some(opus_packets()), ..caller })
    }

    pub fn admit(&mut self) -> Caller {
        self.try_admit().expect("a place is free")
    }

    pub fn tick(&mut self) {
        self.worker.run_once(Tick(self.now));
        self.now += 1;
    }

    /// Between this tick and the next.
    pub fn begin_replies(&mut self) {
        self.worker.begin_replies(Tick(self.now - 1));
    }
}

/// One caller, the agent who answers, and the line between them.
pub struct Caller {
    pub port: CallPort,
    sequence: u32,
    noise: u32,
    reply: Option<(TurnId, u32)>,
    /// What a caller in a room says: silence, and noise.
    room: Option<[Vec<u8>; 2]>,
}

impl Caller {
    pub fn new(port: CallPort) -> Self {
        Self { port, sequence: 0, noise: 1, reply: None, room: None }
    }

    /// Sends 20 ms; false when the ring has no room.
    pub fn send(&mut self, loud: bool) -> bool {
        let packet = self.packet(loud);
        self.port.packets.push(&packet).is_ok()
    }

    /// The next 20 ms of noise or silence.
    pub fn packet(&mut self, loud: bool) -> Packet {
        let (codec, bytes) = match &self.room {
            Some(packets) => (Codec::Opus, packets[usize::from(loud)].clone()),
            None => (Codec::Mulaw, (0..PACKET_LEN).map(|_| mulaw_from_sample(if loud { self.next_noise() } else { 0 })).collect()),
        };
        self.next_packet(codec, &bytes)
    }

    /// The next 20 ms of a telephone, 29 dB below the loudest noise: [`Energy`] does not take it for speech.
    pub fn faint_packet(&mut self) -> Packet {
        let sound: [u8; PACKET_LEN] = std::array::from_fn(|n| mulaw_from_sample([280, -280][n / 8 % 2]));
        self.next_packet(Codec::Mulaw, &sound)
    }

    pub fn command(&mut self, command: Command) {
        self.port.commands.push(command).expect("commands are taken at each tick");
    }

    /// Takes the next event; the agent takes note.
    pub fn next_event(&mut self) -> Option<LegEvent> {
        let event = self.port.events.pop().ok()?;
        match event {
            LegEvent::Paused { .. } => self.command(WORDS),
            LegEvent::TurnEnded { turn, .. } => self.reply = Some((turn, 0)),
            LegEvent::Interrupted { .. } => self.reply = None,
            _ => {}
        }
        Some(event)
    }

    /// The agent speaks as far as there is room; the far end echoes marks. Returns the packets that went to the line.
    pub fn let_agent_speak(&mut self) -> usize {
        self.push_speech();
        let mut sent = 0;
        while let Some(item) = self.port.outgoing.pop() {
            match item {
                ToLine::Audio(_) => sent += 1,
                ToLine::Mark(number) => self.command(Command::Mark(number)),
                ToLine::Clear | ToLine::HangUp => {}
            }
        }
        sent
    }

    /// The agent speaks as far as there is room.
    pub fn push_speech(&mut self) {
        while let Some((turn, chunks)) = self.reply
            && self.port.speech.has_room()
        {
            let over = chunks == REPLY_CHUNKS;
            let end = if over { ChunkEnd::Reply } else { ChunkEnd::Nothing };
            let len = if self.room.is_some() { ENCODED_LEN } else { PACKET_LEN };
            let sound = &[1_000; ENCODED_LEN][..len];
            let _ = self.port.speech.push(&SpeechChunk::new(turn, 0, end, if over { &[] } else { sound }));
            self.reply = (!over).then_some((turn, chunks + 1));
        }
    }

    /// Loudest sample of what the leg heard since the last time, and how many frames that was.
    pub fn heard(&mut self) -> (i16, usize) {
        let (mut loudest, mut frames) = (0, 0);
        let ear = self.port.ear.as_mut().expect("the call was admitted with an ear");
        while let Ok(frame) = ear.pop() {
            loudest = frame.samples.iter().map(|sample| sample.saturating_abs()).fold(loudest, i16::max);
            frames += 1;
        }
        (loudest, frames)
    }

    fn next_packet(&mut self, codec: Codec, bytes: &[u8]) -> Packet {
        self.sequence += 1;
        Packet::new(codec, self.sequence, self.sequence * 20, bytes).expect("the payload fits")
    }

    fn next_noise(&mut self) -> i16 {
        self.noise = self.noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.noise >> 18) as i16 - 8_192
    }
}

/// A packet of silence and one of noise.
fn opus_packets() -> [Vec<u8>; 2] {
    let mut encoder = OpusEncoder::new().expect("libopus has memory");
    [0, 8_000].map(|level| {
        let sound: [i16; ENCODED_LEN] = std::array::from_fn(|n| level * [1, -1][n / 37 % 2]);
        let mut bytes = [0; PACKET_BYTES_MAX];
        let len = encoder.encode(&sound, &mut bytes);
        bytes[..len].to_vec()
    })
}

/// Voice activity: whatever is loud is speech.
pub struct Energy;

impl VoiceActivity for Energy {
    fn run(&mut self, _: &[usize], windows: &[[f32; VAD_WINDOW]], probabilities: &mut [f32]) {
        for (window, probability) in windows.iter().zip(probabilities) {
            let power = window.iter().map(|sample| sample * sample).sum::<f32>() / VAD_WINDOW as f32;
            *probability = if power > 1e-4 { 0.95 } else { 0.02 };
        }
    }

    fn reset(&mut self, _: usize) {}
}

/// End-of-turn features that tell no more than whose they are.
struct SlotNumber;

impl TurnFeatures for SlotNumber {
    fn push(&mut self, _: usize, _: &HeardFrame) {}

    fn query(&mut self, slot: usize, _: usize, query: &mut TurnQuery) {
        query.features[0] = slot as f32;
    }

    fn reset(&mut self, _: usize) {}
}

/// A judge with one answer for each slot.
pub struct BySlot(pub Vec<f32>);

impl TurnJudge for BySlot {
    fn judge(&mut self, query: &TurnQuery) -> f32 {
        self.0[query.features[0] as usize]
    }
}
