//! Sequence numbers: which packet is ahead of which over the wrap, and which came before.

/// A sequence this far from the last one is a new stream, not a loss.
pub const RESTART: i32 = 1_000;

/// How far `a` is ahead of `b`, over the wrap.
pub fn distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

/// The newest sequence seen, and which of the 64 up to it were seen.
#[derive(Clone, Copy)]
pub struct Seen {
    newest: u32,
    seen: u64,
}

impl Seen {
    /// Nothing seen; `sequence` will be the first.
    pub fn before(sequence: u32) -> Self {
        Self { newest: sequence.wrapping_sub(1), seen: 0 }
    }

    /// The newest one.
    pub fn newest(self) -> u32 {
        self.newest
    }

    /// Notes a sequence as seen; false when it was seen before. Of those too old to tell, none was.
    pub fn note(&mut self, sequence: u32) -> bool {
        let ahead = distance(sequence, self.newest);
        if ahead > 0 {
            self.seen = if ahead < 64 { self.seen << ahead } else { 0 } | 1;
            self.newest = sequence;
            return true;
        }
        let bit = 1u64.checked_shl(ahead.unsigned_abs()).unwrap_or(0);
        let new = self.seen & bit == 0;
        self.seen |= bit;
        new
    }
}
