//! A lossy sender's packets, kept encoded until their moment, and what to do when it comes.
//!
//! A playhead runs along the sender's media. Asked for more sound, [`Order::next`] looks at the packet that is next:
//! it is played; or it is not there, and its successor, which says it again at lower quality, is; or nothing is there
//! and sound is made up, which counts as part of the gap if a loss it was. A sequence that goes on while the timestamp
//! jumps is a sender that was silent (DTX): its next talk-spurt begins when it has waited for the whole target delay,
//! so each pause sets the delay anew. No sound and no decoder is touched here.

use super::HearCounters;
use super::sequence::{RESTART, Seen, distance};
use super::target::TargetDelay;
use crate::codec::opus::heard_len;
use crate::packet::Packet;
use crate::time::TICK_MS;

/// Packets that may wait: [`WAITING_MS_MAX`] of 10 ms packets and a few.
const PACKETS_MAX: usize = 48;
/// Media from the playhead to the newest packet at most, in ms. After a longer stall old words are left out.
const WAITING_MS_MAX: i64 = 400;
/// A timestamp this near to the playhead continues it: senders round to whole ms.
const TOLERANCE: i64 = 5 * PER_MS;
/// Longest gap made up for losses; what is longer was silence too.
const GAP_MAX: i64 = 120 * PER_MS;
/// Sound made up at a time.
const MADE_UP: usize = TICK_MS as usize * PER_MS as usize;
/// Samples in a ms at the rate at which Opus is heard.
const PER_MS: i64 = 16;

/// What comes next.
#[derive(Clone, Copy, Debug)]
pub enum Next {
    /// Decode this packet and leave out so many samples at its front: they were made up already.
    Play {
        /// The packet.
        packet: Packet,
        /// Samples to leave out.
        skip: usize,
    },
    /// Decode what this packet, which stays, tells of the `len` samples before it, and leave out `skip` of them.
    Rebuild {
        /// The lost packet's successor.
        packet: Packet,
        /// Samples that the lost packet had.
        len: usize,
        /// Samples to leave out.
        skip: usize,
    },
    /// Make up so many samples of a lost packet, or in want of any.
    MakeUp(usize),
    /// The sender is silent, for so many samples at least.
    Rest(usize),
}

/// The packets of one sender. Allocates in [`Order::new`] only.
pub struct Order {
    packets: Box<[Option<Packet>]>,
    len: usize,
    stream: Option<Stream>,
    target: TargetDelay,
}

/// Where the sender's stream stands.
#[derive(Clone, Copy)]
struct Stream {
    seen: Seen,
    /// Sequence of the next packet to play.
    next: u32,
    /// Sender's time of the next sample, in samples; `None` before the first.
    playhead: Option<i64>,
    /// Samples made up since the playhead moved.
    starved: i64,
    /// The last packet played said that silence follows.
    silent: bool,
}

impl Order {
    /// Nothing waiting.
    pub fn new() -> Self {
        Self { packets: vec![None; PACKETS_MAX].into_boxed_slice(), len: 0, stream: None, target: TargetDelay::new() }
    }

    /// Queues a packet that came at `now_ms`, unless it is late, a duplicate or no Opus.
    pub fn insert(&mut self, packet: &Packet, now_ms: i64, counters: &mut HearCounters) {
        if heard_len(packet.payload()).is_none() {
            counters.foreign = counters.foreign.saturating_add(1);
            return;
        }
        if self.stream.is_some_and(|stream| distance(packet.sequence, stream.seen.newest()).abs() > RESTART) {
            self.len = 0;
            self.stream = None;
        }
        let stream =
            self.stream.get_or_insert(Stream { seen: Seen::before(packet.sequence), next: packet.sequence, playhead: None, starved: 0, silent: false });
        if !stream.seen.note(packet.sequence) {
            counters.duplicate = counters.duplicate.saturating_add(1);
            return;
        }
        self.target.arrived(now_ms, i64::from(packet.timestamp_ms));
        if distance(packet.sequence, stream.next) < 0 {
            if stream.playhead.is_some() {
                counters.late = counters.late.saturating_add(1);
                return;
            }
            // nothing was played yet: the stream begins with this one
            stream.next = packet.sequence;
        }
        if self.len == PACKETS_MAX {
            self.drop_oldest(counters);
        }
        let later = |waiting: &Option<Packet>| waiting.is_some_and(|w| distance(w.sequence, packet.sequence) > 0);
        let place = self.packets[..self.len].iter().position(later).unwrap_or(self.len);
        self.packets[self.len] = Some(*packet);
        self.packets[place..=self.len].rotate_right(1);
        self.len += 1;
        while self.waiting_ms() > WAITING_MS_MAX && self.len > 1 {
            self.drop_oldest(counters);
        }
    }

    /// What to do for more sound at `now_ms`.
    pub fn next(&mut self, now_ms: i64, counters: &mut HearCounters) -> Next {
        // each round takes a packet off that the playhead has passed
        while let (Some(packet), Some(stream)) = (self.first(), self.stream) {
            let len = heard_len(packet.payload()).unwrap_or(0) as i64;
            let starts = in_samples(&packet);
            let missing = distance(packet.sequence, stream.next).max(0);
            let gap = starts - stream.playhead.unwrap_or(starts);
            let left = gap - stream.starved;
            let begins = stream.playhead.is_none() || gap.abs() > GAP_MAX.max(len) || missing == 0 && gap > TOLERANCE;
            if begins {
                if !self.target.is_due(now_ms, i64::from(packet.timestamp_ms)) && gap >= 0 {
                    return self.wait();
                }
            } else if missing > 0 && left > TOLERANCE {
                return self.bridge(&packet, left, len, counters);
            } else if gap + len <= TOLERANCE && gap < -TOLERANCE {
                self.remove_first();
                self.skip_to(packet.sequence.wrapping_add(1), counters);
                counters.late = counters.late.saturating_add(1);
                continue;
            }
            let skip = if !begins && gap < -TOLERANCE { -gap } else { 0 };
            return self.play(&packet, starts + len, skip as usize, counters);
        }
        self.wait()
    }

    /// A packet continues the sound at hand: [`Order::next`] would play it, without a gap.
    pub fn continues(&self) -> bool {
        let (Some(packet), Some(stream)) = (self.first(), self.stream) else { return false };
        let gap = in_samples(&packet) - stream.playhead.unwrap_or(i64::MAX);
        packet.sequence == stream.next && stream.starved == 0 && gap.abs() <= TOLERANCE
    }

    /// How much more delay than the target a sound has that is played at `now_ms`, `ahead` samples before the playhead.
    /// `None` while nothing plays.
    pub fn excess_ms(&self, now_ms: i64, ahead: usize) -> Option<i64> {
        let stream = self.stream.filter(|stream| stream.starved == 0 && !stream.silent)?;
        let media_ms = (stream.playhead? - ahead as i64) / PER_MS;
        Some(self.target.delay_ms(now_ms, media_ms) - i64::from(self.target.target_ms()))
    }

    /// The delay aimed at, in ms.
    pub fn target_ms(&self) -> u32 {
        self.target.target_ms()
    }

    /// Media from the playhead to the end of the newest packet, in ms.
    pub fn waiting_ms(&self) -> i64 {
        let Some((newest, first)) = self.packets[..self.len].last().copied().flatten().zip(self.first()) else { return 0 };
        let from = self.stream.and_then(|stream| stream.playhead).map_or(in_samples(&first), |playhead| playhead.max(in_samples(&first)));
        let end = in_samples(&newest) + heard_len(newest.payload()).unwrap_or(0) as i64;
        (end - from).max(0) / PER_MS
    }

    /// Sound of packets that never came, while their successor is there: rebuilt from it once it follows at once.
    fn bridge(&mut self, packet: &Packet, left: i64, len: i64, counters: &mut HearCounters) -> Next {
        let Some(stream) = &mut self.stream else { return Next::Rest(MADE_UP) };
        if left > len {
            stream.playhead = stream.playhead.map(|playhead| playhead + stream.starved + MADE_UP as i64);
            stream.starved = 0;
            return Next::MakeUp(MADE_UP);
        }
        let skip = stream.starved.clamp(0, len - left);
        stream.playhead = Some(in_samples(packet));
        stream.starved = 0;
        self.skip_to(packet.sequence, counters);
        counters.recovered = counters.recovered.saturating_add(1);
        Next::Rebuild { packet: *packet, len: (left + skip) as usize, skip: skip as usize }
    }

    fn play(&mut self, packet: &Packet, end: i64, skip: usize, counters: &mut HearCounters) -> Next {
        self.remove_first();
        self.skip_to(packet.sequence, counters);
        self.target.played(false);
        if let Some(stream) = &mut self.stream {
            stream.next = packet.sequence.wrapping_add(1);
            stream.playhead = Some(end);
            stream.starved = 0;
            stream.silent = crate::codec::opus::begins_silence(packet.payload());
        }
        Next::Play { packet: *packet, skip }
    }

    /// Gives up all sequences before `next`.
    fn skip_to(&mut self, next: u32, counters: &mut HearCounters) {
        let Some(stream) = &mut self.stream else { return };
        let lost = distance(next, stream.next).max(0) as u32;
        stream.next = next;
        counters.lost = counters.lost.saturating_add(lost);
        for _ in 0..lost.min(PACKETS_MAX as u32) {
            self.target.played(true);
        }
    }

    /// Nothing to play now.
    fn wait(&mut self) -> Next {
        match &mut self.stream {
            Some(stream) if !stream.silent && stream.playhead.is_some() && stream.starved < GAP_MAX => {
                stream.starved += MADE_UP as i64;
                Next::MakeUp(MADE_UP)
            }
            _ => Next::Rest(MADE_UP),
        }
    }

    /// Gives up the packet that has waited longest.
    fn drop_oldest(&mut self, counters: &mut HearCounters) {
        let Some(packet) = self.first() else { return };
        self.remove_first();
        let len = heard_len(packet.payload()).unwrap_or(0) as i64;
        counters.dropped_ms = counters.dropped_ms.saturating_add((len / PER_MS) as u32);
        if let Some(stream) = &mut self.stream {
            stream.next = packet.sequence.wrapping_add(1);
            stream.playhead = Some(in_samples(&packet) + len);
            stream.starved = 0;
        }
    }

    fn first(&self) -> Option<Packet> {
        self.packets[..self.len].first().copied().flatten()
    }

    fn remove_first(&mut self) {
        self.packets[..self.len].rotate_left(1);
        self.len -= 1;
    }
}

impl Default for Order {
    fn default() -> Self {
        Self::new()
    }
}

fn in_samples(packet: &Packet) -> i64 {
    i64::from(packet.timestamp_ms) * PER_MS
}
