//! A reply's sound, from its synthesis until it was heard.
//!
//! All positions are samples since the reply began: `heard ≤ sent ≤ written`. Pushed sound is written to a ring and
//! waits for the commit ([`Playout::start`]). Each tick sends what keeps the far end's lead, moves `heard` on and
//! reports the phrases it has passed. A hold clears the far end and takes `sent` back to `heard`; the ring still holds
//! that sound, so a resume goes on there. A cut says what was heard and drops the rest.
//!
//! `heard` follows the far end's clock-like playing: what was sent less what is still queued, less the `lag` at which
//! the last echoed mark came later than that sum says. So it is exact to the way back of an echo, works from the first
//! packet on, and needs no echoes: a far end that gives none is believed to play in time. A room has no queue that we
//! could see or clear: its ears hear what was sent a fixed time later ([`Playout::set_far_end_ms`]), and what was sent
//! is heard.

use std::mem::replace;

use super::alone::Alone;
use super::marks::Marks;
use super::memory::Memory;
use super::pace::LEAD_MS_MAX;
use super::progress::Progress;
use super::sender::{PACKET_MS, Sender};
use super::told::{PlayoutCounters, PlayoutEvent, PlayoutState, Push};
use crate::frame::{HeardFrame, Rate};
use crate::id::TurnId;
use crate::leg::{CHUNK_LEN_MAX, ChunkEnd, HeardUntil, SpeechChunk};
use crate::line::ToLine;
use crate::packet::{Codec, Packet};
use crate::time::MediaTime;

/// Unsent sound that may wait, in ms: the rim synthesises ahead of real time, and two long phrases fit.
pub const WAITING_MS_MAX: u32 = 2_500;
/// Largest lag believed, in ms; a far end further behind than this is not merely far.
pub const LAG_MS_MAX: u32 = 500;
/// Sent sound kept for a hold: as much as can be sent but not yet heard.
const MEMORY_MS: u32 = LEAD_MS_MAX + LAG_MS_MAX;
/// Sound between two marks at most, besides those at the ends of phrases.
const MARK_MS: u64 = 200;
/// Fade-in after a hold: long enough not to click.
const FADE_MS: u64 = 5;

/// The agent's sound of one leg. Allocates in [`Playout::new`] only.
pub struct Playout {
    per_ms: u64,
    /// For a telephone's sound, or what a call in a room lends: that is six times as large.
    memory: Memory,
    /// The telephone's, while another is lent.
    kept: Option<Memory>,
    out: Sender,
    alone: Alone,
    marks: Marks,
    lag: u64,
    /// From sending to hearing at a far end without a queue; 0 at one with.
    far_end: u64,
    counters: PlayoutCounters,
    /// Replies before this one are void.
    oldest: TurnId,
    turn: TurnId,
    state: PlayoutState,
    /// A reply of which nothing was sent may be.
    may_begin: bool,
    reply: Progress,
}

impl Playout {
    /// A silent playout with room for a telephone's sound.
    pub fn new() -> Self {
        Self {
            per_ms: per_ms(Codec::Mulaw),
            memory: Memory::new(WAITING_MS_MAX + MEMORY_MS, Rate::Hz8000),
            kept: None,
            out: Sender::new(),
            alone: Alone::new(),
            marks: Marks::new(),
            lag: 0,
            far_end: 0,
            counters: PlayoutCounters::default(),
            oldest: TurnId(0),
            turn: TurnId(0),
            state: PlayoutState::Idle,
            may_begin: true,
            reply: Progress::new(),
        }
    }

    /// Makes ready for a new call, without allocation. The lead is kept within [`super::pace::Pace`]'s limits.
    pub fn reset(&mut self, codec: Codec, lead_ms: u32) {
        self.per_ms = per_ms(codec);
        self.out.reset(codec, lead_ms);
        self.alone.reset(codec);
        self.marks = Marks::new();
        self.lag = 0;
        self.far_end = 0;
        self.counters = PlayoutCounters::default();
        self.oldest = TurnId(0);
        self.turn = TurnId(0);
        self.state = PlayoutState::Idle;
        self.reply = Progress::new();
    }

    /// The far end keeps no queue of ours: what is sent is heard, so much later.
    pub fn set_far_end_ms(&mut self, ms: u32) {
        self.far_end = u64::from(ms.min(LAG_MS_MAX)) * self.per_ms;
        self.lag = self.far_end;
    }

    /// Room for a room's sound, for [`Playout::lend`].
    pub fn room_memory() -> Memory {
        Memory::new(WAITING_MS_MAX + MEMORY_MS, Rate::Hz48000)
    }

    /// What a call in a room lends, from [`Playout::reset`] to its end.
    pub fn lend(&mut self, memory: Memory) {
        self.kept = Some(replace(&mut self.memory, memory));
    }

    /// Gives back what was lent.
    pub fn give_back(&mut self) -> Option<Memory> {
        self.kept.take().map(|own| replace(&mut self.memory, own))
    }

    /// The way out to the line.
    pub fn sender_mut(&mut self) -> &mut Sender {
        &mut self.out
    }

    /// The way out of the agent's sound alone.
    pub fn alone_mut(&mut self) -> &mut Alone {
        &mut self.alone
    }

    /// Takes 10 ms of the guests whom the caller hears; `None` when there are none.
    pub fn guests(&mut self, sound: Option<&HeardFrame>) {
        self.out.guests(sound);
    }

    /// Takes the next piece of a reply. A newer reply takes the place of one that waits or was heard.
    pub fn push(&mut self, chunk: &SpeechChunk) -> Push {
        let push = self.take(chunk);
        match push {
            Push::Taken => {}
            Push::Old => self.counters.old_chunks += 1,
            Push::Busy | Push::Full => self.counters.refused_chunks += 1,
        }
        push
    }

    /// Commits a reply: from now on it is heard. False when it is void or another has the floor.
    pub fn start(&mut self, turn: TurnId) -> bool {
        let Some(floor) = self.admits(turn) else { return false };
        if !floor {
            self.adopt(turn);
        }
        if self.state == PlayoutState::Waiting {
            self.state = PlayoutState::Playing;
        }
        self.state == PlayoutState::Playing
    }

    /// Sends what keeps the lead, and reports what was heard; to be called once per tick.
    pub fn tick(&mut self, now: MediaTime, line: &mut dyn FnMut(ToLine), emit: &mut dyn FnMut(PlayoutEvent)) {
        let playing = self.state == PlayoutState::Playing && (self.may_begin || self.reply.sent > 0);
        if playing {
            self.send(now, line);
        }
        self.reply.padding += self.out.fill(now, line);
        if !playing {
            return;
        }
        if self.reply.sent > 0 && !self.reply.started {
            self.reply.started = true;
            emit(PlayoutEvent::Started);
        }
        self.listen(now);
        self.report(emit);
    }

    /// Hands out the agent's sound whose moment of playing has come; to be called after [`Playout::tick`], if at all.
    pub fn tick_alone(&mut self, now: MediaTime, room: &mut dyn FnMut(Packet)) {
        if matches!(self.state, PlayoutState::Playing | PlayoutState::Done) {
            self.alone.tick(self.played_in_time(now), &self.reply, &self.memory, now, room);
        }
    }

    /// A mark came back.
    pub fn mark(&mut self, number: u32, now: MediaTime) {
        let Some(position) = self.marks.echoed(number) else { return };
        let in_time = self.played_in_time(now);
        let lag = (in_time - position as i64).max(0) as u64 + self.far_end;
        self.lag = lag.min(u64::from(LAG_MS_MAX) * self.per_ms);
        let heard = position.saturating_sub(self.far_end);
        self.reply.hear_to(heard.min(in_time.max(0) as u64), now);
    }

    /// Silences the far end and goes back to what was heard; false (and nothing is sent) when nothing plays.
    pub fn hold(&mut self, now: MediaTime, line: &mut dyn FnMut(ToLine)) -> bool {
        if self.state != PlayoutState::Playing {
            return false;
        }
        self.listen(now);
        line(ToLine::Clear);
        self.marks.void();
        if self.far_end > 0 {
            // it is on its way and nothing calls it back
            self.reply.hear_to(self.reply.sent, now);
        } else {
            self.out.cleared();
        }
        self.reply.go_back(u64::from(MEMORY_MS) * self.per_ms);
        self.state = PlayoutState::Held;
        true
    }

    /// Goes on from where a hold stopped; the next tick sends.
    pub fn resume(&mut self) {
        if self.state == PlayoutState::Held {
            self.reply.fade_from = (self.reply.sent > 0).then_some(self.reply.sent);
            self.state = PlayoutState::Playing;
        }
    }

    /// Voids the reply, silences the far end if it plays, and says what was heard of it.
    pub fn cut(&mut self, now: MediaTime, line: &mut dyn FnMut(ToLine)) -> HeardUntil {
        self.hold(now, line);
        let heard = self.heard_until();
        if self.state != PlayoutState::Idle {
            self.oldest = self.oldest.max(self.turn.next());
        }
        self.state = PlayoutState::Idle;
        self.reply = Progress::new();
        heard
    }

    /// Voids all replies before `turn` that are not playing: their chunks are refused from now on.
    pub fn void_before(&mut self, turn: TurnId) {
        self.oldest = self.oldest.max(turn);
        if self.state == PlayoutState::Waiting && self.turn < turn {
            self.state = PlayoutState::Idle;
            self.reply = Progress::new();
        }
    }

    /// Where the reply stands.
    pub fn state(&self) -> PlayoutState {
        self.state
    }

    /// False: a reply of which nothing was sent waits; guests are heard meanwhile.
    pub fn let_begin(&mut self, may_begin: bool) {
        self.may_begin = may_begin;
    }

    /// The reply may be heard, but nothing of it has come yet.
    pub fn awaits_sound(&self) -> bool {
        self.state == PlayoutState::Playing && self.reply.sent == 0
    }

    /// A reply waits for a caller who may be going on ([`Playout::let_begin`]).
    pub fn is_held_back(&self) -> bool {
        self.awaits_sound() && !self.may_begin
    }

    /// The agent's sound is in the caller's ear, as far as is known.
    pub fn is_audible(&self) -> bool {
        self.state == PlayoutState::Playing && self.reply.heard < self.reply.sent
    }

    /// Sound that may be pushed now, in ms.
    pub fn room_ms(&self) -> u32 {
        (self.room() / self.per_ms) as u32
    }

    /// What was heard of the reply as of the last tick, echo or hold.
    pub fn heard_until(&self) -> HeardUntil {
        self.reply.heard_until(self.per_ms)
    }

    /// What went wrong so far.
    pub fn counters(&self) -> PlayoutCounters {
        self.counters
    }

    /// May `turn` be spoken: `None` no; `Some(true)` it is the reply at hand; `Some(false)` it may take its place.
    fn admits(&self, turn: TurnId) -> Option<bool> {
        match self.state {
            _ if turn < self.oldest => None,
            PlayoutState::Idle => Some(false),
            PlayoutState::Done => (turn > self.turn).then_some(false),
            PlayoutState::Waiting => (turn >= self.turn).then_some(turn == self.turn),
            PlayoutState::Playing | PlayoutState::Held => (turn == self.turn).then_some(true),
        }
    }

    fn adopt(&mut self, turn: TurnId) {
        self.turn = turn;
        self.state = PlayoutState::Waiting;
        self.reply = Progress::new();
        self.marks.void();
        self.alone.begin();
    }

    fn take(&mut self, chunk: &SpeechChunk) -> Push {
        match self.admits(chunk.turn) {
            None if chunk.turn > self.turn && chunk.turn >= self.oldest => return Push::Busy,
            None => return Push::Old,
            Some(true) if self.reply.complete => return Push::Old,
            Some(true) => {}
            Some(false) => self.adopt(chunk.turn),
        }
        if chunk.samples().len() as u64 > self.room() || !self.reply.has_room_for_ends() {
            return Push::Full;
        }
        if chunk.end != ChunkEnd::Reply && chunk.phrase != self.reply.open {
            self.reply.end_phrase_if_any();
            self.reply.open = chunk.phrase;
        }
        self.memory.write(self.reply.written, chunk.samples());
        self.reply.written += chunk.samples().len() as u64;
        match chunk.end {
            ChunkEnd::Nothing => {}
            ChunkEnd::Phrase => self.reply.end_phrase(),
            ChunkEnd::Reply => {
                self.reply.end_phrase_if_any();
                self.reply.complete = true;
            }
        }
        Push::Taken
    }

    fn send(&mut self, now: MediaTime, line: &mut dyn FnMut(ToLine)) {
        while self.out.pace().wants_more(now) {
            let len = self.next_len(now);
            if len == 0 {
                break;
            }
            self.send_packet(len, now, line);
            self.lay_mark_if_due(line);
        }
        // a phrase or the reply may have ended after its last sound was sent
        self.lay_mark_if_due(line);
        let dry = self.reply.sent > 0 && !self.reply.complete && self.out.pace().until_dry(now) <= 0;
        if dry && !self.reply.dry {
            self.counters.underruns += 1;
        }
        self.reply.dry = dry;
    }

    /// Samples to send next: a whole packet; less only where the reply ends, or where a phrase ends and the far end
    /// would otherwise wait for its last syllable.
    fn next_len(&self, now: MediaTime) -> u64 {
        let packet = PACKET_MS * self.per_ms;
        let unsent = self.reply.written - self.reply.sent;
        let phrase_ends = self.reply.ended().last().is_some_and(|&(_, to)| to == self.reply.written);
        let ends = self.reply.complete || phrase_ends && self.out.pace().queued(now) < packet;
        if unsent >= packet {
            packet
        } else if ends {
            unsent
        } else {
            0
        }
    }

    fn send_packet(&mut self, len: u64, now: MediaTime, line: &mut dyn FnMut(ToLine)) {
        let packet_len = PACKET_MS * self.per_ms;
        let mut sound = [0i16; CHUNK_LEN_MAX];
        for (position, sample) in (self.reply.sent..).zip(&mut sound[..len as usize]) {
            *sample = self.faded(position);
        }
        self.out.send(&sound[..packet_len as usize], now, line);
        self.reply.sent += len;
        self.reply.padding = packet_len - len;
    }

    fn faded(&self, position: u64) -> i16 {
        let sample = self.memory.sample(position);
        let fade = FADE_MS * self.per_ms;
        match self.reply.fade_from {
            Some(from) if (from..from + fade).contains(&position) => (i64::from(sample) * (position - from) as i64 / fade as i64) as i16,
            _ => sample,
        }
    }

    fn lay_mark_if_due(&mut self, line: &mut dyn FnMut(ToLine)) {
        if self.reply.is_mark_due(MARK_MS * self.per_ms) {
            self.reply.marked = self.reply.sent;
            line(ToLine::Mark(self.marks.lay(self.reply.sent)));
        }
    }

    /// Position to which the far end has come if everything reached it at once; beyond `sent` when long dry.
    fn played_in_time(&self, now: MediaTime) -> i64 {
        (self.reply.sent + self.reply.padding) as i64 - self.out.pace().until_dry(now)
    }

    fn listen(&mut self, now: MediaTime) {
        let played = self.played_in_time(now) - self.lag as i64;
        self.reply.hear_to(played.max(0) as u64, now);
    }

    fn report(&mut self, emit: &mut dyn FnMut(PlayoutEvent)) {
        while let Some(phrase) = self.reply.next_heard(self.per_ms) {
            emit(PlayoutEvent::PhraseHeard(phrase));
        }
        if self.reply.complete && self.reply.heard == self.reply.written {
            self.state = PlayoutState::Done;
            emit(PlayoutEvent::ReplyHeard { at: self.reply.heard_at });
        }
    }

    fn room(&self) -> u64 {
        (u64::from(WAITING_MS_MAX) * self.per_ms).saturating_sub(self.reply.written - self.reply.sent)
    }
}

impl Default for Playout {
    fn default() -> Self {
        Self::new()
    }
}

fn per_ms(codec: Codec) -> u64 {
    u64::from(codec.rate().hz()) / 1_000
}
