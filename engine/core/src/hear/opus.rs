//! The ear for one sender of Opus over a lossy network: packets at any moment in, 10 ms at 16 kHz out at each tick.
//!
//! [`order::Order`](super::order::Order) says what comes next; here it is decoded, rebuilt from its successor, made up
//! by libopus for [`MADE_UP_MS_MAX`] and then faded into the line's own noise. Sound is decoded only when its moment
//! has come. Where it comes with more delay than the network needs, quiet frames are skipped and speech loses a period
//! now and then; where it comes with less, quiet and periods are repeated.

use super::HearCounters;
use super::conceal::Conceal;
use super::order::{Next, Order};
use super::stretch::{PERIOD_MAX, STRETCH_LEN, lengthen, shorten};
use crate::codec::opus::{DECODED_LEN_MAX, OpusDecoder, OpusError};
use crate::frame::{HEARD_LEN, HeardFrame, Rate};
use crate::packet::{Codec, Packet};
use crate::time::TICK_MS;

/// Sound that libopus makes up in a row; then its voice is a machine's.
const MADE_UP_MS_MAX: usize = 100;
/// Delay beyond the target that quiet is skipped for, in ms: what one skip wins back.
const SPARE_MS: i64 = TICK_MS as i64;
/// Delay beyond the target that speech is sped up for, in ms; never by more than that.
const HURRY_MS: i64 = 10;
/// Delay short of the target that speech is slowed down for, in ms.
const SHORT_MS: i64 = 20;
/// Speech loses or gains a period in one of so many ticks at most: a change of speed by a sixth stays natural.
const STRETCH_TICKS: u32 = 4;
/// Decoded sound that may be pending: a packet, what stretching asks for before it, and a period more.
const SOUND_LEN: usize = DECODED_LEN_MAX + STRETCH_LEN + PERIOD_MAX;
const PER_MS: usize = HEARD_LEN / TICK_MS as usize;

/// The ear. Allocates in [`OpusEar::new`] only.
pub struct OpusEar {
    order: Order,
    decoder: OpusDecoder,
    conceal: Conceal,
    /// Decoded sound, `at..len` of it pending.
    sound: [f32; SOUND_LEN],
    at: usize,
    len: usize,
    now_ms: i64,
    /// Samples made up in a row.
    made_up: usize,
    /// Some of this tick's sound was made up.
    concealed: bool,
    /// The pending sound is the line's noise: the sender is silent.
    resting: bool,
    since_stretch: u32,
    counters: HearCounters,
}

impl OpusEar {
    /// An ear that has heard nothing.
    pub fn new() -> Result<Self, OpusError> {
        Ok(Self {
            order: Order::new(),
            decoder: OpusDecoder::new()?,
            conceal: Conceal::new(Rate::Hz16000),
            sound: [0.0; SOUND_LEN],
            at: 0,
            len: 0,
            now_ms: 0,
            made_up: 0,
            concealed: false,
            resting: true,
            since_stretch: 0,
            counters: HearCounters::default(),
        })
    }

    /// Takes a packet, in whatever order it comes.
    pub fn receive(&mut self, packet: &Packet) {
        self.counters.received = self.counters.received.saturating_add(1);
        if packet.codec == Codec::Opus {
            self.order.insert(packet, self.now_ms, &mut self.counters);
        } else {
            self.counters.foreign = self.counters.foreign.saturating_add(1);
        }
    }

    /// Gives the next 10 ms; to be called once per tick.
    pub fn tick(&mut self, heard: &mut HeardFrame) {
        self.concealed = false;
        self.take_frame(heard);
        if self.concealed {
            self.counters.concealed_frames = self.counters.concealed_frames.saturating_add(1);
        } else {
            self.conceal.follow_noise(heard);
            self.keep_target(heard);
        }
        self.now_ms += TICK_MS as i64;
        self.counters.target_ms = self.order.target_ms();
    }

    /// The sender's sound that is waiting now, in ms.
    pub fn waiting_ms(&self) -> u32 {
        self.order.waiting_ms() as u32 + ((self.len - self.at) / PER_MS) as u32
    }

    /// The sender sends nothing now; what is heard is an imitation of its noise.
    pub fn is_resting(&self) -> bool {
        self.resting
    }

    /// What happened so far.
    pub fn counters(&self) -> HearCounters {
        self.counters
    }

    fn take_frame(&mut self, out: &mut HeardFrame) {
        let mut filled = 0;
        while filled < HEARD_LEN {
            if self.at == self.len {
                self.more();
            }
            let taken = (self.len - self.at).min(HEARD_LEN - filled);
            out[filled..filled + taken].copy_from_slice(&self.sound[self.at..self.at + taken]);
            self.at += taken;
            filled += taken;
        }
    }

    /// Adds at least one sample to the pending sound.
    fn more(&mut self) {
        self.sound.copy_within(self.at..self.len, 0);
        (self.at, self.len) = (0, self.len - self.at);
        let from = self.len;
        let room = &mut self.sound[from..from + DECODED_LEN_MAX];
        let next = self.order.next(self.now_ms, &mut self.counters);
        self.resting = matches!(next, Next::Rest(_));
        match next {
            Next::Play { packet, skip } => {
                let len = self.decoder.decode(packet.payload(), room);
                self.heard(len, skip);
            }
            Next::Rebuild { packet, len, skip } => {
                let len = len.next_multiple_of(GRAIN).min(DECODED_LEN_MAX);
                let len = self.decoder.decode_before(packet.payload(), &mut room[..len]);
                self.heard(len, skip);
            }
            Next::MakeUp(len) => self.make_up(len),
            Next::Rest(len) => {
                self.conceal.make_up(&mut room[..len]);
                self.len += len;
            }
        }
    }

    /// Sound was decoded behind the pending sound.
    fn heard(&mut self, len: usize, skip: usize) {
        if len <= skip {
            return self.make_up(HEARD_LEN);
        }
        self.sound.copy_within(self.len + skip..self.len + len, self.len);
        let len = len - skip;
        self.conceal.learn(&mut self.sound[self.len..self.len + len]);
        self.len += len;
        self.made_up = 0;
    }

    fn make_up(&mut self, len: usize) {
        self.concealed = true;
        let sound = &mut self.sound[self.len..self.len + len];
        self.made_up = self.made_up.saturating_add(len);
        if self.made_up <= MADE_UP_MS_MAX * PER_MS && self.decoder.make_up(sound) == len {
            self.conceal.learn(sound);
        } else {
            self.conceal.make_up(sound);
        }
        self.len += len;
    }

    /// Moves the delay towards its target where it is heard least.
    fn keep_target(&mut self, heard: &mut HeardFrame) {
        self.since_stretch = self.since_stretch.saturating_add(1);
        let Some(excess_ms) = self.order.excess_ms(self.now_ms + TICK_MS as i64, self.len - self.at) else { return };
        let may_stretch = self.since_stretch >= STRETCH_TICKS;
        let quiet = self.conceal.is_quiet(heard);
        if excess_ms >= SPARE_MS && quiet {
            self.skip_frame(heard);
        } else if excess_ms >= HURRY_MS && may_stretch {
            self.gather(STRETCH_LEN);
            let removed = shorten(&mut self.sound[self.at..self.len], excess_ms as usize * PER_MS);
            self.len -= removed;
            self.stretched(removed, true);
        } else if excess_ms <= -SHORT_MS && quiet {
            // the quiet once more: the made-up frame moves no playhead
            self.sound.copy_within(self.at..self.len, 0);
            (self.at, self.len) = (0, self.len - self.at);
            if self.len + HEARD_LEN <= SOUND_LEN {
                self.sound.copy_within(..self.len, HEARD_LEN);
                self.conceal.make_up(&mut self.sound[..HEARD_LEN]);
                self.len += HEARD_LEN;
            }
        } else if excess_ms <= -SHORT_MS && may_stretch {
            self.gather(STRETCH_LEN);
            let len = self.len - self.at;
            let added = lengthen(&mut self.sound[self.at..], len);
            self.len += added;
            self.stretched(added, false);
        }
    }

    fn stretched(&mut self, samples: usize, shorter: bool) {
        if samples == 0 {
            return;
        }
        self.since_stretch = 0;
        let ms = (samples / PER_MS) as u32;
        let counter = if shorter { &mut self.counters.skipped_ms } else { &mut self.counters.stretched_ms };
        *counter = counter.saturating_add(ms);
    }

    /// Slides from the quiet frame at hand into the one after it, if that is there.
    fn skip_frame(&mut self, heard: &mut HeardFrame) {
        self.gather(HEARD_LEN);
        if self.len - self.at < HEARD_LEN {
            return;
        }
        for (index, (sample, later)) in heard.iter_mut().zip(&self.sound[self.at..]).enumerate() {
            let weight = index as f32 / HEARD_LEN as f32;
            *sample = *sample * (1.0 - weight) + later * weight;
        }
        self.at += HEARD_LEN;
        self.counters.skipped_ms = self.counters.skipped_ms.saturating_add(TICK_MS as u32);
    }

    /// Decodes ahead until so much is pending, as far as the sound goes on without a gap.
    fn gather(&mut self, len: usize) {
        // at most a packet a round, and none is shorter than 2.5 ms
        while self.len - self.at < len && self.order.continues() {
            self.more();
        }
    }
}

/// Samples in 2.5 ms: libopus makes sound up in whole ones.
const GRAIN: usize = 40;
