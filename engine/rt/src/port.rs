//! The crossing between the rim and one call on its audio thread: a bundle of bounded rings, made by the rim (which may
//! allocate) and moved whole into a slot. Each ring's length is a time or a count that the other side can fall behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rtrb::{Consumer, Producer, RingBuffer};
use voiced_core::call::{Leg, OpusGear};
use voiced_core::frame::HeardFrame;
use voiced_core::id::GuestId;
use voiced_core::leg::{Command, EarFrame, LegEvent, LegSettings, SpeechChunk};
use voiced_core::line::{LineSource, PacketSink, Said, ToLine};
use voiced_core::packet::{Codec, Packet};
use voiced_core::time::MediaTime;

use crate::bell::Bell;
use crate::guest::{self, GuestDoor, GuestPort, Guests, JoinError};
use crate::hearing::Hearing;
use crate::meter::Meter;
use crate::sound_ring::{self, SoundConsumer, SoundProducer};

/// Bytes of 20 ms of mu-law, and of Opus at 128 kb/s.
const MULAW_BYTES: usize = 160;
const OPUS_BYTES: usize = 320;
/// Caller's packets: 64 × 20 ms, more than a second of burst after a stall of the socket.
const PACKETS_MAX: usize = 64;
/// Room that a leg's playout must have before a chunk is taken from the ring, ms: one chunk.
const CHUNK_MS: u32 = 20;
/// Agent's speech: 32 × 20 ms; the leg's own playout buffer holds the seconds.
const SPEECH_MAX: usize = 32;
/// Commands: a handful per turn; marks come at most every 20 ms.
const COMMANDS_MAX: usize = 64;
/// To the line: a full lead burst plus a second of packets and marks.
const OUTGOING_MAX: usize = 96;
/// Events: a handful per turn.
const EVENTS_MAX: usize = 64;
/// Heard frames: 1.28 s for a rim that is late.
const EAR_MAX: usize = 128;
/// Heard frames that are worth waking the rim for: 100 ms, a message to a speech-to-text; an event wakes it for fewer.
const EAR_TOGETHER: usize = 10;
/// Packets of the caller that are worth waking the rim for, where nobody waits for each: 100 ms.
const LINE_TOGETHER: usize = 5;
/// The agent alone, in real time: 64 × 20 ms for a room that is late.
const AGENT_MAX: usize = 64;

/// What is fixed when a call is admitted.
#[derive(Clone, Copy, Debug)]
pub struct PortSettings {
    /// The leg's settings.
    pub leg: LegSettings,
    /// Hand out what the leg hears ([`CallPort::ear`]).
    pub ear: bool,
    /// Sound passes between the line and the audio thread without waking the call's task ([`CallPort::direct`]).
    pub direct: bool,
}

/// A line's way to the audio thread and back, for the task that reads and writes it.
pub struct DirectLine {
    /// Takes the caller's packets.
    pub packets: PacketSink,
    /// Gives what the line must be sent; a hang-up once the call's port is gone.
    pub outgoing: LineSource,
    pub(crate) bell: Arc<Bell>,
}

/// What a call tells its direct line.
struct LineEnd {
    bell: Arc<Bell>,
    is_over: AtomicBool,
    opened_at: Instant,
    /// Since when a reply is due whose first sound has not gone to the line yet, in µs since `opened_at`; 0: none is.
    due_us: AtomicU64,
}

impl LineEnd {
    fn due(&self, at: Instant) {
        self.due_us.store(self.us(at), Ordering::Relaxed);
    }

    /// A reply that is due is held back for the caller: its delay is not ours.
    fn put_off(&self) {
        let due_us = self.due_us.load(Ordering::Relaxed);
        if due_us > 0 {
            // not where the line has just taken it
            let _ = self.due_us.compare_exchange(due_us, self.us(Instant::now()), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn us(&self, at: Instant) -> u64 {
        (at.saturating_duration_since(self.opened_at).as_micros() as u64).max(1)
    }

    fn take_due(&self) -> Option<Instant> {
        // looked at first: a swap for each packet would take the cache line from the call each time
        let us = if self.due_us.load(Ordering::Relaxed) > 0 { self.due_us.swap(0, Ordering::Relaxed) } else { 0 };
        (us > 0).then(|| self.opened_at + Duration::from_micros(us))
    }
}

/// Tells a direct line that the call is over.
struct EndOfCall(Arc<LineEnd>);

impl Drop for EndOfCall {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
        self.0.bell.raise_and_ring();
    }
}

/// The rim's end of a call. Dropping it retires the call.
pub struct CallPort {
    /// Instead of `packets` and `outgoing`, which are closed then; where the settings ask for it.
    pub direct: Option<DirectLine>,
    /// Caller's packets in.
    pub packets: SoundProducer<Packet>,
    /// Agent's speech in, at the leg's rate.
    pub speech: SoundProducer<SpeechChunk>,
    /// Commands in.
    pub commands: Producer<Command>,
    /// What the line must be sent.
    pub outgoing: SoundConsumer<ToLine>,
    /// What happened.
    pub events: Consumer<LegEvent>,
    /// The caller's packets again, as the audio thread took them in: speech to text and whoever records hear the line itself.
    pub line: SoundConsumer<Packet>,
    /// What the leg heard, when asked for.
    pub ear: Option<Consumer<EarFrame>>,
    /// The agent's sound alone, without the guests', as it plays; when the leg's settings ask for it.
    pub agent: Option<SoundConsumer<Packet>>,
    /// Rung for whatever comes into `outgoing`, `events` or `agent`, and for 100 ms of `line` or `ear`. Who hears it takes all
    /// that is there; it is not rung again for what was left.
    pub bell: Arc<Bell>,
    /// How well the caller comes through.
    pub hearing: Arc<Hearing>,
    guests: GuestDoor,
    each_packet: Arc<AtomicBool>,
    line_end: Option<EndOfCall>,
}

impl CallPort {
    /// A reply could be heard since then, and its first sound is given to the leg now: for the meters of a direct line.
    pub fn reply_due(&self, since: Instant) {
        if let Some(EndOfCall(line)) = &self.line_end {
            line.due(since);
        }
    }

    /// Has the bell rung for each packet of the caller: somebody hears along.
    pub fn hear_along(&self) {
        self.each_packet.store(true, Ordering::Relaxed);
    }

    /// Lets somebody else into the call. Nobody hears a guest before a [`Command::Guest`] says who does; a guest leaves by
    /// [`Command::GuestLeft`] or when its port is dropped.
    pub fn join(&mut self, id: GuestId, codec: Codec) -> Result<GuestPort, JoinError> {
        self.guests.join(id, codec)
    }
}

/// The audio thread's end of a call.
pub(crate) struct SlotPort {
    pub(crate) packets: SoundConsumer<Packet>,
    pub(crate) speech: SoundConsumer<SpeechChunk>,
    pub(crate) commands: Consumer<Command>,
    outgoing: SoundProducer<ToLine>,
    events: Producer<LegEvent>,
    line: SoundProducer<Packet>,
    ear: Option<Producer<EarFrame>>,
    agent: Option<SoundProducer<Packet>>,
    news: News,
    pub(crate) guests: Guests,
    /// Lent to the leg while the call lasts.
    pub(crate) gear: Option<OpusGear>,
    pub(crate) hearing: Arc<Hearing>,
    bell: Arc<Bell>,
    each_packet: Arc<AtomicBool>,
    /// Where the line is direct: it has a bell of its own for what goes to it.
    line_end: Option<Arc<LineEnd>>,
}

impl SlotPort {
    /// The rim has dropped its end and everything it said was taken.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.commands.is_abandoned()
    }

    /// Gives the caller's packet back to the rim.
    pub(crate) fn give_back(&mut self, packet: &Packet, meter: &Meter) {
        self.news.line += 1;
        count(self.line.push(packet).is_ok(), meter);
    }

    /// Hands out what the leg heard, where that is wanted.
    pub(crate) fn hand_out(&mut self, at: MediaTime, heard: &HeardFrame, meter: &Meter) {
        let Some(ear) = &mut self.ear else { return };
        self.news.ear += 1;
        count(ear.push(EarFrame { at, samples: heard.map(|sample| (sample * 32_767.0) as i16) }).is_ok(), meter);
    }

    /// Tells what happened.
    pub(crate) fn tell(&mut self, event: LegEvent, meter: &Meter) {
        self.news.events = true;
        count(self.events.push(event).is_ok(), meter);
    }

    /// Takes what has come of the agent's speech, as far as the playout has room; false when nothing has.
    pub(crate) fn take_speech(&mut self, leg: &mut Leg) -> bool {
        let mut any = false;
        while leg.speech_room_ms() >= CHUNK_MS
            && let Some(chunk) = self.speech.pop()
        {
            leg.speech(&chunk);
            any = true;
        }
        any
    }

    /// The leg's last step.
    pub(crate) fn speak(&mut self, leg: &mut Leg, now: MediaTime, meter: &Meter) {
        let Self { outgoing, events, agent, news, line_end, .. } = self;
        leg.speak(
            now,
            &mut |item| {
                news.outgoing = true;
                count(outgoing.push(&item).is_ok(), meter);
            },
            &mut |event| {
                news.events = true;
                count(events.push(event).is_ok(), meter);
            },
        );
        if let Some(line_end) = line_end
            && leg.holds_reply_back()
        {
            line_end.put_off();
        }
        if let Some(agent) = agent {
            leg.speak_alone(now, &mut |packet| {
                news.agent = true;
                count(agent.push(&packet).is_ok(), meter);
            });
        }
    }

    /// Raises the bells if there is news for the rim, which takes all there is when it hears one: so the rings need not be
    /// looked at, whose ends are in the other side's caches. True when one was raised.
    pub(crate) fn announce(&mut self) -> bool {
        let outgoing = std::mem::take(&mut self.news.outgoing);
        if outgoing {
            self.line_end.as_ref().map_or(&self.bell, |line_end| &line_end.bell).raise();
        }
        let line = if self.each_packet.load(Ordering::Relaxed) { 1 } else { LINE_TOGETHER };
        let News { events, agent, .. } = self.news;
        let others = events || agent || self.news.line >= line || self.news.ear >= EAR_TOGETHER;
        if others {
            self.news = News::default();
            self.bell.raise();
        }
        outgoing || others
    }
}

/// What the rim has not been rung for.
#[derive(Default)]
struct News {
    outgoing: bool,
    events: bool,
    agent: bool,
    /// Packets given back, and heard frames handed out.
    line: usize,
    ear: usize,
}

/// What found no room is lost, and counted.
fn count(taken: bool, meter: &Meter) {
    if !taken {
        meter.ring_full();
    }
}

/// Makes both ends.
pub(crate) fn open(settings: &PortSettings, gear: Option<OpusGear>) -> (CallPort, SlotPort) {
    let rate = settings.leg.rate;
    let packet_bytes = match Codec::of_line(rate) {
        Codec::Mulaw => MULAW_BYTES,
        Codec::Opus => OPUS_BYTES,
    };
    let (mut packets_in, packets) = sound_ring::open(PACKETS_MAX, packet_bytes);
    let (speech_in, speech) = sound_ring::open(SPEECH_MAX, 2 * 2 * rate.frame_len());
    let (commands_in, commands) = RingBuffer::new(COMMANDS_MAX);
    let (outgoing, mut outgoing_out) = sound_ring::open(OUTGOING_MAX, packet_bytes);
    let (events, events_out) = RingBuffer::new(EVENTS_MAX);
    let (line, line_out) = sound_ring::open(PACKETS_MAX, packet_bytes);
    let (ear, ear_out) = settings.ear.then(|| RingBuffer::new(EAR_MAX)).unzip();
    let (agent, agent_out) = settings.leg.agent_alone.then(|| sound_ring::open(AGENT_MAX, packet_bytes)).unzip();
    let (door, guests) = guest::open();
    let bell = Arc::new(Bell::new());
    let each_packet = Arc::new(AtomicBool::new(false));
    let hearing = Arc::new(Hearing::default());
    let ends = settings.direct.then(|| {
        let packets = std::mem::replace(&mut packets_in, SoundProducer::closed());
        direct(packets, std::mem::replace(&mut outgoing_out, SoundConsumer::closed()))
    });
    let (direct, line_end) = ends.unzip();
    let slot_line_end = line_end.as_ref().map(|EndOfCall(line_end)| Arc::clone(line_end));
    (
        CallPort {
            direct,
            packets: packets_in,
            speech: speech_in,
            commands: commands_in,
            outgoing: outgoing_out,
            events: events_out,
            line: line_out,
            ear: ear_out,
            agent: agent_out,
            bell: Arc::clone(&bell),
            hearing: Arc::clone(&hearing),
            guests: door,
            each_packet: Arc::clone(&each_packet),
            line_end,
        },
        SlotPort {
            packets,
            speech,
            commands,
            outgoing,
            events,
            line,
            ear,
            agent,
            news: News::default(),
            guests,
            gear,
            hearing,
            bell,
            each_packet,
            line_end: slot_line_end,
        },
    )
}

fn direct(mut packets: SoundProducer<Packet>, mut outgoing: SoundConsumer<ToLine>) -> (DirectLine, EndOfCall) {
    let (bell, opened_at) = (Arc::new(Bell::new()), Instant::now());
    let end = Arc::new(LineEnd { bell: Arc::clone(&bell), is_over: AtomicBool::new(false), opened_at, due_us: AtomicU64::new(0) });
    let call = EndOfCall(Arc::clone(&end));
    // the ring is looked at after the bell only, and until it is empty: a poll comes with each packet of the caller
    let mut holds_something = false;
    let source = move |context: &mut Context<'_>| loop {
        if !holds_something {
            ready!(end.bell.poll_rung(context));
            holds_something = true;
        }
        let is_over = end.is_over.load(Ordering::Acquire); // before the ring: what was said last is taken first
        let said = |what, due_at| Poll::Ready(Said { what, said_at: end.bell.raised_at(), due_at });
        match outgoing.pop() {
            Some(what @ ToLine::Audio(_)) => return said(what, end.take_due()),
            Some(what) => return said(what, None),
            None if is_over => return said(ToLine::HangUp, None),
            None => holds_something = false,
        }
    };
    (DirectLine { packets: Box::new(move |packet| packets.push(packet).is_ok()), outgoing: Box::new(source), bell }, call)
}
