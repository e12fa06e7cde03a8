//! Noise cancellation of what voice activity and end of turn hear.
//!
//! Two engines. The good one is a network, GTCRN, over all calls at once: steady noise, clatter and street, under a
//! control that leaves clean lines alone. The cheap one is WebRTC's suppressor, which knows steady noise only: for when
//! there is no network or no time for it. An agent's profile names neither: it says `telephony` or `standard`, for the
//! band that the line carries, or `auto`.

mod gtcrn;
mod sonora;

use std::path::Path;

use voiced_core::frame::Rate;
use voiced_core::model::Denoise;

pub use gtcrn::{Band, GTCRN_DELAY, Gtcrn, GtcrnError};
pub use sonora::SonoraDenoise;

/// Noise cancellation by the names of an agent's profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DenoiseKind {
    /// Off.
    None,
    /// For 8 kHz legs, which lose more by it: from a voice less than 28 dB over the noise on, wholly under 18 dB.
    Telephony,
    /// For wideband legs: from a voice less than 35 dB over the noise on, wholly under 25 dB.
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

    /// The good engine for this many slots, with the network's weights (`gtcrn_simple.onnx`) from `path`; none when it
    /// is off. Settle [`DenoiseKind::Auto`] by [`DenoiseKind::at`] first, or it is `standard`.
    pub fn load(self, path: &Path, slots: usize) -> Result<Option<Box<dyn Denoise>>, GtcrnError> {
        let band = match self {
            Self::None => return Ok(None),
            Self::Telephony => Band::Telephone,
            Self::Standard | Self::Auto => Band::Wide,
        };
        Ok(Some(Box::new(Gtcrn::load(path, slots, band)?)))
    }
}
