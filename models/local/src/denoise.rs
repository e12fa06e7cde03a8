//! Noise cancellation of what voice activity and end of turn hear.
//!
//! WebRTC's noise suppressor (its Rust form, `sonora`), one per slot: it follows each band's noise floor in the
//! pauses and turns down the bands where a frame holds no more than that. The names are those of an agent's profile;
//! what they mean is a level of suppression, lower for a telephone leg, whose codec has taken its share already.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use sonora_ns::config::{NsConfig, SuppressionLevel};
use sonora_ns::noise_suppressor::NoiseSuppressor;
use voiced_core::frame::{HeardFrame, Rate};
use voiced_core::model::Denoise;

/// The suppressor counts in 16-bit sample values.
const FULL_SCALE: f32 = 32_768.0;

/// Noise cancellation by the names of an agent's profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DenoiseKind {
    /// Off.
    None,
    /// For 8 kHz legs: 12 dB.
    Telephony,
    /// For wideband legs: 18 dB.
    Standard,
    /// By the leg's rate.
    #[default]
    Auto,
}

impl DenoiseKind {
    /// Reads `none`, `telephony`, `standard` or `auto`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::None),
            "telephony" => Some(Self::Telephony),
            "standard" => Some(Self::Standard),
            "auto" => Some(Self::Auto),
            _ => None,
        }
    }

    /// `Auto` settled for a leg of this rate; the others as they are.
    #[must_use]
    pub fn at(self, rate: Rate) -> Self {
        match (self, rate) {
            (Self::Auto, Rate::Hz8000) => Self::Telephony,
            (Self::Auto, _) => Self::Standard,
            (named, _) => named,
        }
    }

    /// Whether there is anything to do.
    pub fn is_on(self) -> bool {
        self != Self::None
    }

    fn level(self) -> Option<SuppressionLevel> {
        match self {
            Self::None => None,
            Self::Telephony => Some(SuppressionLevel::K12dB),
            Self::Standard | Self::Auto => Some(SuppressionLevel::K18dB),
        }
    }
}

/// One suppressor per slot. Delays the sound by 6 ms (96 samples).
///
/// A suppressor cannot be made new in place, and making one allocates. So a thread of its own makes them: a reset
/// hands the old one over and takes a spare. While none is there (more calls ended at once than there are spares)
/// the slot's sound passes as it is.
pub struct SonoraDenoise {
    slots: Vec<Option<Box<NoiseSuppressor>>>,
    exchange: Option<Exchange>,
}

/// Spares kept: calls that may end within the millisecond that making new ones takes.
const SPARES: usize = 16;

impl SonoraDenoise {
    /// For this many slots; settle [`DenoiseKind::Auto`] by [`DenoiseKind::at`] first, or it is `standard`.
    pub fn new(slots: usize, kind: DenoiseKind) -> Self {
        match kind.level() {
            None => Self { slots: Vec::new(), exchange: None },
            Some(level) => {
                let slots = (0..slots).map(|_| Some(fresh(level))).collect();
                Self { slots, exchange: Some(Exchange::start(level)) }
            }
        }
    }
}

impl Denoise for SonoraDenoise {
    fn run(&mut self, slots: &[usize], frames: &mut [HeardFrame]) {
        let Some(exchange) = &self.exchange else { return };
        for (&slot, frame) in slots.iter().zip(frames) {
            let suppressor = &mut self.slots[slot];
            if suppressor.is_none() {
                *suppressor = exchange.spare();
            }
            if let Some(suppressor) = suppressor {
                scale(frame, FULL_SCALE);
                suppressor.analyze(frame);
                suppressor.process(frame);
                scale(frame, 1.0 / FULL_SCALE);
            }
        }
    }

    fn reset(&mut self, slot: usize) {
        let Some(exchange) = &self.exchange else { return };
        if let Some(used) = self.slots[slot].take() {
            exchange.dispose(used);
        }
        self.slots[slot] = exchange.spare();
    }
}

fn scale(frame: &mut HeardFrame, by: f32) {
    for sample in frame {
        *sample *= by;
    }
}

/// Old suppressors for new ones, without waiting.
struct Exchange {
    spares: Receiver<Box<NoiseSuppressor>>,
    used: SyncSender<Box<NoiseSuppressor>>,
}

/// Used ones that may wait to be freed: more than a thread has slots, so that it is never full.
const USED_MAX: usize = 4_096;

impl Exchange {
    /// Starts the maker; it ends with the exchange.
    fn start(level: SuppressionLevel) -> Self {
        let (make, spares) = sync_channel(SPARES);
        let (used, disposed) = sync_channel(USED_MAX);
        for _ in 0..SPARES {
            let _ = make.try_send(fresh(level)); // the queue is as long as the spares are many
        }
        thread::spawn(move || {
            while disposed.recv().is_ok_and(|old| {
                drop(old);
                make.send(fresh(level)).is_ok()
            }) {}
        });
        Self { spares, used }
    }

    fn spare(&self) -> Option<Box<NoiseSuppressor>> {
        self.spares.try_recv().ok()
    }

    fn dispose(&self, used: Box<NoiseSuppressor>) {
        if let Err(refused) = self.used.try_send(used) {
            drop(refused); // the maker is gone: freed here, late but not lost
        }
    }
}

fn fresh(level: SuppressionLevel) -> Box<NoiseSuppressor> {
    Box::new(NoiseSuppressor::new(NsConfig { target_level: level }))
}
