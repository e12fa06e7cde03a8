//! The caller's words of the current turn, as speech to text settles them.
//!
//! Finals are appended, the interim stands behind them until replaced. We ask for a settled text at each pause; only
//! the answer to the newest request counts. Once a turn was reported, what still comes for it must not leak into the
//! next one: until the provider has settled, or the caller speaks again, it is dropped.

use super::words::{hint, normalised};
use crate::leg::TranscriptHint;
use crate::model::SttEvent;
use crate::time::MediaTime;

/// Characters of one caller's turn at most, some five minutes of speech; what follows is not taken.
const TURN_CHARS_MAX: usize = 4_000;

#[derive(Debug, Default)]
pub(super) struct Caller {
    finals: String,
    interim: String,
    changed_at: MediaTime,
    settled_at: Option<MediaTime>,
    /// Requests to finalise that were not answered yet.
    finalising: u32,
    /// The last turn was taken before it was settled.
    late: Option<Late>,
    /// Between the first frame of speech and the pause.
    pub speaking: bool,
    /// Another provider hears the turn anew: its words come late.
    pub delayed: bool,
}

/// What may still come for a turn that was taken already.
#[derive(Debug)]
struct Late {
    /// The words that were not settled, normalised.
    words: String,
    /// Nobody has spoken since: whatever comes is late.
    all: bool,
}

impl Caller {
    /// The caller begins to speak: what comes now belongs to this turn.
    pub fn speaks(&mut self) {
        self.speaking = true;
        self.settled_at = None;
        if let Some(late) = &mut self.late
            && late.all
        {
            late.all = false;
            // an answer that has not come by now does not come, and must not be waited for in each later turn
            self.finalising = 0;
        }
    }

    /// A settled text is asked for.
    pub fn finalise(&mut self) {
        self.finalising = self.finalising.saturating_add(1);
        self.settled_at = None;
    }

    /// Takes what speech to text says; false when it was not for this turn.
    pub fn hear(&mut self, now: MediaTime, event: &SttEvent) -> bool {
        if self.is_late(event) {
            return false;
        }
        let before = normalised(&self.text());
        match event {
            SttEvent::Interim(text) => {
                self.interim.clear();
                append(&mut self.interim, text);
            }
            SttEvent::Final(text) => {
                self.interim.clear();
                append(&mut self.finals, text);
            }
            SttEvent::Finalized => {
                self.delayed = false;
                self.finalising = self.finalising.saturating_sub(1);
                if self.finalising == 0 && !self.speaking {
                    self.settled_at = Some(now);
                }
            }
            SttEvent::Switched(_) => self.delayed = true,
            SttEvent::Failed(_) => {}
        }
        if normalised(&self.text()) != before {
            self.changed_at = now;
            if matches!(event, SttEvent::Interim(_)) {
                self.settled_at = None;
            }
        }
        true
    }

    fn is_late(&mut self, event: &SttEvent) -> bool {
        let Some(late) = &self.late else { return false };
        match event {
            SttEvent::Interim(text) => late.all || normalised(text) == late.words,
            SttEvent::Final(text) => {
                let same = !late.words.is_empty() && normalised(text) == late.words;
                let all = late.all;
                if same && !all {
                    self.late = None;
                }
                all || same
            }
            SttEvent::Finalized => {
                let all = late.all;
                self.late = None;
                if all {
                    self.finalising = 0;
                }
                all
            }
            SttEvent::Switched(_) | SttEvent::Failed(_) => false,
        }
    }

    /// Keys were pressed: text that needs no settling.
    pub fn types(&mut self, now: MediaTime, text: &str) {
        append(&mut self.finals, text);
        self.changed_at = now;
        self.settle(now);
    }

    /// Takes the text as it is for settled.
    pub fn settle(&mut self, now: MediaTime) {
        self.settled_at = Some(now);
        self.finalising = 0;
    }

    /// The turn's text is taken and the next turn starts empty.
    pub fn take(&mut self) -> String {
        let text = self.text();
        let open = self.settled_at.is_none() && (self.finalising > 0 || !text.is_empty());
        self.late = open.then(|| Late { words: normalised(&self.interim), all: true });
        self.finals.clear();
        self.interim.clear();
        self.settled_at = None;
        self.delayed = false;
        if self.late.is_none() {
            self.finalising = 0;
        }
        text
    }

    /// All words of the turn so far.
    pub fn text(&self) -> String {
        let mut text = self.finals.clone();
        append(&mut text, &self.interim);
        text
    }

    /// When the provider settled everything said before the pause.
    pub fn settled_at(&self) -> Option<MediaTime> {
        self.settled_at
    }

    /// How long the words have been the same, in ms.
    pub fn unchanged_ms(&self, now: MediaTime) -> u64 {
        now.since(self.changed_at)
    }

    /// What the words say about the turn.
    pub fn hint(&self) -> TranscriptHint {
        hint(&self.text(), self.settled_at.is_some())
    }
}

fn append(text: &mut String, more: &str) {
    let more = more.trim();
    if more.is_empty() {
        return;
    }
    if !text.is_empty() {
        text.push(' ');
    }
    let room = TURN_CHARS_MAX.saturating_sub(text.chars().count());
    text.extend(more.chars().take(room));
}
