//! Sound that the provider has taken but not settled, kept to be sent again over a new connection.

use bytes::Bytes;
use std::collections::VecDeque;

/// The newest unsettled sound, up to a limit.
#[derive(Debug)]
pub(crate) struct Replay {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    bytes_max: usize,
    /// Where the first piece begins in the sound of the connection.
    position: u64,
}

impl Replay {
    /// Keeps so many bytes at most.
    pub fn new(bytes_max: usize) -> Self {
        Self { pieces: VecDeque::new(), bytes: 0, bytes_max, position: 0 }
    }

    /// Keeps a piece; gives back how many bytes of the oldest sound had to go.
    pub fn push(&mut self, piece: Bytes) -> usize {
        self.bytes += piece.len();
        self.pieces.push_back(piece);
        let mut gone = 0;
        while self.bytes > self.bytes_max {
            gone += self.pop();
        }
        gone
    }

    /// All sound before `position` of this connection is settled.
    pub fn settle(&mut self, position: u64) {
        while self.pieces.front().is_some_and(|first| self.position + first.len() as u64 <= position) {
            self.pop();
        }
    }

    /// A new connection begins: its sound starts with what is kept.
    pub fn restart(&mut self) -> Vec<Bytes> {
        self.position = 0;
        self.pieces.iter().cloned().collect()
    }

    /// Where the sound ends, in bytes of this connection.
    pub fn end(&self) -> u64 {
        self.position + self.bytes as u64
    }

    /// Nothing is unsettled.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    fn pop(&mut self) -> usize {
        let len = self.pieces.pop_front().map_or(0, |piece| piece.len());
        self.bytes -= len;
        self.position += len as u64;
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unsettled_sound_is_kept_and_no_more_than_the_limit() {
        let mut replay = Replay::new(40);
        let gone: usize = (0..6).map(|piece| replay.push(Bytes::from(vec![piece; 10]))).sum();
        assert_eq!(gone, 20);
        replay.settle(45); // settles 20..40 of the sound; the piece 40..50 is settled in part only
        assert_eq!(replay.restart(), [vec![4; 10], vec![5; 10]]);
        replay.settle(10); // of the new connection
        assert_eq!(replay.restart(), [vec![5; 10]]);
        replay.settle(10);
        assert!(replay.is_empty() && replay.end() == 10);
    }
}
