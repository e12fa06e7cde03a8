//! How far a reply has come, in samples since it began: `heard ≤ sent ≤ written`, and where its phrases end.

use crate::leg::HeardUntil;
use crate::time::MediaTime;

/// Phrases that may end in what is written and not yet heard: that is seconds, and a phrase is seldom below 0.3 s.
const PHRASES_MAX: usize = 64;

/// The positions of one reply.
#[derive(Clone, Copy)]
pub struct Progress {
    /// Sound pushed.
    pub written: u64,
    /// Sound handed to the line.
    pub sent: u64,
    /// Sound played at the far end, as far as is known.
    pub heard: u64,
    /// When `heard` grew last.
    pub heard_at: MediaTime,
    /// Where the last mark was laid.
    pub marked: u64,
    /// Silence that filled up the last packet.
    pub padding: u64,
    /// Where sound begins after a hold; it is faded in from there.
    pub fade_from: Option<u64>,
    /// Nothing more will be written.
    pub complete: bool,
    /// The first sound was handed to the line.
    pub started: bool,
    /// The far end waits for more.
    pub dry: bool,
    /// The phrase now being written.
    pub open: u32,
    /// Ended phrases and where, oldest first, `ended_len` of them.
    ended: [(u32, u64); PHRASES_MAX],
    ended_len: usize,
    /// Where the last reported phrase ended, and all of it.
    reported_to: u64,
    reported: HeardUntil,
}

impl Progress {
    /// Nothing written yet.
    pub const fn new() -> Self {
        Self {
            written: 0,
            sent: 0,
            heard: 0,
            heard_at: MediaTime(0),
            marked: 0,
            padding: 0,
            fade_from: None,
            complete: false,
            started: false,
            dry: false,
            open: 0,
            ended: [(0, 0); PHRASES_MAX],
            ended_len: 0,
            reported_to: 0,
            reported: HeardUntil { phrase: 0, phrase_ms: 0 },
        }
    }

    /// Phrases that ended and were not yet reported, and where.
    pub fn ended(&self) -> &[(u32, u64)] {
        &self.ended[..self.ended_len]
    }

    /// One chunk may be taken: it may end the open phrase unasked, by being of the next one, and then its own.
    pub fn has_room_for_ends(&self) -> bool {
        self.ended_len + 2 <= PHRASES_MAX
    }

    /// Ends the open phrase, for which there must be room; the one after it is open then.
    pub fn end_phrase(&mut self) {
        self.ended[self.ended_len] = (self.open, self.written);
        self.ended_len += 1;
        self.open = self.open.saturating_add(1);
    }

    /// Ends the open phrase if it has any sound.
    pub fn end_phrase_if_any(&mut self) {
        let from = self.ended().last().map_or(self.reported_to, |&(_, to)| to);
        if self.written > from {
            self.end_phrase();
        }
    }

    /// Moves `heard` on, never back and never beyond `sent`.
    pub fn hear_to(&mut self, position: u64, now: MediaTime) {
        let position = position.min(self.sent);
        if position > self.heard {
            self.heard = position;
            self.heard_at = now;
        }
    }

    /// A mark is to be laid after what was sent: a phrase or the reply ended there, or the last one is `apart` ago.
    pub fn is_mark_due(&self, apart: u64) -> bool {
        let phrase_ended = self.ended().iter().any(|&(_, to)| to > self.marked && to <= self.sent);
        let reply_ended = self.complete && self.sent == self.written;
        self.sent > self.marked && (phrase_ended || reply_ended || self.sent - self.marked >= apart)
    }

    /// Takes `sent` back to `heard`, by `memory` at most.
    pub fn go_back(&mut self, memory: u64) {
        self.heard = self.heard.max(self.sent.saturating_sub(memory));
        self.sent = self.heard;
        self.marked = self.heard;
        self.padding = 0;
    }

    /// Takes off the next phrase that was heard to its end.
    pub fn next_heard(&mut self, per_ms: u64) -> Option<u32> {
        let &(phrase, to) = self.ended().first()?;
        if self.heard < to {
            return None;
        }
        self.ended.copy_within(1..self.ended_len, 0);
        self.ended_len -= 1;
        self.reported = HeardUntil { phrase, phrase_ms: ((to - self.reported_to) / per_ms) as u32 };
        self.reported_to = to;
        Some(phrase)
    }

    /// The phrase in which `heard` lies, and how far into it.
    pub fn heard_until(&self, per_ms: u64) -> HeardUntil {
        let of = |phrase: u32, from: u64, to: u64| HeardUntil { phrase, phrase_ms: (self.heard.min(to).saturating_sub(from) / per_ms) as u32 };
        let mut until = self.reported;
        let mut from = self.reported_to;
        for &(phrase, to) in self.ended() {
            if self.heard > from {
                until = of(phrase, from, to);
            }
            from = to;
        }
        if self.heard > from { of(self.open, from, self.written) } else { until }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
