//! What the encoder makes of padding, computed once.
//!
//! Most questions are about less than 8 s of sound, and the positions before it hold nothing. They cannot be left out,
//! because the model attends to them; but what they hold depends little on the sound after them. So each layer's keys
//! and values of the padding are averaged over some synthetic sounds when the model is loaded, and a question computes
//! only its own positions.

use std::f32::consts::TAU;

use voiced_core::frame::HEARD_LEN;
use voiced_core::model::{TURN_FRAMES, TurnFeatures, TurnQuery};

use super::SmartTurnFeatures;
use super::attention::Memory;
use super::kernel::Line;
use super::weights::{LAYERS, POSITIONS, STATE};

/// Blocks of 10 ms of the sounds from which the padding is learned: as long as questions are, mostly short. Twelve
/// keep as many decisions as two dozen; the shortest leaves no position without a lesson.
const LENGTHS: [usize; 12] = [2, 60, 110, 140, 180, 220, 260, 300, 360, 440, 540, 680];

/// Blocks of 10 ms of the pause in which a question is asked.
const PAUSE: usize = 20;

/// The padding's part of each layer.
pub(super) struct Padding {
    pub(super) layers: [Memory; LAYERS],
    /// The encoder's results for the padding in codes, and the logarithms of their weights.
    pub(super) states: Vec<u8>,
    pub(super) logits: Vec<f32>,
}

impl Padding {
    /// Of no use but to compute every position.
    pub(super) fn none() -> Self {
        Self { layers: std::array::from_fn(|_| Memory::new()), states: vec![0; POSITIONS * STATE], logits: vec![0.0; POSITIONS] }
    }
}

/// Sums of what the padding became in each sound.
pub(super) struct Lesson {
    layers: [(Vec<i32>, Vec<i32>); LAYERS],
    states: Vec<i32>,
    logits: Vec<f32>,
    /// Sounds in which a position was padding.
    counts: [i32; POSITIONS],
    /// Positions of padding in this sound.
    padding: usize,
}

impl Lesson {
    pub(super) fn new() -> Self {
        let sums = || (vec![0; POSITIONS * STATE], vec![0; POSITIONS * STATE]);
        Self { layers: std::array::from_fn(|_| sums()), states: vec![0; POSITIONS * STATE], logits: vec![0.0; POSITIONS], counts: [0; POSITIONS], padding: 0 }
    }

    /// A sound begins whose first positions are padding.
    pub(super) fn begin(&mut self, padding: usize) {
        self.padding = padding;
        self.counts[..padding].iter_mut().for_each(|count| *count += 1);
    }

    pub(super) fn hear_layer(&mut self, index: usize, memory: &Memory) {
        let (keys, values) = &mut self.layers[index];
        for (place, (sum, code)) in keys.iter_mut().zip(codes(&memory.keys)).enumerate() {
            if Memory::key_position(place) < self.padding {
                *sum += i32::from(code);
            }
        }
        for (place, (sum, code)) in values.iter_mut().zip(codes(&memory.values)).enumerate() {
            if Memory::value_position(place) < self.padding {
                *sum += i32::from(code);
            }
        }
    }

    pub(super) fn end(&mut self, states: &[u8], logits: &[f32]) {
        for (sum, code) in self.states[..self.padding * STATE].iter_mut().zip(states) {
            *sum += i32::from(*code);
        }
        for (sum, logit) in self.logits[..self.padding].iter_mut().zip(logits) {
            *sum += logit;
        }
    }

    /// The means.
    pub(super) fn learned(&self) -> Padding {
        let mean = |sum: i32, position: usize| (sum as f32 / self.counts[position].max(1) as f32).round();
        let mut padding = Padding::none();
        for (memory, (keys, values)) in padding.layers.iter_mut().zip(&self.layers) {
            for (place, (code, sum)) in codes_mut(&mut memory.keys).zip(keys).enumerate() {
                *code = mean(*sum, Memory::key_position(place)) as i8;
            }
            for (place, (code, sum)) in codes_mut(&mut memory.values).zip(values).enumerate() {
                *code = mean(*sum, Memory::value_position(place)) as i8;
            }
            memory.sum_keys();
        }
        for (place, (code, sum)) in padding.states.iter_mut().zip(&self.states).enumerate() {
            *code = mean(*sum, place / STATE) as u8;
        }
        for ((logit, sum), count) in padding.logits.iter_mut().zip(&self.logits).zip(self.counts) {
            *logit = sum / count.max(1) as f32;
        }
        padding
    }
}

fn codes(lines: &[Line]) -> impl Iterator<Item = i8> {
    lines.iter().flat_map(|line| line.0)
}

fn codes_mut(lines: &mut [Line]) -> impl Iterator<Item = &mut i8> {
    lines.iter_mut().flat_map(|line| &mut line.0)
}

/// Questions about noise that swells and fades like syllables, ends in a pause and grows from sound to sound.
pub(super) fn synthetic_questions() -> impl Iterator<Item = TurnQuery> {
    LENGTHS.iter().enumerate().map(|(index, &blocks)| {
        let mut features = SmartTurnFeatures::new(1);
        let mut noise = Noise::new(index as u32 + 1);
        for block in 0..blocks.min(TURN_FRAMES) {
            let pause = block + PAUSE >= blocks;
            features.push(0, &std::array::from_fn(|i| noise.next((block * HEARD_LEN + i) as f32, pause)));
        }
        let mut query = TurnQuery::default();
        features.query(0, 0, &mut query);
        query
    })
}

/// Noise with the spectrum and the rhythm of speech, roughly.
struct Noise {
    state: u32,
    low: f32,
    seed: f32,
}

impl Noise {
    fn new(seed: u32) -> Self {
        Self { state: seed, low: 0.0, seed: seed as f32 }
    }

    fn next(&mut self, at: f32, pause: bool) -> f32 {
        self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let white = (self.state >> 8) as f32 / 8_388_608.0 - 1.0;
        self.low += 0.1 * (white - self.low);
        let seconds = at / 16_000.0;
        let syllables = (TAU * (3.0 + 0.2 * self.seed) * seconds).sin().max(0.0);
        let phrase = 0.6 + 0.4 * (TAU * 0.4 * seconds + self.seed).sin();
        let loud = if pause { 0.0 } else { 0.5 * syllables * phrase };
        (self.low + 0.1 * white) * loud + white * 0.0005
    }
}
