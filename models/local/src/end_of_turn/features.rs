//! The log-mel picture of each call's last 8 s, kept up to date 10 ms at a time.
//!
//! The reference takes 8 s of sound (zeros before it when there is less), scales it to zero mean and unit variance,
//! mirrors its two edges, and analyses 800 windows centred on multiples of 10 ms. Done anew for every question that
//! is 5 ms of work. Done as the sound comes it is one window per 10 ms, and the rest moves to the query:
//!
//! * scaling by the deviation is a subtraction in the log domain; removing the mean touches two bands (see `mel`);
//! * a window centred on the end of a block needs 40 samples of the next block, so each push analyses the window
//!   before; the very last window of a query sees the edge's mirror instead and is analysed at the query;
//! * the first two windows of a full 8 s see the other mirror and are analysed anew too, from a history of samples.

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

    fn query(&mut self, slot: usize, query: &mut TurnQuery) {
        let slot = &self.slots[slot];
        slot.analyse_edges(&mut self.analysis, &mut self.first, &mut self.last);
        let picture = Picture { slot, first: &self.first, last: &self.last };
        let (mean, variance) = slot.mean_and_variance();
        for (frame, low) in self.low.iter_mut().enumerate() {
            *low = self.analysis.low_without_mean(picture.frame(frame), mean);
        }
        picture.write(&self.low, (variance + VARIANCE_FLOOR).log10() as f32, &mut query.features);
        query.frames = slot.frames();
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
    /// Samples for the mirrored edge of a full span, as 16 bits of their block's peak: 16 bits of full scale would show in
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

    /// Blocks of real sound in the span.
    fn frames(&self) -> usize {
        self.blocks.min(TURN_FRAMES as u64) as usize
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

    /// Mean and variance over the whole span, the zeros before the sound included.
    fn mean_and_variance(&self) -> (f64, f64) {
        let [sum, squares] = self.sums[..self.frames()].iter().fold([0.0; 2], |total, block| [total[0] + block[0], total[1] + block[1]]);
        let mean = sum / SPAN as f64;
        (mean, (squares / SPAN as f64 - mean * mean).max(0.0))
    }

    /// Analyses the windows that reach over the span's edges, where the sound is mirrored.
    fn analyse_edges(&self, analysis: &mut MelAnalysis, first: &mut [MelFrame; MIRRORED], last: &mut MelFrame) {
        let mut window = [0.0; WINDOW];
        let kept = WINDOW - AHEAD;
        window[..kept].copy_from_slice(&self.recent[RECENT - kept..]);
        for i in 0..AHEAD {
            window[kept + i] = self.recent[RECENT - 2 - i];
        }
        analysis.analyse(&window, last);

        for (frame, mel) in first.iter_mut().enumerate() {
            for (i, sample) in window.iter_mut().enumerate() {
                *sample = self.span_sample((frame * HEARD_LEN + i).abs_diff(HALF));
            }
            analysis.analyse(&window, mel);
        }
    }

    /// A sample of the span by its distance from the span's start.
    fn span_sample(&self, offset: usize) -> f32 {
        let padding = SPAN - self.frames() * HEARD_LEN;
        if offset < padding {
            return 0.0;
        }
        // with a full span the oldest block stands where the next will be written
        let oldest = if padding == 0 { (self.blocks % TURN_FRAMES as u64) as usize * HEARD_LEN } else { 0 };
        let at = (oldest + offset - padding) % SPAN;
        f32::from(self.history[at]) * self.units[at / HEARD_LEN]
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
    slot: &'a Slot,
    first: &'a [MelFrame; MIRRORED],
    last: &'a MelFrame,
}

impl Picture<'_> {
    fn frame(&self, frame: usize) -> &MelFrame {
        let padding = TURN_FRAMES - self.slot.frames();
        if frame == TURN_FRAMES - 1 {
            return self.last;
        }
        // the mirror at the start matters once sound reaches into the first windows
        if frame < MIRRORED && padding < MIRRORED {
            return &self.first[frame];
        }
        // one window of the padding reaches 40 samples into the sound
        if frame + 1 < padding || self.slot.blocks == 0 {
            return &MelFrame::SILENCE;
        }
        let at = self.slot.blocks + frame as u64; // + a whole ring, so that the difference cannot be negative
        &self.slot.mel[(at % TURN_FRAMES as u64) as usize]
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
