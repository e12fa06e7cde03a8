//! The log-mel picture of each call's last 8 s, kept up to date 10 ms at a time.
//!
//! The reference takes 8 s of sound (zeros before it when there is less), scales it to zero mean and unit variance,
//! mirrors its two edges, and analyses 800 windows centred on multiples of 10 ms. Done anew for every question that
//! is 5 ms of work. Done as the sound comes it is one window per 10 ms, and the rest moves to the query:
//!
//! * scaling by the deviation is a subtraction in the log domain; removing the mean touches two bands (see `mel`);
//! * a window centred on the end of a block needs 40 samples of the next block, so each push analyses the window
//!   before; the very last window of a query sees the edge's mirror instead and is analysed at the query, as are the
//!   first two of a full 8 s, which see the other mirror: both from a history of samples, so that a query may be about
//!   some frames ago.

use voiced_core::frame::{HEARD_LEN, HeardFrame};
use voiced_core::model::{TURN_FRAMES, TURN_MELS, TurnFeatures, TurnQuery};

use super::mel::{LOW_MELS, MelAnalysis, MelFrame, NO_POWER_LOG10, WINDOW};
use crate::exp::ROUND;

/// Samples in the model's 8 s.
const SPAN: usize = TURN_FRAMES * HEARD_LEN;
/// Samples between the start of an analysis window and its centre; also how far the edges are mirrored.
const HALF: usize = WINDOW / 2;
/// Samples that the window centred on a block's start needs of that block's successor.
const AHEAD: usize = HALF - HEARD_LEN;
/// Newest samples kept in order: a window that ends `AHEAD` samples into the newest block begins here.
const RECENT: usize = WINDOW - AHEAD + HEARD_LEN;
/// Windows at the start of a full span that reach over its first sample.
const MIRRORED: usize = HALF.div_ceil(HEARD_LEN);
/// The reference's guard against dividing by the deviation of silence.
const VARIANCE_FLOOR: f64 = 1e-7;
/// The reference's floor of a band's power, as log10.
const POWER_FLOOR_LOG10: f32 = -10.0;
/// Decades below the loudest band at which the picture is clamped.
const RANGE_LOG10: f32 = 8.0;
/// Bands written together at a query: one cache line of a stored frame.
const MELS_AT_ONCE: usize = 16;

/// Smart Turn's features for every slot of one audio thread; about 550 kB a slot.
pub struct SmartTurnFeatures {
    analysis: MelAnalysis,
    slots: Vec<Slot>,
    /// Levels of the newest query: windows that the edges change, and the two bands that the mean changes.
    first: [MelFrame; MIRRORED],
    last: MelFrame,
    low: Box<[[f32; LOW_MELS]]>,
}

impl SmartTurnFeatures {
    /// Room for calls in slots `0..slots`.
    pub fn new(slots: usize) -> Self {
        Self {
            analysis: MelAnalysis::new(),
            slots: (0..slots).map(|_| Slot::new()).collect(),
            first: [MelFrame::SILENCE; MIRRORED],
            last: MelFrame::SILENCE,
            low: vec![[NO_POWER_LOG10; LOW_MELS]; TURN_FRAMES].into_boxed_slice(),
        }
    }
}

impl TurnFeatures for SmartTurnFeatures {
    fn push(&mut self, slot: usize, frame: &HeardFrame) {
        self.slots[slot].push(frame, &mut self.analysis);
    }

    fn query(&mut self, slot: usize, frames_ago: usize, query: &mut TurnQuery) {
        let span = Span::new(&self.slots[slot], frames_ago);
        span.analyse_edges(&mut self.analysis, &mut self.first, &mut self.last);
        let picture = Picture { span, first: &self.first, last: &self.last };
        let (mean, variance) = span.mean_and_variance();
        for (frame, low) in self.low.iter_mut().enumerate() {
            *low = self.analysis.low_without_mean(picture.frame(frame), mean);
        }
        picture.write(&self.low, (variance + VARIANCE_FLOOR).log10() as f32, &mut query.features);
        query.frames = span.blocks;
    }

    fn reset(&mut self, slot: usize) {
        self.slots[slot].reset();
    }
}

/// One call's sound: rings over the last 8 s, each indexed by 10 ms block since the reset, modulo [`TURN_FRAMES`].
struct Slot {
    /// Blocks taken since the reset.
    blocks: u64,
    /// The window centred on the start of a block is stored at that block's place.
    mel: Box<[MelFrame]>,
    /// Sum and sum of squares of a block.
    sums: Box<[[f64; 2]]>,
    /// Samples for the mirrored edges of a span, as 16 bits of their block's peak: 16 bits of full scale would show in
    /// the first two windows after a quiet start, and the model's answer with them.
    history: Box<[i16]>,
    /// What a unit of a block's history is worth.
    units: Box<[f32]>,
    recent: [f32; RECENT],
}

impl Slot {
    fn new() -> Self {
        Self {
            blocks: 0,
            mel: vec![MelFrame::SILENCE; TURN_FRAMES].into_boxed_slice(),
            sums: vec![[0.0; 2]; TURN_FRAMES].into_boxed_slice(),
            history: vec![0; SPAN].into_boxed_slice(),
            units: vec![0.0; TURN_FRAMES].into_boxed_slice(),
            recent: [0.0; RECENT],
        }
    }

    fn reset(&mut self) {
        // what the rings hold is never read before it is written again
        self.blocks = 0;
        self.recent.fill(0.0);
    }

    fn push(&mut self, block: &HeardFrame, analysis: &mut MelAnalysis) {
        let at = (self.blocks % TURN_FRAMES as u64) as usize;
        self.recent.copy_within(HEARD_LEN.., 0);
        self.recent[RECENT - HEARD_LEN..].copy_from_slice(block);
        let (peak, sums) = peak_and_sums(block);
        self.sums[at] = sums;
        self.units[at] = peak / f32::from(i16::MAX);
        let per_unit = 1.0 / self.units[at];
        for (kept, sample) in self.history[at * HEARD_LEN..(at + 1) * HEARD_LEN].iter_mut().zip(block) {
            // a library call without SSE 4.1, where this is two additions; the integer stands in the low bits
            *kept = (sample * per_unit + ROUND).to_bits() as i16;
        }
        // the window around the start of the block before this one; before the first block, 40 samples reach into it
        let before = (at + TURN_FRAMES - 1) % TURN_FRAMES;
        if let Some(window) = self.recent.first_chunk() {
            analysis.analyse(window, &mut self.mel[before]);
        }
        self.blocks += 1;
    }
}

/// The 8 s that a query is about.
#[derive(Clone, Copy)]
struct Span<'a> {
    slot: &'a Slot,
    /// Blocks of real sound in it; zeros stand before them.
    blocks: usize,
    /// The first of them, counted since the reset.
    first: u64,
}

impl<'a> Span<'a> {
    /// As it was `ago` blocks ago. What has left the rings meanwhile is silence.
    fn new(slot: &'a Slot, ago: usize) -> Self {
        let kept = slot.blocks.min(TURN_FRAMES as u64);
        Self { slot, blocks: (kept as usize).saturating_sub(ago), first: slot.blocks - kept }
    }

    fn padding(&self) -> usize {
        TURN_FRAMES - self.blocks
    }

    /// Where the rings have what belongs to a place of the span; its sound, for places behind the padding.
    fn place(&self, frame: usize) -> usize {
        let at = self.first + (frame + TURN_FRAMES - self.padding()) as u64; // + a whole ring, so that the difference cannot be negative
        (at % TURN_FRAMES as u64) as usize
    }

    /// Mean and variance over the whole span, the zeros before the sound included.
    fn mean_and_variance(&self) -> (f64, f64) {
        let blocks = (self.padding()..TURN_FRAMES).map(|frame| self.slot.sums[self.place(frame)]);
        let [sum, squares] = blocks.fold([0.0; 2], |total, block| [total[0] + block[0], total[1] + block[1]]);
        let mean = sum / SPAN as f64;
        (mean, (squares / SPAN as f64 - mean * mean).max(0.0))
    }

    /// Analyses the windows that reach over the span's edges, where the sound is mirrored.
    fn analyse_edges(&self, analysis: &mut MelAnalysis, first: &mut [MelFrame; MIRRORED], last: &mut MelFrame) {
        let mut window = [0.0; WINDOW];
        for (i, sample) in window.iter_mut().enumerate() {
            let offset = SPAN + AHEAD - WINDOW + i;
            *sample = self.sample(offset.min(2 * (SPAN - 1) - offset));
        }
        analysis.analyse(&window, last);

        for (frame, mel) in first.iter_mut().enumerate() {
            for (i, sample) in window.iter_mut().enumerate() {
                *sample = self.sample((frame * HEARD_LEN + i).abs_diff(HALF));
            }
            analysis.analyse(&window, mel);
        }
    }

    /// A sample by its distance from the span's start.
    fn sample(&self, offset: usize) -> f32 {
        let frame = offset / HEARD_LEN;
        if frame < self.padding() {
            return 0.0;
        }
        let place = self.place(frame);
        f32::from(self.slot.history[place * HEARD_LEN + offset % HEARD_LEN]) * self.slot.units[place]
    }
}

/// The largest of a block's samples without its sign, and their sum and sum of squares. Each is many that are
/// independent: a single one would wait for itself 160 times.
fn peak_and_sums(block: &HeardFrame) -> (f32, [f64; 2]) {
    const APART: usize = 8;
    /// Far below any sound, and its inverse is still a number.
    const QUIETEST: f32 = 1e-20;
    let (mut peaks, mut sums, mut squares) = ([QUIETEST; APART], [0.0; APART], [0.0; APART]);
    for samples in block.as_chunks::<APART>().0 {
        for (at, sample) in samples.iter().enumerate() {
            peaks[at] = if sample.abs() > peaks[at] { sample.abs() } else { peaks[at] };
            let sample = f64::from(*sample);
            sums[at] += sample;
            squares[at] += sample * sample;
        }
    }
    (peaks.iter().fold(0.0, |peak, other| peak.max(*other)), [sums.iter().sum(), squares.iter().sum()])
}

/// The 800 windows of a query in order, before scaling.
struct Picture<'a> {
    span: Span<'a>,
    first: &'a [MelFrame; MIRRORED],
    last: &'a MelFrame,
}

impl Picture<'_> {
    fn frame(&self, frame: usize) -> &MelFrame {
        let padding = self.span.padding();
        if frame == TURN_FRAMES - 1 {
            return self.last;
        }
        // the mirror at the start matters once sound reaches into the first windows
        if frame < MIRRORED && padding < MIRRORED {
            return &self.first[frame];
        }
        // one window of the padding reaches 40 samples into the sound; it is not kept where that is the oldest of a full ring
        let reaches_in = frame + 1 == padding && self.span.first == 0 && self.span.slot.blocks > 0;
        if frame < padding && !reaches_in {
            return &MelFrame::SILENCE;
        }
        &self.span.slot.mel[self.span.place(frame)]
    }

    /// Scales, clamps and transposes the picture into `features`.
    fn write(&self, low: &[[f32; LOW_MELS]], variance_log10: f32, features: &mut [f32]) {
        let scaled = |log_power: f32| (log_power - variance_log10).max(POWER_FLOOR_LOG10);
        let loudest = (0..TURN_FRAMES).fold(POWER_FLOOR_LOG10, |loudest, frame| {
            let fixed = self.frame(frame).log_power[LOW_MELS..].iter();
            fixed.chain(&low[frame]).fold(loudest, |loudest, &level| loudest.max(scaled(level)))
        });
        let floor = loudest - RANGE_LOG10;
        let feature = |log_power: f32| (scaled(log_power).max(floor) + 4.0) / 4.0;
        for mels in (0..TURN_MELS).step_by(MELS_AT_ONCE) {
            for frame in 0..TURN_FRAMES {
                let column = &self.frame(frame).log_power[mels..mels + MELS_AT_ONCE];
                for (mel, &level) in column.iter().enumerate() {
                    features[(mels + mel) * TURN_FRAMES + frame] = feature(level);
                }
            }
        }
        for (frame, levels) in low.iter().enumerate() {
            for (mel, &level) in levels.iter().enumerate() {
                features[mel * TURN_FRAMES + frame] = feature(level);
            }
        }
    }
}
