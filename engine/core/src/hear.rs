//! Hearing: packets of any size at any moment in, exactly one 10 ms frame at 16 kHz out at each tick.
//!
//! Packets wait in [`jitter::Jitter`] in the sender's order. Each tick takes 10 ms from there; where nothing has come
//! (or a packet was lost) [`conceal::Conceal`] goes on with the last pitch period, fading into the line's own noise.
//! The delay between caller and engine is not set, it happens: it begins with what the first packet brought and grows
//! by one frame whenever a tick found nothing. Back down it goes in the caller's pauses: when, for half a second or
//! more, some sound was left over at every tick, that much is pure delay, and quiet frames are skipped (two are
//! blended into one) until only the cushion remains that the line has shown to need.
//!
//! That is for a telephone line, whose packets come over TCP: late together, never lost. A room's come over a network
//! that loses, delays and reorders each for itself; [`opus::OpusEar`] hears those.

pub mod conceal;
pub mod jitter;
pub mod opus;
pub mod order;
pub mod sequence;
pub mod stretch;
pub mod target;

use crate::frame::{HeardFrame, Rate};
use crate::packet::{Codec, Packet};
use crate::resample::Resampler;
use conceal::Conceal;
use jitter::{Jitter, Taken};

/// What happened to a caller's packets and frames since [`Hear::reset`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HearCounters {
    /// Packets that came, whatever became of them.
    pub received: u32,
    /// Packets whose moment had passed.
    pub late: u32,
    /// Packets that had come before.
    pub duplicate: u32,
    /// Packets that never came, by their sequence.
    pub lost: u32,
    /// Lost packets that were rebuilt from their successor (Opus).
    pub recovered: u32,
    /// Packets of another codec or rate than the call's, and damaged ones.
    pub foreign: u32,
    /// Ticks in which some sound had to be made up.
    pub concealed_frames: u32,
    /// Sound thrown away because too much was waiting.
    pub dropped_ms: u32,
    /// Sound skipped to win back delay.
    pub skipped_ms: u32,
    /// Sound repeated to gain delay, besides quiet (Opus).
    pub stretched_ms: u32,
    /// The delay aimed at now (Opus).
    pub target_ms: u32,
}

/// The ear of a telephone's leg: mu-law at 8 kHz. Allocates in [`Hear::new`] only.
pub struct Hear {
    jitter: Jitter,
    conceal: Conceal,
    to_16_khz: Resampler,
    counters: HearCounters,
}

impl Default for Hear {
    fn default() -> Self {
        Self::new()
    }
}

impl Hear {
    /// An ear that has heard nothing.
    pub fn new() -> Self {
        Self {
            jitter: Jitter::new(),
            conceal: Conceal::new(Rate::Hz8000),
            to_16_khz: Resampler::new(Rate::Hz8000.hz(), Rate::Hz16000.hz()),
            counters: HearCounters::default(),
        }
    }

    /// Makes ready for a new call, without allocation.
    pub fn reset(&mut self) {
        self.jitter.reset();
        self.conceal.reset();
        self.to_16_khz.reset();
        self.counters = HearCounters::default();
    }

    /// Takes a packet, in whatever order it comes.
    pub fn receive(&mut self, packet: &Packet) {
        self.counters.received = self.counters.received.saturating_add(1);
        if packet.codec == Codec::Mulaw {
            self.jitter.insert(packet, &mut self.counters);
        } else {
            self.counters.foreign = self.counters.foreign.saturating_add(1);
        }
    }

    /// Gives the next 10 ms; to be called once per tick.
    pub fn tick(&mut self, heard: &mut HeardFrame) {
        let mut frame = [0.0; FRAME_LEN];
        self.take_frame(&mut frame);
        if self.jitter.may_skip() && self.jitter.should_skip(self.conceal.is_quiet(&frame)) {
            self.blend_next_frame(&mut frame);
        }
        self.to_16_khz.process(&frame, heard);
    }

    /// The caller's sound that is waiting now, in ms: the delay that hearing adds, besides [`Hear::filter_delay_ms`].
    pub fn waiting_ms(&self) -> u32 {
        self.jitter.waiting_ms()
    }

    /// The delay of the conversion to 16 kHz, in ms.
    pub fn filter_delay_ms(&self) -> f64 {
        self.to_16_khz.delay_ms()
    }

    /// What happened so far.
    pub fn counters(&self) -> HearCounters {
        self.counters
    }

    /// Fills the frame with waiting sound, and with made-up sound where there is none.
    fn take_frame(&mut self, frame: &mut [f32; FRAME_LEN]) {
        self.jitter.begin_tick();
        let mut filled = 0;
        let mut concealed = false;
        while filled < FRAME_LEN {
            let rest = &mut frame[filled..];
            filled += match self.jitter.take(rest, &mut self.counters) {
                Taken::Sound(taken) => {
                    self.conceal.learn(&mut rest[..taken]);
                    taken
                }
                Taken::Gap(missing) => {
                    concealed = true;
                    self.conceal.make_up(&mut rest[..missing]);
                    missing
                }
            };
        }
        self.jitter.end_tick();
        if concealed {
            self.counters.concealed_frames = self.counters.concealed_frames.saturating_add(1);
        } else {
            self.conceal.follow_noise(frame);
        }
    }

    /// Wins back one frame of delay: slides from the frame at hand into the one after it.
    fn blend_next_frame(&mut self, frame: &mut [f32; FRAME_LEN]) {
        let earlier = *frame;
        self.jitter.skipped();
        self.take_frame(frame);
        for (index, (sample, earlier)) in frame.iter_mut().zip(earlier).enumerate() {
            let weight = index as f32 / FRAME_LEN as f32;
            *sample = earlier * (1.0 - weight) + *sample * weight;
        }
        self.counters.skipped_ms = self.counters.skipped_ms.saturating_add(FRAME_MS);
    }
}

const FRAME_LEN: usize = Rate::Hz8000.frame_len();
const FRAME_MS: u32 = crate::time::TICK_MS as u32;
