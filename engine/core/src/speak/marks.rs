//! Marks: numbered questions laid between the packets, echoed by the far end when it has played what lies before.
//!
//! A clear makes the far end echo all it still holds, played or not. So a clear empties this table first: an echo of a
//! number that is not in it proves nothing, whatever its reason.

/// Marks that may be out at once: at one per 200 ms and phrase, many seconds; the oldest is forgotten first.
const MARKS_MAX: usize = 64;

/// The marks that are out.
#[derive(Debug)]
pub struct Marks {
    /// Number and position, oldest first, `len` of them.
    out: [(u32, u64); MARKS_MAX],
    len: usize,
    next: u32,
}

impl Marks {
    /// None out; numbers count from 1.
    pub fn new() -> Self {
        Self { out: [(0, 0); MARKS_MAX], len: 0, next: 1 }
    }

    /// Lays a mark at `position` and returns its number, never used before in the call.
    pub fn lay(&mut self, position: u64) -> u32 {
        if self.len == MARKS_MAX {
            self.take_first(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.out[self.len] = (number, position);
        self.len += 1;
        number
    }

    /// The position that an echo proves to be played; `None` when it proves nothing. Older marks are settled with it.
    pub fn echoed(&mut self, number: u32) -> Option<u64> {
        let index = self.out[..self.len].iter().position(|(out, _)| *out == number)?;
        let position = self.out[index].1;
        self.take_first(index + 1);
        Some(position)
    }

    /// Voids all that are out.
    pub fn void(&mut self) {
        self.len = 0;
    }

    fn take_first(&mut self, count: usize) {
        self.out.copy_within(count..self.len, 0);
        self.len -= count;
    }
}

impl Default for Marks {
    fn default() -> Self {
        Self::new()
    }
}
