//! Packets in the sender's order, and how much delay to keep.
//!
//! A cursor runs along the sender's media. A packet that starts at the cursor is played; one that starts behind it is
//! played from the cursor on; one that starts ahead leaves a gap to be concealed, less what was already concealed while
//! nothing was there. So lost sound costs its own length and no more, whether the loss is seen before or after the
//! starvation it causes. Sequence numbers tell duplicates, losses and late packets; timestamps tell gaps.

use super::HearCounters;
use super::sequence::{RESTART, Seen, distance};
use crate::codec;
use crate::frame::Rate;
use crate::packet::{PACKET_BYTES_MAX, Packet};

/// Packets that may wait. [`WAITING_MS_MAX`] of 10 ms packets and room for a few short ones.
const PACKETS_MAX: usize = 48;
/// Sound that may wait. A socket that hung for longer brings old words: answering them late is worse than a cut.
const WAITING_MS_MAX: u32 = 400;
/// Waiting sound above this is won back even while the caller speaks, one frame in [`HURRY_TICKS`].
const HURRY_MS: u32 = 160;
/// Speech sped up by a quarter stays intelligible to people and models.
const HURRY_TICKS: u32 = 5;
/// A timestamp this near to the cursor continues it: senders round to whole ms.
const TOLERANCE_MS: i64 = 5;
/// Longest gap made up for one loss; what is longer was silence of the sender or a restart.
const GAP_MS_MAX: i64 = 60;
/// Ticks over which the least waiting sound is taken, twice: 0.5 to 1 s.
const LEAST_TICKS: u32 = 50;
/// Sound left over at a tick that is kept as a cushion: at first, and at most after repeated starvation.
const CUSHION_MS_MIN: u32 = 10;
const CUSHION_MS_MAX: u32 = 60;
/// Ticks without starvation after which the cushion shrinks by a frame: 20 s.
const CALM_TICKS: u32 = 2_000;

/// What [`Jitter::take`] had.
pub enum Taken {
    /// So many samples were written.
    Sound(usize),
    /// So many samples are to be made up.
    Gap(usize),
}

/// The waiting packets of one leg. Allocates in [`Jitter::new`] only.
pub struct Jitter {
    packets: Box<[Waiting]>,
    /// Where in `packets` they are: first the waiting ones, in the sender's order, then the free places, the last one freed
    /// first. Packets stay where they are, since they are big; so few places are used, and those are in the caches.
    places: [u8; PACKETS_MAX],
    len: usize,
    /// Sound of the waiting packets, in samples.
    queued: usize,
    stream: Option<Stream>,
    /// Where the packet being played is, and how much of it was.
    playing: u8,
    sound_at: usize,
    /// Samples made up because nothing was there, since the last packet ended.
    starved: i64,
    /// Samples of a gap still to be made up.
    gap_left: usize,
    delay: Delay,
}

/// A mu-law packet: a byte is a sample.
#[derive(Clone, Copy)]
struct Waiting {
    sequence: u32,
    timestamp_ms: u32,
    len: u16,
    bytes: [u8; PACKET_BYTES_MAX],
}

impl Waiting {
    const NONE: Self = Self { sequence: 0, timestamp_ms: 0, len: 0, bytes: [0; PACKET_BYTES_MAX] };

    fn set(&mut self, packet: &Packet) {
        let sound = packet.payload();
        (self.sequence, self.timestamp_ms, self.len) = (packet.sequence, packet.timestamp_ms, sound.len() as u16);
        self.bytes[..sound.len()].copy_from_slice(sound);
    }

    fn sound(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Where the sender's stream stands.
#[derive(Clone, Copy)]
struct Stream {
    /// Sequence of the next packet to play.
    next: u32,
    /// Sender's time of the next sample, in samples.
    cursor: i64,
    seen: Seen,
}

impl Jitter {
    /// Nothing waiting.
    pub fn new() -> Self {
        Self {
            packets: vec![Waiting::NONE; PACKETS_MAX + 1].into(),
            places: std::array::from_fn(|index| index as u8),
            len: 0,
            queued: 0,
            stream: None,
            playing: PACKETS_MAX as u8,
            sound_at: 0,
            starved: 0,
            gap_left: 0,
            delay: Delay::new(),
        }
    }

    /// Forgets the stream.
    pub fn reset(&mut self) {
        self.drop_all();
        self.packets[usize::from(self.playing)].len = 0;
        self.sound_at = 0;
        (self.starved, self.gap_left) = (0, 0);
        self.delay = Delay::new();
    }

    /// Queues a packet at its place, unless it is late or a duplicate.
    pub fn insert(&mut self, packet: &Packet, counters: &mut HearCounters) {
        if self.stream.is_some_and(|stream| distance(packet.sequence, stream.seen.newest()).abs() > RESTART) {
            self.drop_all();
        }
        let cursor = in_samples(packet.timestamp_ms);
        let stream = self.stream.get_or_insert(Stream { next: packet.sequence, cursor, seen: Seen::before(packet.sequence) });
        if !stream.seen.note(packet.sequence) {
            counters.duplicate = counters.duplicate.saturating_add(1);
            return;
        }
        if distance(packet.sequence, stream.next) < 0 {
            counters.late = counters.late.saturating_add(1);
            return;
        }
        if self.len == PACKETS_MAX {
            self.drop_oldest(counters);
        }
        let later = |&place: &u8| distance(self.packets[usize::from(place)].sequence, packet.sequence) > 0;
        let turn = self.places[..self.len].iter().position(later).unwrap_or(self.len);
        self.packets[usize::from(self.places[self.len])].set(packet);
        self.places[turn..=self.len].rotate_right(1);
        self.len += 1;
        self.queued += packet.payload().len();
        while self.waiting_ms() > WAITING_MS_MAX && self.len > 1 {
            self.drop_oldest(counters);
        }
    }

    /// Writes waiting sound to the front of `out`, or tells how much of it must be made up. Never zero of either.
    pub fn take(&mut self, out: &mut [f32], counters: &mut HearCounters) -> Taken {
        if self.sound_left() == 0 && self.gap_left == 0 {
            self.next_packet(counters);
        }
        if self.gap_left > 0 {
            let missing = self.gap_left.min(out.len());
            self.gap_left -= missing;
            return Taken::Gap(missing);
        }
        let sound = &self.packets[usize::from(self.playing)].sound()[self.sound_at..];
        if sound.is_empty() {
            self.starved += out.len() as i64;
            self.delay.starved = true;
            return Taken::Gap(out.len());
        }
        let taken = codec::mulaw_decode(sound, out);
        self.sound_at += taken;
        Taken::Sound(taken)
    }

    /// A tick begins: nothing of it was starved yet.
    pub fn begin_tick(&mut self) {
        self.delay.starved = false;
    }

    /// A tick is over: what is left now is more than was needed.
    pub fn end_tick(&mut self) {
        let left_ms = self.waiting_ms();
        self.delay.observe(left_ms);
    }

    /// More is waiting than the line needs.
    pub fn may_skip(&self) -> bool {
        self.waiting_ms() >= FRAME_MS && self.delay.spare_ms() >= self.delay.cushion_ms + FRAME_MS
    }

    /// A frame is skipped now, if it may: the moment is good.
    pub fn should_skip(&self, quiet: bool) -> bool {
        quiet || self.delay.spare_ms() > HURRY_MS && self.delay.tick.is_multiple_of(HURRY_TICKS)
    }

    /// The next frame is taken on top of this tick's.
    pub fn skipped(&mut self) {
        self.delay.skipped();
    }

    /// Sound waiting, in ms.
    pub fn waiting_ms(&self) -> u32 {
        (self.queued + self.sound_left()) as u32 / PER_MS
    }

    /// What is left of the packet being played, in samples.
    fn sound_left(&self) -> usize {
        usize::from(self.packets[usize::from(self.playing)].len) - self.sound_at
    }

    /// The packet that waits at the head.
    fn first(&self) -> Option<&Waiting> {
        self.places[..self.len].first().map(|&place| &self.packets[usize::from(place)])
    }

    /// Takes it off; its place is free now.
    fn remove_first(&mut self) {
        self.queued -= self.first().map_or(0, |packet| usize::from(packet.len));
        self.places[..self.len].rotate_left(1);
        self.len -= 1;
    }

    /// Forgets all that waits, and whose it was.
    fn drop_all(&mut self) {
        (self.len, self.queued, self.stream) = (0, 0, None);
    }

    /// Begins the packet at the head of the queue, or the gap before it. A packet that the cursor has passed is late.
    fn next_packet(&mut self, counters: &mut HearCounters) {
        // at most PACKETS_MAX rounds: each takes one packet off
        while let (Some(&Waiting { sequence, timestamp_ms, len, .. }), Some(mut stream)) = (self.first(), self.stream) {
            let starts = in_samples(timestamp_ms);
            let tolerance = in_samples(TOLERANCE_MS);
            let ahead = starts - stream.cursor;
            let unmade = ahead - self.starved;
            if ahead > tolerance && unmade > tolerance && unmade <= in_samples(GAP_MS_MAX) {
                // what is made up moves the cursor, so that a straggler can still be played from there on
                self.gap_left = unmade.min(in_samples(FRAME_MS)) as usize;
                stream.cursor += self.starved + self.gap_left as i64;
                self.starved = 0;
                self.stream = Some(stream);
                return;
            }
            self.remove_first();
            std::mem::swap(&mut self.playing, &mut self.places[self.len]);
            counters.lost = counters.lost.saturating_add(distance(sequence, stream.next).max(0) as u32);
            let behind = if (-in_samples(GAP_MS_MAX)..-tolerance).contains(&ahead) { -ahead } else { 0 };
            self.sound_at = (behind as usize).min(usize::from(len));
            stream.cursor = starts + i64::from(len);
            stream.next = sequence.wrapping_add(1);
            self.stream = Some(stream);
            if self.starved > 0 && ahead <= tolerance {
                self.delay.jittered();
            }
            self.starved = 0;
            if self.sound_left() > 0 {
                return;
            }
            counters.late = counters.late.saturating_add(1);
        }
    }

    /// Gives up the sound that has waited longest.
    fn drop_oldest(&mut self, counters: &mut HearCounters) {
        let Some(&Waiting { sequence, timestamp_ms, len, .. }) = self.first() else { return };
        self.remove_first();
        let ms = u32::from(len) / PER_MS;
        counters.dropped_ms = counters.dropped_ms.saturating_add(ms);
        let cursor = in_samples(timestamp_ms) + i64::from(len);
        if let Some(stream) = &mut self.stream {
            stream.next = sequence.wrapping_add(1);
            stream.cursor = cursor;
        }
        self.starved = 0;
    }
}

/// Of a moment or a length in ms.
fn in_samples(ms: impl Into<i64>) -> i64 {
    ms.into() * i64::from(PER_MS)
}

impl Default for Jitter {
    fn default() -> Self {
        Self::new()
    }
}

/// How much delay the line needs.
struct Delay {
    cushion_ms: u32,
    calm_ticks: u32,
    tick: u32,
    /// Least sound left over, in this half of the time looked at and in the one before.
    least_ms: u32,
    least_before_ms: u32,
    starved: bool,
}

impl Delay {
    fn new() -> Self {
        Self { cushion_ms: CUSHION_MS_MIN, calm_ticks: 0, tick: 0, least_ms: u32::MAX, least_before_ms: 0, starved: false }
    }

    fn observe(&mut self, left_ms: u32) {
        self.tick = self.tick.wrapping_add(1);
        if self.tick.is_multiple_of(LEAST_TICKS) {
            self.least_before_ms = self.least_ms;
            self.least_ms = u32::MAX;
        }
        self.least_ms = self.least_ms.min(if self.starved { 0 } else { left_ms });
        self.calm_ticks += 1;
        if self.calm_ticks >= CALM_TICKS {
            self.calm_ticks = 0;
            self.cushion_ms = (self.cushion_ms - FRAME_MS).max(CUSHION_MS_MIN);
        }
    }

    /// Sound that was left over at every tick of late.
    fn spare_ms(&self) -> u32 {
        self.least_ms.min(self.least_before_ms)
    }

    /// The sender was in time, its packet was not: keep more.
    fn jittered(&mut self) {
        self.cushion_ms = (self.cushion_ms + FRAME_MS).min(CUSHION_MS_MAX);
        self.calm_ticks = 0;
    }

    fn skipped(&mut self) {
        self.least_ms = self.least_ms.saturating_sub(FRAME_MS);
        self.least_before_ms = self.least_before_ms.saturating_sub(FRAME_MS);
    }
}

const FRAME_MS: u32 = crate::time::TICK_MS as u32;
/// Samples, which are bytes.
const PER_MS: u32 = Rate::Hz8000.hz() / 1_000;
