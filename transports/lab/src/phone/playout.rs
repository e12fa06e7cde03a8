//! What Twilio does with the sound it is sent.
//!
//! Sound is queued and drained at 8000 bytes a second. A mark is echoed when all sound queued before it was played,
//! at once when nothing is queued. Clear drops the queue and echoes every waiting mark.

use crate::dialogue::SILENCE;
use std::collections::VecDeque;

/// Bytes queued at most: ten minutes; Twilio drops what is more and warns (31931).
const QUEUE_BYTES_MAX: usize = 4_800_000;

/// The far end's queue. Positions are bytes since the stream started, 8 to the ms.
#[derive(Debug, Default)]
pub(super) struct Playout {
    queue: VecDeque<u8>,
    /// Position up to which the far end has played, silence included.
    now: u64,
    /// Waiting marks with the bytes of the queue that are before them, counted from `drained` = 0.
    marks: VecDeque<(u64, String)>,
    /// Bytes of the queue played or dropped so far.
    drained: u64,
    /// Position at which the queue last ran dry.
    dry_at: u64,
}

impl Playout {
    /// Queues sound; `false` when some of it found no room.
    pub(super) fn media(&mut self, sound: &[u8]) -> bool {
        let room = QUEUE_BYTES_MAX - self.queue.len();
        self.queue.extend(&sound[..sound.len().min(room)]);
        sound.len() <= room
    }

    /// Takes a mark, or gives it back when it is to be echoed at once.
    pub(super) fn mark(&mut self, name: String) -> Option<String> {
        if self.queue.is_empty() && self.marks.is_empty() {
            return Some(name);
        }
        self.marks.push_back((self.drained + self.queue.len() as u64, name));
        None
    }

    /// Drops the queue and gives back all waiting marks in order.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = String> {
        self.drained += self.queue.len() as u64;
        self.queue.clear();
        std::mem::take(&mut self.marks).into_iter().map(|(_, name)| name)
    }

    /// Plays until this position, appends what was heard to `heard`, and gives back the next mark that was passed,
    /// if any: call again until there is none.
    pub(super) fn play(&mut self, until: u64, heard: &mut Vec<u8>) -> Option<String> {
        let len = until.saturating_sub(self.now) as usize;
        let sound = len.min(self.queue.len());
        heard.extend(self.queue.drain(..sound));
        heard.resize(heard.len() + len - sound, SILENCE);
        self.drained += sound as u64;
        if sound > 0 && self.queue.is_empty() {
            self.dry_at = self.now + sound as u64;
        }
        self.now = self.now.max(until);
        let passed = self.marks.front().is_some_and(|(after, _)| *after <= self.drained);
        if passed { self.marks.pop_front().map(|(_, name)| name) } else { None }
    }

    /// Position at which the next mark is to be echoed.
    pub(super) fn next_mark(&self) -> Option<u64> {
        self.marks.front().map(|(after, _)| self.now + after.saturating_sub(self.drained))
    }

    /// Position at which the queue last ran dry; 0 when it never did.
    pub(super) fn dry_at(&self) -> u64 {
        self.dry_at
    }

    /// Sound that is queued, in bytes.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Nothing is queued.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(playout: &mut Playout, until: u64) -> (Vec<u8>, Vec<String>) {
        let (mut heard, mut marks) = (Vec::new(), Vec::new());
        while let Some(mark) = playout.play(until, &mut heard) {
            marks.push(mark);
        }
        (heard, marks)
    }

    #[test]
    fn a_mark_is_echoed_when_the_sound_before_it_was_played() {
        let mut playout = Playout::default();
        assert_eq!(playout.mark("at once".to_owned()), Some("at once".to_owned()));
        playout.media(&[1, 2, 3]);
        assert_eq!(playout.mark("a".to_owned()), None);
        playout.media(&[4]);
        assert_eq!(playout.mark("b".to_owned()), None);
        assert_eq!(playout.next_mark(), Some(3));
        assert_eq!(play(&mut playout, 2), (vec![1, 2], vec![]));
        assert_eq!(play(&mut playout, 3), (vec![3], vec!["a".to_owned()]));
        assert_eq!(play(&mut playout, 6), (vec![4, SILENCE, SILENCE], vec!["b".to_owned()]));
        assert_eq!((playout.next_mark(), playout.dry_at()), (None, 4));
    }

    #[test]
    fn clear_drops_the_sound_and_echoes_every_waiting_mark_in_order() {
        let mut playout = Playout::default();
        playout.media(&[1, 2]);
        playout.mark("a".to_owned());
        playout.media(&[3]);
        playout.mark("b".to_owned());
        assert_eq!(playout.clear().collect::<Vec<_>>(), ["a", "b"]);
        playout.media(&[9]);
        playout.mark("c".to_owned());
        assert_eq!(play(&mut playout, 2), (vec![9, SILENCE], vec!["c".to_owned()]));
    }

    #[test]
    fn more_than_ten_minutes_find_no_room() {
        let mut playout = Playout::default();
        assert!(playout.media(&vec![0; QUEUE_BYTES_MAX]));
        assert!(!playout.media(&[0]));
        assert_eq!(playout.queue.len(), QUEUE_BYTES_MAX);
    }
}
