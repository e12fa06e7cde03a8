//! The crossing between the rim and one call on its audio thread: a bundle of bounded rings, made by the rim (which may
//! allocate) and moved whole into a slot. Each ring's length is a time or a count that the other side can fall behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rtrb::{Consumer, Producer, RingBuffer};
use voiced_core::call::OpusGear;
use voiced_core::id::GuestId;
use voiced_core::leg::{Command, EarFrame, LegEvent, LegSettings, SpeechChunk};
use voiced_core::line::{PacketSink, ToLine};
use voiced_core::packet::{Codec, Packet};

use crate::bell::Bell;
use crate::guest::{self, GuestDoor, GuestPort, Guests, JoinError};
use crate::hearing::Hearing;
use crate::sound_ring::{self, SoundConsumer, SoundProducer};

/// Bytes of 20 ms of mu-law, and of Opus at 128 kb/s.
const MULAW_BYTES: usize = 160;
const OPUS_BYTES: usize = 320;
/// Caller's packets: 64 × 20 ms, more than a second of burst after a stall of the socket.
const PACKETS_MAX: usize = 64;
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
}

/// The rim's end of a call. Dropping it retires the call.
pub struct CallPort {
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
    /// Rung while `outgoing`, `events` or `agent` hold something, or `line` or `ear` 100 ms.
    pub bell: Arc<Bell>,
    /// How well the caller comes through.
    pub hearing: Arc<Hearing>,
    guests: GuestDoor,
    each_packet: Arc<AtomicBool>,
}

impl CallPort {
    /// Gives `packets` to whoever reads the line, so that the caller's sound reaches the audio thread without waking the
    /// call's task. This port takes no more packets then.
    pub fn give_packets(&mut self) -> PacketSink {
        let mut packets = std::mem::replace(&mut self.packets, SoundProducer::closed());
        Box::new(move |packet| packets.push(packet).is_ok())
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
    pub(crate) outgoing: SoundProducer<ToLine>,
    pub(crate) events: Producer<LegEvent>,
    line: SoundProducer<Packet>,
    /// Packets given back since the bell was last raised for them.
    line_news: usize,
    pub(crate) ear: Option<Producer<EarFrame>>,
    pub(crate) agent: Option<SoundProducer<Packet>>,
    pub(crate) guests: Guests,
    /// Lent to the leg while the call lasts.
    pub(crate) gear: Option<OpusGear>,
    pub(crate) hearing: Arc<Hearing>,
    bell: Arc<Bell>,
    each_packet: Arc<AtomicBool>,
}

impl SlotPort {
    /// The rim has dropped its end and everything it said was taken.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.commands.is_abandoned()
    }

    /// Gives the caller's packet back to the rim; false when there is no room.
    pub(crate) fn give_back(&mut self, packet: &Packet) -> bool {
        self.line_news += 1;
        self.line.push(packet).is_ok()
    }

    /// Raises the bell if the rim has anything to fetch.
    pub(crate) fn announce(&mut self) {
        let together = if self.each_packet.load(Ordering::Relaxed) { 1 } else { LINE_TOGETHER };
        let holds_line = self.line_news >= together;
        if holds_line {
            self.line_news = 0;
        }
        let holds_ear = self.ear.as_ref().is_some_and(|ear| ear.slots() <= EAR_MAX - EAR_TOGETHER);
        let holds_agent = self.agent.as_ref().is_some_and(SoundProducer::holds_something);
        if holds_line || holds_ear || holds_agent || self.outgoing.holds_something() || self.events.slots() < EVENTS_MAX {
            self.bell.raise();
        }
    }
}

/// Makes both ends.
pub(crate) fn open(settings: &PortSettings, gear: Option<OpusGear>) -> (CallPort, SlotPort) {
    let rate = settings.leg.rate;
    let packet_bytes = match Codec::of_line(rate) {
        Codec::Mulaw => MULAW_BYTES,
        Codec::Opus => OPUS_BYTES,
    };
    let (packets_in, packets) = sound_ring::open(PACKETS_MAX, packet_bytes);
    let (speech_in, speech) = sound_ring::open(SPEECH_MAX, 2 * 2 * rate.frame_len());
    let (commands_in, commands) = RingBuffer::new(COMMANDS_MAX);
    let (outgoing, outgoing_out) = sound_ring::open(OUTGOING_MAX, packet_bytes);
    let (events, events_out) = RingBuffer::new(EVENTS_MAX);
    let (line, line_out) = sound_ring::open(PACKETS_MAX, packet_bytes);
    let (ear, ear_out) = settings.ear.then(|| RingBuffer::new(EAR_MAX)).unzip();
    let (agent, agent_out) = settings.leg.agent_alone.then(|| sound_ring::open(AGENT_MAX, packet_bytes)).unzip();
    let (door, guests) = guest::open();
    let bell = Arc::new(Bell::new());
    let each_packet = Arc::new(AtomicBool::new(false));
    let hearing = Arc::new(Hearing::default());
    (
        CallPort {
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
        },
        SlotPort { packets, speech, commands, outgoing, events, line, line_news: 0, ear, agent, guests, gear, hearing, bell, each_packet },
    )
}
