//! The whole model, compiled for each instruction set.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set
#![allow(unsafe_code)] // calls of #[target_feature] functions, each behind the check of the processor

use voiced_core::model::TurnQuery;

use super::encoder::Encoder;
use super::kernel::Isa;
use super::kernel::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::kernel::{avx2::Avx2, avx512::Avx512};
use super::padding::{Lesson, Padding, synthetic_questions};
use super::pool::Pool;
use super::weights::{POSITIONS, STATE, Weights};

/// The last frames that always count as sound, so that there is always something to compute.
const FRAMES_MIN: usize = 4;

/// What all threads share.
pub(super) struct Network {
    weights: Weights,
    padding: Padding,
    kernel: Kernel,
}

/// What one thread computes in, allocated once.
pub(super) struct Scratch {
    encoder: Encoder,
    pool: Pool,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self { encoder: Encoder::new(), pool: Pool::new() }
    }
}

impl Network {
    /// Learns the padding, a second of work.
    pub(super) fn new(weights: Weights, kernel: Kernel) -> Self {
        let mut network = Self { weights, padding: Padding::none(), kernel };
        let (mut scratch, mut lesson) = (Scratch::new(), Lesson::new());
        for query in synthetic_questions() {
            lesson.begin(padding(&query));
            network.run(&query, 0, &mut scratch, Some(&mut lesson));
        }
        network.padding = lesson.learned();
        network
    }

    #[cfg(test)]
    pub(super) fn switch(&mut self, kernel: Kernel) -> &Self {
        self.kernel = kernel;
        self
    }

    pub(super) fn instruction_set(&self) -> &'static str {
        match self.kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => "AVX-512 VNNI",
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => "AVX2",
            Kernel::Portable => "portable",
        }
    }

    /// The probability that the turn is over.
    pub(super) fn judge(&self, query: &TurnQuery, scratch: &mut Scratch) -> f32 {
        self.run(query, padding(query), scratch, None)
    }

    /// Computes the positions from `first` on, and tells the lesson of them.
    fn run(&self, query: &TurnQuery, first: usize, scratch: &mut Scratch, lesson: Option<&mut Lesson>) -> f32 {
        match self.kernel {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the variant is only chosen when the processor has these instruction sets
            Kernel::Avx512 => unsafe { run_avx512(self, query, first, scratch, lesson) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the variant is only chosen when the processor has AVX2 and FMA
            Kernel::Avx2 => unsafe { run_avx2(self, query, first, scratch, lesson) },
            Kernel::Portable => self.run_on::<Portable>(query, first, scratch, lesson),
        }
    }

    #[inline(always)]
    fn run_on<I: Isa>(&self, query: &TurnQuery, first: usize, scratch: &mut Scratch, mut lesson: Option<&mut Lesson>) -> f32 {
        let Self { weights, padding, .. } = self;
        let Scratch { encoder, pool } = scratch;
        let count = POSITIONS - first;
        encoder.begin::<I>(weights, query, first);
        for (index, (layer, padding)) in weights.layers.iter().zip(&padding.layers).enumerate() {
            encoder.layer::<I>(weights, layer, count, padding);
            if let Some(lesson) = &mut lesson {
                lesson.hear_layer(index, encoder.memory());
            }
        }
        let (states, room) = encoder.end::<I>(&weights.last_norm, count);
        pool.weigh::<I>(weights, &padding.logits[..first], states, room);
        if let Some(lesson) = lesson {
            lesson.end(states, pool.logits());
        }
        pool.probability::<I::Lanes>(weights, &padding.states[..first * STATE], states)
    }
}

/// Positions at the start that see nothing but padding. Two of padding see sound: the convolutions reach two frames
/// forward, and the window around the last frame of padding reaches into the sound.
fn padding(query: &TurnQuery) -> usize {
    const STRIDE: usize = voiced_core::model::TURN_FRAMES / POSITIONS;
    let silent = voiced_core::model::TURN_FRAMES - query.frames.max(FRAMES_MIN);
    silent.saturating_sub(STRIDE + 1).div_ceil(STRIDE)
}

/// An instruction set that this processor has.
#[derive(Clone, Copy)]
pub(super) enum Kernel {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// The target's own instructions: NEON, SSE2.
    Portable,
}

impl Kernel {
    /// The fastest.
    pub(super) fn detect() -> Self {
        Self::available().next().unwrap_or(Self::Portable)
    }

    /// Those that this processor has, the fastest first.
    pub(super) fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let special = {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl");
            let avx512 = avx2 && avx512 && is_x86_feature_detected!("avx512vnni");
            avx512.then_some(Self::Avx512).into_iter().chain(avx2.then_some(Self::Avx2))
        };
        #[cfg(not(target_arch = "x86_64"))]
        let special = std::iter::empty();
        special.chain([Self::Portable])
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
fn run_avx512(network: &Network, query: &TurnQuery, first: usize, scratch: &mut Scratch, lesson: Option<&mut Lesson>) -> f32 {
    network.run_on::<Avx512>(query, first, scratch, lesson)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2(network: &Network, query: &TurnQuery, first: usize, scratch: &mut Scratch, lesson: Option<&mut Lesson>) -> f32 {
    network.run_on::<Avx2>(query, first, scratch, lesson)
}
