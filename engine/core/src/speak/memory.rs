//! The sound of a reply, by position: a ring that holds what is unsent and what may have to be sent again.

use crate::frame::Rate;

/// A ring of 16-bit samples with room for any rate. Allocates in [`Memory::new`] only.
pub struct Memory {
    ring: Box<[i16]>,
    ms: u32,
    /// Samples of the ring in use at the current rate.
    len: usize,
}

impl Memory {
    /// Room for `ms`, at first at 8 kHz.
    pub fn new(ms: u32) -> Self {
        let ring = vec![0; samples(ms, Rate::Hz48000)].into_boxed_slice();
        Self { ring, ms, len: samples(ms, Rate::Hz8000) }
    }

    /// Makes ready for sound of another rate.
    pub fn reset(&mut self, rate: Rate) {
        self.len = samples(self.ms, rate);
    }

    /// Writes samples from `position` on, over the oldest.
    pub fn write(&mut self, position: u64, sound: &[i16]) {
        for (position, sample) in (position..).zip(sound) {
            let index = self.index(position);
            self.ring[index] = *sample;
        }
    }

    /// The sample at `position`.
    pub fn sample(&self, position: u64) -> i16 {
        self.ring[self.index(position)]
    }

    fn index(&self, position: u64) -> usize {
        (position % self.len as u64) as usize
    }
}

fn samples(ms: u32, rate: Rate) -> usize {
    ms as usize * rate.hz() as usize / 1_000
}
