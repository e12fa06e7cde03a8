//! WebRTC's noise suppressor (its Rust form, `sonora`), one per slot: it follows each band's noise floor in the pauses
//! and turns down the bands where a frame holds no more than that.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use sonora_ns::config::{NsConfig, SuppressionLevel};
use sonora_ns::noise_suppressor::NoiseSuppressor;
use voiced_core::frame::HeardFrame;
use voiced_core::model::Denoise;

use super::DenoiseKind;

/// The suppressor counts in 16-bit sample values.
const FULL_SCALE: f32 = 32_768.0;

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
        match level(kind) {
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

fn level(kind: DenoiseKind) -> Option<SuppressionLevel> {
    match kind {
        DenoiseKind::None => None,
        DenoiseKind::Telephony => Some(SuppressionLevel::K12dB),
        DenoiseKind::Standard | DenoiseKind::Auto => Some(SuppressionLevel::K18dB),
    }
}
