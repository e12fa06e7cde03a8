//! The whole tick as the daemon runs it: real models, one audio thread, a judge beside it, callers who talk and are
//! answered, and 10 ms between ticks, so that caches are as cold as they are in service. Prints one table.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use voiced_benches::Speech;
use voiced_core::codec::opus::{ENCODED_LEN, OpusEncoder};
use voiced_core::codec::{mulaw_from_sample, sample_from_f32};
use voiced_core::id::TurnId;
use voiced_core::leg::{ChunkEnd, Command, LegEvent, LegSettings, SpeechChunk, TextEnding, TranscriptHint};
use voiced_core::line::ToLine;
use voiced_core::model::Band;
use voiced_core::packet::{Codec, PACKET_BYTES_MAX, Packet};
use voiced_core::time::{TICK_MS, Tick};
use voiced_models_local::denoise::Gtcrn;
use voiced_models_local::end_of_turn::{SmartTurn, SmartTurnFeatures};
use voiced_models_local::vad::Silero;
use voiced_models_local::weights::{GTCRN, SILERO_VAD, SMART_TURN, Weights};
use voiced_rt::{CallPort, PortSettings, ThreadModels, Worker};

/// Rows of the table: calls, whether they are cleaned, and their codec.
const ROWS: [(usize, bool, Codec); 9] = [
    (1, false, Codec::Mulaw),
    (8, false, Codec::Mulaw),
    (32, false, Codec::Mulaw),
    (32, true, Codec::Mulaw),
    (32, false, Codec::Opus),
    (128, false, Codec::Mulaw),
    (128, true, Codec::Mulaw),
    (128, false, Codec::Opus),
    (512, false, Codec::Mulaw),
];
/// Ticks that count, 30 s: three beyond p99.9.
const TICKS: u64 = 3_000;
/// Ticks before them, in which callers come one by one: windows of voice activity must not all end in one tick.
const WARM_UP: u64 = 600;
/// Share of the tick that p99.9 may take: the rest is for the system's own lateness.
const BUDGET: f64 = 0.7;
/// Bytes of 20 ms of mu-law; packets in one round of talk and pause, and chunks in a reply.
const PACKET_LEN: usize = 160;
const ROUND_PACKETS: usize = 100;
const REPLY_CHUNKS: u32 = 25;
/// One period of the agent's voice: a codec must have something to do.
const HUM: [i16; 8] = [0, 2_500, 6_000, 2_000, 500, -2_000, -5_000, -3_000];

fn main() -> Result<(), Box<dyn Error>> {
    eprintln!("{} rows of {} s each", ROWS.len(), (TICKS + WARM_UP) * TICK_MS / 1_000);
    println!("\none audio thread, µs a tick (of 10 000); a core's calls are those at which p99.9 takes {:.0} % of a tick\n", BUDGET * 100.0);
    println!("calls  codec  denoise     p50     p99   p99.9     max  p50/call  calls/core  turns  unasked  dropped");
    for (calls, denoise, codec) in ROWS {
        println!("{}", measure(calls, denoise, codec)?);
    }
    Ok(())
}

/// One row of the table.
fn measure(calls: usize, denoise: bool, codec: Codec) -> Result<String, Box<dyn Error>> {
    let (mut worker, mut link, mut judge) = Worker::new(calls, models(calls, denoise)?);
    let mut leg = LegSettings::new(codec.rate());
    leg.denoise = denoise.then_some(Band::Telephone);
    let mut callers = Vec::with_capacity(calls);
    let mut times = Vec::with_capacity(TICKS as usize);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let judge = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                judge.step();
                thread::park_timeout(Duration::from_millis(100));
            }
        });
        let start = Instant::now();
        for tick in 0..WARM_UP + TICKS {
            let due = start + Duration::from_millis(tick * TICK_MS);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            while callers.len() < calls.min(1 + tick as usize) {
                let Some(port) = link.admit(PortSettings { leg, ear: false, direct: false }) else { break };
                callers.push(Caller::new(port, callers.len(), codec));
            }
            for caller in &mut callers {
                caller.act(tick);
            }
            let begun = Instant::now();
            worker.run_once(Tick(tick));
            if tick >= WARM_UP {
                times.push(begun.elapsed().as_secs_f64() * 1e6);
            }
            if worker.has_asked() {
                judge.thread().unpark();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let (turns, meter) = (callers.iter().map(|caller| caller.turns).sum::<u32>(), link.meter().read());
    let per_core = calls as f64 * BUDGET * TICK_MS as f64 * 1e3 / at(0.999);
    Ok(format!(
        "{calls:5}  {:5}  {:7} {:7.0} {:7.0} {:7.0} {:7.0} {:9.1} {per_core:11.0} {turns:6} {:8} {:8}",
        if codec == Codec::Opus { "opus" } else { "mulaw" },
        if denoise { "on" } else { "off" },
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        at(0.5) / calls as f64,
        meter.asks_dropped,
        meter.rings_full,
    ))
}

fn models(calls: usize, denoise: bool) -> Result<ThreadModels, Box<dyn Error>> {
    let weights = Weights::at(Weights::default_dir());
    let judge = SmartTurn::load(&weights.path(SMART_TURN)?)?;
    Ok(ThreadModels {
        denoise: if denoise { Some(Box::new(Gtcrn::load(&weights.path(GTCRN)?, calls)?)) } else { None },
        vad: Box::new(Silero::load(&weights.path(SILERO_VAD)?, calls)?),
        end_of_turn: Some((Box::new(SmartTurnFeatures::new(calls)), Box::new(judge))),
    })
}

/// A caller who talks and pauses for ever, an agent who answers each turn, and a line that plays at once.
struct Caller {
    port: CallPort,
    /// One round of talk and pause, packet by packet.
    talk: Vec<Vec<u8>>,
    codec: Codec,
    number: usize,
    sequence: u32,
    reply: Option<(TurnId, u32)>,
    turns: u32,
}

impl Caller {
    fn new(port: CallPort, number: usize, codec: Codec) -> Self {
        let mut speech = Speech::new(codec.rate().hz(), number as u32);
        let mut encoder = (codec == Codec::Opus).then(|| OpusEncoder::new().expect("libopus has memory"));
        let talk = (0..ROUND_PACKETS).map(|_| packet(&mut speech, encoder.as_mut())).collect();
        Self { port, talk, codec, number, sequence: 0, reply: None, turns: 0 }
    }

    /// What the rim does for this caller in one tick; what finds no room is lost.
    fn act(&mut self, tick: u64) {
        if (tick as usize + self.number).is_multiple_of(2) {
            let sound = &self.talk[self.sequence as usize % ROUND_PACKETS];
            if let Some(packet) = Packet::new(self.codec, self.sequence, self.sequence * 20, sound) {
                let _ = self.port.packets.push(&packet);
            }
            self.sequence += 1;
        }
        while let Ok(event) = self.port.events.pop() {
            match event {
                LegEvent::Paused { .. } => {
                    let hint = TranscriptHint { words: 3, backchannel: false, ending: TextEnding::Complete, settled: true };
                    let _ = self.port.commands.push(Command::Hint(hint));
                }
                LegEvent::TurnEnded { turn, .. } => (self.reply, self.turns) = (Some((turn, 0)), self.turns + 1),
                _ => {}
            }
        }
        while let Some(item) = self.port.outgoing.pop() {
            if let ToLine::Mark(number) = item {
                let _ = self.port.commands.push(Command::Mark(number));
            }
        }
        self.answer();
    }

    fn answer(&mut self) {
        while let Some((turn, chunks)) = self.reply
            && self.port.speech.has_room()
        {
            let over = chunks == REPLY_CHUNKS;
            let len = if self.codec == Codec::Opus { ENCODED_LEN } else { PACKET_LEN };
            let hum: [i16; ENCODED_LEN] = std::array::from_fn(|n| HUM[n % HUM.len()]);
            let (end, sound) = if over { (ChunkEnd::Reply, &[][..]) } else { (ChunkEnd::Nothing, &hum[..len]) };
            let _ = self.port.speech.push(&SpeechChunk::new(turn, 0, end, sound));
            self.reply = (!over).then_some((turn, chunks + 1));
        }
    }
}

/// The next 20 ms of a voice, encoded.
fn packet(speech: &mut Speech, encoder: Option<&mut OpusEncoder>) -> Vec<u8> {
    let mut next = || sample_from_f32(speech.next_sample());
    let Some(encoder) = encoder else { return (0..PACKET_LEN).map(|_| mulaw_from_sample(next())).collect() };
    let sound: [i16; ENCODED_LEN] = std::array::from_fn(|_| next());
    let mut bytes = [0; PACKET_BYTES_MAX];
    let len = encoder.encode(&sound, &mut bytes);
    bytes[..len].to_vec()
}
