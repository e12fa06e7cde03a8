//! The sound of a reply, by position: a ring that holds what is unsent and what may have to be sent again.

use crate::frame::Rate;

/// A ring of 16-bit samples. Allocates in [`Memory::new`] only.
pub struct Memory(Box<[i16]>);

impl Memory {
    /// Room for `ms` at `rate`.
    pub fn new(ms: u32, rate: Rate) -> Self {
        Self(vec![0; ms as usize * rate.hz() as usize / 1_000].into_boxed_slice())
    }

    /// Writes samples from `position` on, over the oldest.
    pub fn write(&mut self, position: u64, sound: &[i16]) {
        for (position, sample) in (position..).zip(sound) {
            let index = self.index(position);
            self.0[index] = *sample;
        }
    }

    /// The sample at `position`.
    pub fn sample(&self, position: u64) -> i16 {
        self.0[self.index(position)]
    }

    fn index(&self, position: u64) -> usize {
        (position % self.0.len() as u64) as usize
    }
}
