//! Change of sample rate, streaming.
//!
//! The signal is thought of as raised to a rate that both sides divide, low-passed there by a Kaiser-windowed sinc, and
//! thinned out again. Only the samples that survive are computed: each output sample is one dot product of the latest
//! input with one of `up` sub-filters ("phases"). Output samples of the same phase lie `down` input samples apart, so the
//! input is dealt out to `down` lanes, in which they are neighbours, and many are computed side by side. The stop-band
//! begins at half of the lower rate and lies 70 dB down. The filter is symmetric, so it delays every frequency alike, by
//! [`Resampler::delay_ms`]; the delay is that of [`SPAN`] / 2 samples of the lower rate.

mod run;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::codec::{f32_from_sample, sample_from_f32};
use run::{RUN, add_run};

/// Length of the filter in samples of the lower rate: 48 reach from 0.84 to 1.0 of the lower Nyquist frequency, so that
/// telephone speech (up to 3.4 kHz at 8 kHz) passes, for 3 ms of delay at 8 kHz and 1.5 ms at 16 kHz.
pub const SPAN: usize = 48;

/// Samples taken in at a time, 10 ms at 48 kHz; longer input is cut into such blocks.
const BLOCK: usize = 480;

/// A streaming converter between two rates. Allocates in [`Resampler::new`] only.
pub struct Resampler {
    from_hz: u32,
    up: usize,
    down: usize,
    taps: usize,
    /// `up` sub-filters of `taps` coefficients, oldest input first; each dealt out like the input, where that is.
    phases: Arc<[f32]>,
    /// The last `taps - 1` samples, then the block being worked on.
    window: Box<[f32]>,
    side_by_side: bool,
    /// The window dealt out: `down` lanes of equal length; none where there is one lane, the window itself, or where a block
    /// has too few samples of a phase.
    lanes: Box<[f32]>,
    /// Input samples of the next block to pass over before the next output sample.
    ahead: usize,
    /// Sub-filter of the next output sample.
    phase: usize,
}

impl Resampler {
    /// A converter at rest. Equal rates pass through unfiltered and undelayed. A rate of 0 counts as 1 Hz.
    pub fn new(from_hz: u32, to_hz: u32) -> Self {
        let (from_hz, to_hz) = (from_hz.max(1), to_hz.max(1));
        let shared = gcd(from_hz, to_hz);
        let (up, down) = ((to_hz / shared) as usize, (from_hz / shared) as usize);
        let side_by_side = BLOCK / down >= SIDE_BY_SIDE_MIN;
        // longer where the input is the faster side; as many for each lane, or a multiple of the dot product's sums
        let multiple = if side_by_side { down } else { SUMS };
        let taps = if up == down { 1 } else { (SPAN * down.max(up)).div_ceil(up).next_multiple_of(multiple) };
        // a whole run may be read past the last sample
        let window = vec![0.0; taps - 1 + BLOCK + RUN].into_boxed_slice();
        let lanes = vec![0.0; if side_by_side && down > 1 { down * (window.len().div_ceil(down) + RUN) } else { 0 }].into_boxed_slice();
        Self { from_hz, up, down, taps, phases: filter(up, down, taps, side_by_side), window, side_by_side, lanes, ahead: 0, phase: 0 }
    }

    /// How much later a sound comes out than it went in, in ms.
    pub fn delay_ms(&self) -> f64 {
        (self.up * self.taps - 1) as f64 / 2.0 / self.up as f64 * 1_000.0 / f64::from(self.from_hz)
    }

    /// Most samples that `input_len` samples can give.
    pub fn output_len_max(&self, input_len: usize) -> usize {
        (input_len * self.up).div_ceil(self.down)
    }

    /// Converts all of `input` and returns how many samples were written to `output`, which must hold
    /// [`Resampler::output_len_max`]; what does not fit is lost.
    pub fn process(&mut self, input: &[f32], output: &mut [f32]) -> usize {
        let mut written = 0;
        for block in input.chunks(BLOCK) {
            self.window[self.taps - 1..][..block.len()].copy_from_slice(block);
            written += self.convert(block.len(), &mut output[written..]);
        }
        written
    }

    /// Converts 16-bit `input` and appends to `output`; for the rim, where allocation is allowed.
    pub fn process_i16(&mut self, input: &[i16], output: &mut Vec<i16>) {
        if self.up == self.down {
            output.extend_from_slice(input);
            return;
        }
        let mut converted = vec![0.0; self.output_len_max(BLOCK)];
        for block in input.chunks(BLOCK) {
            for (slot, &sample) in self.window[self.taps - 1..].iter_mut().zip(block) {
                *slot = f32_from_sample(sample);
            }
            let written = self.convert(block.len(), &mut converted);
            output.extend(converted[..written].iter().map(|&sample| sample_from_f32(sample)));
        }
    }

    /// Appends what the delay still holds back and comes to rest; for the end of a 16-bit stream.
    pub fn finish_i16(&mut self, output: &mut Vec<i16>) {
        let silence = vec![0; self.taps / 2];
        self.process_i16(&silence, output);
        self.reset();
    }

    /// Forgets all sound.
    pub fn reset(&mut self) {
        self.window.fill(0.0);
        self.ahead = 0;
        self.phase = 0;
    }

    /// Gives every output sample whose newest input lies in the block of `len` samples now in the window.
    fn convert(&mut self, len: usize, output: &mut [f32]) -> usize {
        let (up, down) = (self.up, self.down);
        // the sample after the last one whose newest input is in the block
        let all = if self.ahead < len { ((len - self.ahead) * up - self.phase).div_ceil(down) } else { 0 };
        let written = all.min(output.len());
        let output = &mut output[..written];
        let at = |index: usize| {
            let turned = self.phase + index * down;
            (&self.phases[turned % up * self.taps..][..self.taps], self.ahead + turned / up)
        };
        if self.side_by_side {
            if down > 1 {
                deal(&self.window[..self.taps - 1 + len], down, &mut self.lanes);
            }
            let lanes = if down > 1 { &self.lanes } else { &self.window };
            for first in 0..up.min(written) {
                let (filter, oldest) = at(first);
                convolve(filter, lanes, down, oldest, &mut output[first..], up);
            }
        } else {
            for (index, sample) in output.iter_mut().enumerate() {
                let (filter, oldest) = at(index);
                *sample = dot(filter, &self.window[oldest..][..self.taps]);
            }
        }
        let turned = self.phase + all * down;
        self.ahead = self.ahead + turned / up - len;
        self.phase = turned % up;
        self.window.copy_within(len..len + self.taps - 1, 0);
        written
    }
}

/// Deals `from` out to `down` lanes, which share `to`.
fn deal(from: &[f32], down: usize, to: &mut [f32]) {
    for (lane, dealt) in to.chunks_exact_mut(to.len() / down).enumerate() {
        for (slot, &sample) in dealt.iter_mut().zip(from.iter().skip(lane).step_by(down)) {
            *slot = sample;
        }
    }
}

/// Output samples of a phase in a block from which on they are computed side by side.
const SIDE_BY_SIDE_MIN: usize = 16;

/// Every `up`-th sample of `output`, of which the first has its oldest input at `from` and each next one the next of its
/// lane.
fn convolve(filter: &[f32], lanes: &[f32], down: usize, from: usize, output: &mut [f32], up: usize) {
    let lane_len = lanes.len() / down;
    for (run, output) in output.chunks_mut(RUN * up).enumerate() {
        let mut sums = [0.0f32; RUN];
        for (offset, taps) in filter.chunks_exact(filter.len() / down).enumerate() {
            let oldest = from + offset;
            let lane = &lanes[oldest % down * lane_len..][..lane_len];
            add_run(taps, &lane[oldest / down + run * RUN..], &mut sums);
        }
        for (slot, sum) in output.chunks_mut(up).zip(sums) {
            slot[0] = sum;
        }
    }
}

/// Independent sums of one sample: as many as fill the widest vectors.
const SUMS: usize = 16;

/// One sample.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; SUMS];
    for (a, b) in a.as_chunks::<SUMS>().0.iter().zip(b.as_chunks::<SUMS>().0) {
        for at in 0..SUMS {
            sums[at] += a[at] * b[at];
        }
    }
    sums.iter().sum()
}

/// The filter of two rates.
struct Filter {
    up: usize,
    down: usize,
    phases: Weak<[f32]>,
}

/// Those in use, one copy for all calls: their own would not fit into the caches together.
static FILTERS: Mutex<Vec<Filter>> = Mutex::new(Vec::new());

fn filter(up: usize, down: usize, taps: usize, side_by_side: bool) -> Arc<[f32]> {
    let mut filters = FILTERS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = filters.iter().find(|filter| (filter.up, filter.down) == (up, down));
    if let Some(phases) = known.and_then(|filter| filter.phases.upgrade()) {
        return phases;
    }
    let mut phases = if up == down { vec![1.0].into() } else { design(up, down, taps) };
    if side_by_side && down > 1 {
        let straight = phases.clone();
        straight.chunks_exact(taps).zip(phases.chunks_exact_mut(taps)).for_each(|(from, to)| deal(from, down, to));
    }
    let phases = Arc::from(phases);
    filters.retain(|filter| filter.phases.strong_count() > 0);
    filters.push(Filter { up, down, phases: Arc::downgrade(&phases) });
    phases
}

/// The sub-filters of a low-pass at rate `from · up`, each scaled to pass a constant unchanged.
fn design(up: usize, down: usize, taps: usize) -> Box<[f32]> {
    let len = up * taps;
    let centre = (len - 1) as f64 / 2.0;
    // middle of the transition band, as a share of the rate at which the filter is thought
    let cutoff = CUTOFF / 2.0 / up.max(down) as f64;
    let mut phases = vec![0.0; len].into_boxed_slice();
    for phase in 0..up {
        let tap = |newest_first: usize| {
            let x = (phase + up * newest_first) as f64 - centre;
            sinc(2.0 * cutoff * x) * kaiser(x / (centre + 0.5))
        };
        let gain: f64 = (0..taps).map(tap).sum();
        for newest_first in 0..taps {
            phases[phase * taps + taps - 1 - newest_first] = (tap(newest_first) / gain) as f32;
        }
    }
    phases
}

/// Middle of the transition band as a share of the lower Nyquist frequency: it ends at that frequency.
const CUTOFF: f64 = 0.91;
/// Kaiser's shape for 70 dB: 0.1102 · (70 - 8.7).
const BETA: f64 = 6.76;

fn sinc(x: f64) -> f64 {
    let angle = std::f64::consts::PI * x;
    if angle.abs() < 1e-9 { 1.0 } else { angle.sin() / angle }
}

/// The window at `x` in -1..=1.
fn kaiser(x: f64) -> f64 {
    bessel_i0(BETA * (1.0 - x * x).max(0.0).sqrt()) / bessel_i0(BETA)
}

/// Modified Bessel function of order 0, by its series.
fn bessel_i0(x: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    // 30 terms are beyond f64's precision for the arguments used here (below 7)
    for k in 1..30 {
        term *= (x / 2.0 / f64::from(k)).powi(2);
        sum += term;
    }
    sum
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
