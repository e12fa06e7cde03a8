//! Noise cancellation of what voice activity and end of turn hear.
//!
//! A network, GTCRN, over all calls at once: steady noise, clatter and street, under a control that leaves clean lines
//! alone. An agent's profile says `telephony` or `standard`, for the band that the line carries, or `auto`. A cheap
//! engine was measured beside it (`models/README.md`): it costs nearly as much and harms clean lines.

mod gtcrn;

use voiced_core::frame::Rate;
use voiced_core::model::Band;

pub use gtcrn::{GTCRN_DELAY, Gtcrn, GtcrnError};

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

    /// What it means for a line of this rate; none: leave the sound as it is.
    pub fn band(self, rate: Rate) -> Option<Band> {
        match (self, rate) {
            (Self::None, _) => None,
            (Self::Telephony, _) | (Self::Auto, Rate::Hz8000) => Some(Band::Telephone),
            (Self::Standard | Self::Auto, _) => Some(Band::Wide),
        }
    }
}
