//! Time as a parameter: ticks of the audio thread and positions in a call's media.

use serde::{Deserialize, Serialize};
use std::ops::{Add, Sub};

/// Length of one tick and one [`crate::frame::Frame`], in ms.
pub const TICK_MS: u64 = 10;

/// Ticks since the audio thread started, 10 ms each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

/// A position in a call's media since its start, in ms. Also a span, as the difference of two positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MediaTime(pub u64);

impl MediaTime {
    /// Position in ms.
    pub fn ms(self) -> u64 {
        self.0
    }

    /// Time since `earlier`, zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl From<Tick> for MediaTime {
    fn from(tick: Tick) -> Self {
        Self(tick.0 * TICK_MS)
    }
}

impl Add<u64> for MediaTime {
    type Output = Self;
    fn add(self, ms: u64) -> Self {
        Self(self.0 + ms)
    }
}

impl Sub for MediaTime {
    type Output = u64;
    fn sub(self, earlier: Self) -> u64 {
        self.since(earlier)
    }
}
