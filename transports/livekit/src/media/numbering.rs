//! RTP's numbers made into a packet's, and back.
//!
//! A listener hears a track as one stream: sequence numbers that count, times in ms that run. The stream under it may be
//! replaced (a rejoin, another track of the same person), and its numbers then start anywhere; the new ones are moved so
//! that they go on after the last packet, with the time that truly passed between.

use std::time::Instant;

/// A timestamp that is further ahead than this after the last packet starts a talkspurt. No packet of sound is longer.
const TALKSPURT_GAP_MS: i64 = 120;

/// Numbers packets that arrive.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    sequence_offset: u32,
    time_offset_ms: u32,
    last: Option<Last>,
    renewed: bool,
    /// Span of sequence numbers that `seen` belongs to, for the losses.
    span: Option<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    sequence: u32,
    time_ms: u32,
    at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    newest: u64,
    /// Of the 64 numbers up to the newest, which were seen.
    seen: u64,
}

/// The numbers of a packet, and how many before it are now lost for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    pub sequence: u32,
    pub time_ms: u32,
    pub lost: u32,
}

impl Arrivals {
    /// Numbers the packet of this extended RTP sequence number and RTP time in ms.
    pub fn number(&mut self, rtp_sequence: u64, rtp_time_ms: u64, now: Instant) -> Numbered {
        if self.renewed {
            self.renewed = false;
            self.span = None;
            if let Some(last) = self.last {
                let passed_ms = now.saturating_duration_since(last.at).as_millis() as u32;
                self.sequence_offset = last.sequence.wrapping_add(1).wrapping_sub(rtp_sequence as u32);
                self.time_offset_ms = last.time_ms.wrapping_add(passed_ms).wrapping_sub(rtp_time_ms as u32);
            }
        }
        let sequence = (rtp_sequence as u32).wrapping_add(self.sequence_offset);
        let time_ms = (rtp_time_ms as u32).wrapping_add(self.time_offset_ms);
        if self.last.is_none_or(|last| sequence.wrapping_sub(last.sequence) as i32 > 0) {
            self.last = Some(Last { sequence, time_ms, at: now });
        }
        Numbered { sequence, time_ms, lost: self.lost(rtp_sequence) }
    }

    /// The next packet is the first of another stream.
    pub fn renew(&mut self) {
        self.renewed = true;
    }

    /// Numbers that fell out of the window of 64 unseen, at 20 ms a packet 1.3 s later.
    fn lost(&mut self, rtp_sequence: u64) -> u32 {
        let Some(span) = &mut self.span else {
            // what came before the first packet was never ours to hear
            self.span = Some(Span { newest: rtp_sequence, seen: u64::MAX });
            return 0;
        };
        if rtp_sequence <= span.newest {
            let age = span.newest - rtp_sequence;
            if age < 64 {
                span.seen |= 1 << age;
            }
            return 0;
        }
        let step = rtp_sequence - span.newest;
        let leaving = if step >= 64 { u64::MAX } else { !(u64::MAX >> step) };
        let lost = (leaving & !span.seen).count_ones() + step.saturating_sub(64).min(u64::from(u32::MAX >> 1)) as u32;
        span.seen = if step >= 64 { 1 } else { span.seen << step | 1 };
        span.newest = rtp_sequence;
        lost
    }
}

/// Times packets that leave.
#[derive(Debug, Default)]
pub(super) struct Departures {
    last: Option<(u32, u64)>,
}

impl Departures {
    /// The media time in ms, extended over the wrap of 32 bits, and whether a talkspurt begins.
    pub fn time(&mut self, timestamp_ms: u32) -> (u64, bool) {
        let Some((last, extended)) = self.last else {
            // far from zero, so that a packet of the past stays above it
            let extended = (1 << 32) + u64::from(timestamp_ms);
            self.last = Some((timestamp_ms, extended));
            return (extended, true);
        };
        let step = i64::from(timestamp_ms.wrapping_sub(last) as i32);
        let now = extended.saturating_add_signed(step);
        if step > 0 {
            self.last = Some((timestamp_ms, now));
        }
        (now, step > TALKSPURT_GAP_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_replaced_stream_goes_on_after_the_last_packet() {
        let start = Instant::now();
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.number(65_535, 1_000, start), Numbered { sequence: 65_535, time_ms: 1_000, lost: 0 });
        assert_eq!(arrivals.number(65_536, 1_020, start), Numbered { sequence: 65_536, time_ms: 1_020, lost: 0 });
        arrivals.renew();
        let later = start + Duration::from_millis(300);
        assert_eq!(arrivals.number(7, 90_000, later), Numbered { sequence: 65_537, time_ms: 1_320, lost: 0 });
        assert_eq!(arrivals.number(9, 90_040, later), Numbered { sequence: 65_539, time_ms: 1_360, lost: 0 });
    }

    #[test]
    fn a_packet_counts_as_lost_when_it_can_no_longer_come() {
        let now = Instant::now();
        let mut arrivals = Arrivals::default();
        let mut lost = 0;
        for sequence in (0..200u64).filter(|sequence| ![10, 20, 21].contains(sequence)) {
            lost += arrivals.number(sequence, sequence * 20, now).lost;
            if sequence == 30 {
                lost += arrivals.number(21, 21 * 20, now).lost; // late, but here
            }
        }
        assert_eq!(lost, 2);
        assert_eq!(arrivals.number(1_200, 0, now).lost, 1_000 - 63, "of a long hole all but the last 63");
    }

    #[test]
    fn times_run_on_over_the_wrap_and_a_pause_starts_a_talkspurt() {
        let mut departures = Departures::default();
        let (first, talkspurt) = departures.time(u32::MAX - 9);
        assert!(talkspurt);
        assert_eq!(departures.time(10), (first + 20, false));
        assert_eq!(departures.time(u32::MAX - 9), (first, false), "a packet of the past keeps its time");
        assert_eq!(departures.time(30), (first + 40, false));
        assert_eq!(departures.time(430), (first + 440, true));
    }
}
