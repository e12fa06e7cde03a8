//! Which of a person's microphones is heard. Who changes the microphone publishes the new track before the old one ends,
//! or leaves the old one muted: the newest track that sends and is not muted is heard, so that there is neither silence
//! nor a double voice in between. A track that has stopped sending gives way, whether anybody says so or not.
//!
//! Each track's listener knows the tracks that came after its own. All of a person's listeners run on one media thread,
//! where packets are passed on or dropped; the rim only says which tracks are muted or gone. What is passed on is numbered
//! anew at each change, so that an ear hears one stream.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use voiced_core::packet::Packet;
use voiced_livekit::RemoteTrack;

/// From the last packet of one track to the first of the next at least, in ms: a packet, as nearly all senders cut them.
const PACKET_MS: u32 = 20;

/// A track that is quiet for longer than this, in ms, does not send: one in comfort noise sends every 400 ms.
const SENDS_WITHIN_MS: u64 = 1_000;

/// One person's tracks.
#[derive(Default)]
pub struct Voices {
    tracks: HashMap<String, Arc<Voice>>,
    newest: Option<Arc<Voice>>,
    last: Arc<Last>,
}

/// One track.
#[derive(Default)]
struct Voice {
    /// When its last packet came, in ms since [`Last::begun`]; 0 before the first.
    sent_ms: AtomicU64,
    /// It is muted or gone.
    silent: AtomicBool,
    newer: OnceLock<Arc<Self>>,
}

/// The packet passed on last. One thread writes.
struct Last {
    /// Its sequence and time, in one word.
    packet: AtomicU64,
    /// When it came, in ms since `begun`.
    at_ms: AtomicU64,
    begun: Instant,
}

impl Default for Last {
    fn default() -> Self {
        Self { packet: AtomicU64::new(0), at_ms: AtomicU64::new(0), begun: Instant::now() }
    }
}

impl Voices {
    /// A track that can be listened to now, as the newest: what its listener does with a packet of it.
    pub fn add(&mut self, track: &RemoteTrack) -> impl FnMut(Packet) -> Option<Packet> + Send + use<> {
        self.gone(&track.sid);
        let voice = Arc::new(Voice { silent: AtomicBool::new(track.muted), ..Voice::default() });
        if let Some(before) = self.newest.replace(Arc::clone(&voice)) {
            let _ = before.newer.set(Arc::clone(&voice)); // the newest has none newer
        }
        self.tracks.insert(track.sid.clone(), Arc::clone(&voice));
        let last = Arc::clone(&self.last);
        let mut shift = None;
        move |packet| {
            let now_ms = last.begun.elapsed().as_millis() as u64;
            if voice.is_heard(now_ms) {
                Some(last.continued(packet, &mut shift, now_ms))
            } else {
                shift = None;
                None
            }
        }
    }

    /// A track fell silent, or speaks again.
    pub fn muted(&self, sid: &str, muted: bool) {
        if let Some(voice) = self.tracks.get(sid) {
            voice.silent.store(muted, Relaxed);
        }
    }

    /// A track is gone.
    pub fn gone(&mut self, sid: &str) {
        if let Some(voice) = self.tracks.remove(sid) {
            voice.silent.store(true, Relaxed);
        }
    }
}

impl Voice {
    /// A packet of this track has come: is it the one that is heard?
    fn is_heard(&self, now_ms: u64) -> bool {
        self.sent_ms.store(now_ms.max(1), Relaxed);
        !self.silent.load(Relaxed) && !std::iter::successors(self.newer.get(), |voice| voice.newer.get()).any(|voice| voice.speaks(now_ms))
    }

    fn speaks(&self, now_ms: u64) -> bool {
        let sent_ms = self.sent_ms.load(Relaxed);
        sent_ms > 0 && now_ms.saturating_sub(sent_ms) <= SENDS_WITHIN_MS && !self.silent.load(Relaxed)
    }
}

impl Last {
    /// Numbers a packet to follow the last one; `shift` is its track's since it was passed over last.
    fn continued(&self, mut packet: Packet, shift: &mut Option<(u32, u32)>, now_ms: u64) -> Packet {
        let last = self.packet.load(Relaxed);
        let (sequence, timestamp_ms) = ((last >> 32) as u32, last as u32);
        let passed_ms = (now_ms.saturating_sub(self.at_ms.load(Relaxed)) as u32).max(PACKET_MS);
        let (by, by_ms) = *shift.get_or_insert_with(|| {
            (sequence.wrapping_add(1).wrapping_sub(packet.sequence), timestamp_ms.wrapping_add(passed_ms).wrapping_sub(packet.timestamp_ms))
        });
        packet.sequence = packet.sequence.wrapping_add(by);
        packet.timestamp_ms = packet.timestamp_ms.wrapping_add(by_ms);
        // a late packet does not set the stream back
        if packet.sequence.wrapping_sub(sequence) as i32 > 0 {
            self.packet.store(u64::from(packet.sequence) << 32 | u64::from(packet.timestamp_ms), Relaxed);
            self.at_ms.store(now_ms, Relaxed);
        }
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use voiced_core::packet::Codec;
    use voiced_livekit::TrackSource;

    fn track(sid: &str) -> RemoteTrack {
        RemoteTrack { sid: sid.into(), name: String::new(), source: TrackSource::Microphone, muted: false, mime: String::new(), audio: true }
    }

    fn packet(sequence: u32) -> Packet {
        Packet::new(Codec::Opus, sequence, sequence * 20, &[1, 2, 3]).unwrap()
    }

    #[test]
    fn a_new_microphone_is_heard_from_its_first_packet_on_and_the_old_one_no_more() {
        let mut voices = Voices::default();
        let mut old = voices.add(&track("old"));
        let begun = old(packet(500)).unwrap();
        let mut new = voices.add(&track("new"));
        let mut heard = vec![begun, old(packet(501)).expect("nothing came of the new one yet")];
        heard.extend(new(packet(7_000)));
        assert!(old(packet(502)).is_none(), "no double voice");
        heard.extend(new(packet(7_001)));
        voices.gone("old");
        assert!(old(packet(503)).is_none());
        heard.extend(new(packet(7_002)));
        let sequences: Vec<u32> = heard.iter().map(|packet| packet.sequence - begun.sequence).collect();
        let times: Vec<u32> = heard.iter().map(|packet| packet.timestamp_ms - begun.timestamp_ms).collect();
        assert_eq!((sequences, times), (vec![0, 1, 2, 3, 4], vec![0, 20, 40, 60, 80]), "one stream");
    }

    #[test]
    fn a_microphone_that_stops_sending_without_a_word_gives_way() {
        let new = Arc::new(Voice::default());
        let old = Voice { newer: OnceLock::from(Arc::clone(&new)), ..Voice::default() };
        assert!(old.is_heard(10) && new.is_heard(20) && !old.is_heard(30));
        assert!(!old.is_heard(20 + SENDS_WITHIN_MS) && old.is_heard(21 + SENDS_WITHIN_MS));
        assert!(new.is_heard(1_500) && !old.is_heard(1_510));
    }

    #[test]
    fn the_older_microphone_is_heard_while_the_newer_is_muted_or_after_it_has_gone() {
        let mut voices = Voices::default();
        let (mut old, mut new) = (voices.add(&track("old")), voices.add(&RemoteTrack { muted: true, ..track("new") }));
        assert!(new(packet(1)).is_none() && old(packet(1)).is_some());
        voices.muted("new", false);
        assert!(new(packet(2)).is_some() && old(packet(2)).is_none());
        voices.muted("new", true);
        assert!(new(packet(3)).is_none() && old(packet(3)).is_some());
        voices.muted("new", false);
        voices.gone("new");
        assert!(old(packet(4)).is_some());
        voices.muted("old", true);
        assert!(old(packet(5)).is_none());
    }
}
