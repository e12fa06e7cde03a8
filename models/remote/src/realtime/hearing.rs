//! What the model hears of the caller, and what it has written down of it.
//!
//! Silence is held back, but for the last half second: the model is billed for what it hears, and a commit takes in all that
//! was sent since the last. When the caller speaks the rest follows as it comes. Each request for a settled text is a
//! commit, which becomes an item of the conversation; its words come some time later, and settle in the order of the
//! commits. Sound stays here until its words are settled, for another connection or another provider.

use super::{RealtimeSound, wire};
use crate::replay::Replay;
use bytes::Bytes;
use serde_json::Value;
use std::collections::VecDeque;
use tokio::time::Instant;
use voiced_core::model::SttEvent;
use voiced_core::resample::Resampler;

/// Sound before the moment that speech was noticed, in ms: words begin with their first syllable.
const PRE_ROLL_MS: usize = 500;
/// Shortest commit, in ms: the provider refuses less.
const COMMIT_MS_MIN: usize = 100;
/// Unsettled sound that is kept, in ms: most turns whole.
const REPLAY_MS_MAX: usize = 10_000;
/// Bytes of one item's words that are kept, some five minutes of speech.
const WORDS_BYTES_MAX: usize = 8_192;

pub(super) struct Hearing {
    sound: RealtimeSound,
    /// To the 24 kHz of the wire, where the line has another rate.
    upsampler: Option<Resampler>,
    speaking: bool,
    /// The newest silence.
    held_back: VecDeque<Bytes>,
    replay: Replay,
    /// Bytes appended on this connection, and of them not committed.
    appended: u64,
    uncommitted: usize,
    commits: VecDeque<Commit>,
    number: u64,
}

/// Something that the caller said.
struct Commit {
    number: u64,
    item: Option<String>,
    words: String,
    is_settled: bool,
    /// Where it ends in the connection's sound.
    end: u64,
    since: Instant,
    /// Requests for a settled text that it answers.
    asked: u32,
}

impl Hearing {
    pub fn new(sound: RealtimeSound) -> Self {
        Self {
            sound,
            upsampler: (sound == RealtimeSound::Pcm).then(|| Resampler::new(16_000, 24_000)),
            speaking: false,
            held_back: VecDeque::new(),
            replay: Replay::new(REPLAY_MS_MAX * sound.fed_bytes_per_ms()),
            appended: 0,
            uncommitted: 0,
            commits: VecDeque::new(),
            number: 0,
        }
    }

    /// Takes sound of the line; what goes up is appended.
    pub fn sound(&mut self, piece: Bytes, out: &mut Vec<Value>) {
        if self.speaking {
            return self.append(piece, out);
        }
        self.held_back.push_back(piece);
        let most = PRE_ROLL_MS * self.sound.fed_bytes_per_ms();
        let mut held: usize = self.held_back.iter().map(Bytes::len).sum();
        while let Some(first) = self.held_back.front().map(Bytes::len).filter(|first| held - first >= most) {
            self.held_back.pop_front();
            held -= first;
        }
    }

    /// The caller speaks: the last moment of what was silence belongs to it.
    pub fn speaks(&mut self, out: &mut Vec<Value>) {
        self.speaking = true;
        for piece in std::mem::take(&mut self.held_back) {
            self.append(piece, out);
        }
    }

    /// Asks for settled words of all so far.
    pub fn finalize(&mut self, now: Instant, out: &mut Vec<Value>) -> Vec<SttEvent> {
        self.speaking = false;
        if self.uncommitted >= COMMIT_MS_MIN * self.sound.fed_bytes_per_ms() {
            self.commit(1, now, out);
        } else if let Some(last) = self.commits.back_mut() {
            last.asked += 1;
        } else {
            return vec![SttEvent::Finalized];
        }
        Vec::new()
    }

    fn commit(&mut self, asked: u32, now: Instant, out: &mut Vec<Value>) {
        self.number += 1;
        self.uncommitted = 0;
        out.push(wire::commit(self.number));
        let (item, words) = (None, String::new());
        self.commits.push_back(Commit { number: self.number, item, words, is_settled: false, end: self.appended, since: now, asked });
    }

    /// A new connection has heard nothing yet.
    pub fn resume(&mut self, now: Instant, out: &mut Vec<Value>) {
        (self.appended, self.uncommitted) = (0, 0);
        for piece in self.replay.restart() {
            self.up(&piece, out);
        }
        let asked = self.commits.drain(..).map(|commit| commit.asked).sum();
        if asked > 0 {
            self.commit(asked, now, out);
        }
    }

    /// The provider made an item of a commit.
    pub fn committed(&mut self, item: String) {
        if let Some(commit) = self.commits.iter_mut().find(|commit| commit.item.is_none()) {
            commit.item = Some(item);
        }
    }

    /// More words of an item.
    pub fn heard(&mut self, item: &str, text: &str) -> Option<SttEvent> {
        let commit = self.commits.iter_mut().find(|commit| commit.item.as_deref() == Some(item) && !commit.is_settled)?;
        if commit.words.len() + text.len() > WORDS_BYTES_MAX {
            return None;
        }
        commit.words.push_str(text);
        let words: Vec<_> = self.commits.iter().map(|commit| commit.words.trim()).collect();
        Some(SttEvent::Interim(words.join(" ").trim().to_owned()))
    }

    /// All words of an item.
    pub fn settled(&mut self, item: &str, text: String) -> Vec<SttEvent> {
        if let Some(commit) = self.commits.iter_mut().find(|commit| commit.item.as_deref() == Some(item)) {
            (commit.words, commit.is_settled) = (text, true);
        }
        self.tell_settled()
    }

    /// A commit was refused: there was nothing in it.
    pub fn refused(&mut self, event: &str) -> Vec<SttEvent> {
        if let Some(commit) = self.commits.iter_mut().find(|commit| wire::commit_id(commit.number) == event) {
            commit.is_settled = true;
        }
        self.tell_settled()
    }

    fn tell_settled(&mut self) -> Vec<SttEvent> {
        let mut events = Vec::new();
        while self.commits.front().is_some_and(|first| first.is_settled)
            && let Some(Commit { words, end, asked, .. }) = self.commits.pop_front()
        {
            self.replay.settle(end);
            if !words.trim().is_empty() {
                events.push(SttEvent::Final(words.trim().to_owned()));
            }
            events.extend((0..asked).map(|_| SttEvent::Finalized));
        }
        events
    }

    /// Commits so far.
    pub fn commits(&self) -> u64 {
        self.number
    }

    /// Since when words are due.
    pub fn waits_since(&self) -> Option<Instant> {
        self.commits.front().map(|commit| commit.since)
    }

    /// The sound that no settled text covers, for another provider; silence is none.
    pub fn unsettled(&mut self) -> Vec<Bytes> {
        let mut sound = self.replay.restart();
        if self.speaking {
            sound.extend(std::mem::take(&mut self.held_back));
        }
        sound
    }

    fn append(&mut self, piece: Bytes, out: &mut Vec<Value>) {
        self.up(&piece, out);
        self.replay.push(piece);
    }

    fn up(&mut self, piece: &[u8], out: &mut Vec<Value>) {
        self.appended += piece.len() as u64;
        self.uncommitted += piece.len();
        let Some(upsampler) = &mut self.upsampler else {
            return out.push(wire::append(piece));
        };
        let (samples, mut wide): (Vec<i16>, _) = (piece.as_chunks().0.iter().map(|&sample| i16::from_le_bytes(sample)).collect(), Vec::new());
        upsampler.process_i16(&samples, &mut wide);
        out.push(wire::append(&wide.into_iter().flat_map(i16::to_le_bytes).collect::<Vec<_>>()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    fn piece(byte: u8) -> Bytes {
        Bytes::from(vec![byte; 800])
    }

    /// The first byte of each piece that went up, and `c` for a commit.
    fn sent(out: &[Value]) -> String {
        let of = |message: &Value| match message["audio"].as_str() {
            Some(sound) => char::from(STANDARD.decode(sound).unwrap()[0]),
            None => '!',
        };
        out.iter().map(of).collect()
    }

    fn hears(hearing: &mut Hearing, sound: &str, out: &mut Vec<Value>) {
        for byte in sound.bytes() {
            hearing.sound(piece(byte), out);
        }
    }

    #[test]
    fn silence_stays_here_but_for_the_half_second_before_speech() {
        let (mut hearing, mut out) = (Hearing::new(RealtimeSound::Mulaw), Vec::new());
        hears(&mut hearing, "abcdefgh", &mut out);
        assert!(out.is_empty());
        hearing.speaks(&mut out);
        hears(&mut hearing, "ij", &mut out);
        assert!(hearing.finalize(Instant::now(), &mut out).is_empty());
        hears(&mut hearing, "k", &mut out);
        assert_eq!(sent(&out), "defghij!");
        assert_eq!(hearing.finalize(Instant::now(), &mut out), [], "the words of the commit answer it too");
        hearing.committed("i1".into());
        assert_eq!(hearing.heard("i1", "My"), Some(SttEvent::Interim("My".into())));
        let settled = [SttEvent::Final("My sink.".into()), SttEvent::Finalized, SttEvent::Finalized];
        assert_eq!(hearing.settled("i1", "My sink.".into()), settled);
        assert_eq!(hearing.finalize(Instant::now(), &mut out), [SttEvent::Finalized], "nothing was said since");
    }

    #[test]
    fn words_settle_in_the_order_in_which_they_were_said() {
        let (mut hearing, mut out) = (Hearing::new(RealtimeSound::Mulaw), Vec::new());
        for (item, sound) in [("i1", "ab"), ("i2", "cd")] {
            hearing.speaks(&mut out);
            hears(&mut hearing, sound, &mut out);
            hearing.finalize(Instant::now(), &mut out);
            hearing.committed(item.into());
        }
        assert_eq!(hearing.settled("i2", "leaks.".into()), []);
        let both = [SttEvent::Final("My sink".into()), SttEvent::Finalized, SttEvent::Final("leaks.".into()), SttEvent::Finalized];
        assert_eq!(hearing.settled("i1", "My sink".into()), both);
        assert!(hearing.unsettled().is_empty());
    }

    #[test]
    fn another_connection_hears_what_is_not_settled_and_is_asked_once() {
        let (mut hearing, mut out) = (Hearing::new(RealtimeSound::Mulaw), Vec::new());
        for sound in ["ab", "cd"] {
            hearing.speaks(&mut out);
            hears(&mut hearing, sound, &mut out);
            hearing.finalize(Instant::now(), &mut out);
        }
        out.clear();
        hearing.resume(Instant::now(), &mut out);
        assert_eq!(sent(&out), "abcd!");
        hearing.committed("i9".into());
        let settled = [SttEvent::Final("My sink leaks.".into()), SttEvent::Finalized, SttEvent::Finalized];
        assert_eq!(hearing.settled("i9", "My sink leaks.".into()), settled);
    }
}
