//! What was stored, held against what the receiver took; and how memory and files grew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use voiced_core::event::CallEventKind;
use voiced_events::outbox::{State, Store};
use voiced_events::sinks::ema::idempotency_key;
use voiced_lab::ema::EmaReceiver;

/// More entries than a soak makes.
const ENTRIES_MAX: usize = 1_000_000;

/// What became of all events.
#[derive(Default)]
pub struct Account {
    pub stored: usize,
    /// Called sent and never taken, or missing between others.
    pub lost: usize,
    pub undelivered: usize,
    pub out_of_order: usize,
    pub without_end: usize,
    /// Calls that phones placed, of which the receiver did not take both begin and end.
    pub unreported: usize,
    /// Taken by the receiver, repetitions included.
    pub deliveries: usize,
}

impl Account {
    /// Holds the daemon's store, what the receiver took and the calls that phones placed, by their `CallSid`s, against each other.
    pub fn of(store: &Path, ema: &EmaReceiver, placed: &[String]) -> Result<Self> {
        let entries = Store::open(store, &[])?.list(false, ENTRIES_MAX)?;
        let mut sessions: BTreeMap<&str, Vec<(u32, bool)>> = BTreeMap::new();
        for entry in &entries {
            let is_end = matches!(entry.event.kind, CallEventKind::CallEnded { .. });
            sessions.entry(&entry.event.session_id).or_default().push((entry.event.sequence, is_end));
        }
        let (mut gaps, mut without_end) = (0, 0);
        for events in sessions.values_mut() {
            events.sort_unstable();
            gaps += events.last().map_or(0, |last| last.0 as usize + 1 - events.len());
            without_end += usize::from(!events.last().is_some_and(|last| last.1));
        }
        let (mut taken, mut latest, mut out_of_order, mut deliveries) = (BTreeSet::new(), BTreeMap::<String, u32>::new(), 0, 0);
        let mut ends = BTreeSet::new();
        for received in ema.received().into_iter().filter(|received| received.accepted) {
            deliveries += 1;
            if let (Some(call_sid), Some(kind @ ("call_initiated" | "call_ended"))) = (received.body["call_sid"].as_str(), received.body["event_type"].as_str())
            {
                ends.insert((call_sid.to_owned(), kind == "call_ended"));
            }
            let key = received.idempotency_key.unwrap_or_default();
            let Some((session, number)) = key.rsplit_once('-') else { continue };
            let number = number.parse().unwrap_or(0);
            if taken.insert(key.clone()) && latest.insert(session.to_owned(), number).map_or(0, |before| before + 1) != number {
                out_of_order += 1;
            }
        }
        let is_lost = |entry: &&voiced_events::outbox::Entry| entry.state == State::Sent && !taken.contains(&idempotency_key(&entry.event));
        Ok(Self {
            stored: entries.len(),
            lost: gaps + entries.iter().filter(is_lost).count(),
            undelivered: entries.iter().filter(|entry| entry.state != State::Sent).count(),
            out_of_order,
            without_end,
            unreported: placed.iter().filter(|call_sid| [false, true].iter().any(|is_end| !ends.contains(&((*call_sid).clone(), *is_end)))).count(),
            deliveries,
        })
    }

    pub fn is_whole(&self) -> bool {
        self.lost + self.undelivered + self.out_of_order + self.without_end + self.unreported == 0
    }
}

/// How much a process holds.
#[derive(Clone, Copy)]
pub struct Sample {
    pub at: Instant,
    pub memory_kb: u64,
    pub files: u64,
}

impl Sample {
    pub fn of(pid: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let memory_kb = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())?;
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
        Some(Self { at: Instant::now(), memory_kb, files })
    }
}

/// Growth over all of these samples, by their slope: single peaks count little.
pub fn growth(samples: &[Sample], value: impl Fn(&Sample) -> u64) -> f64 {
    let minutes = samples.first().zip(samples.last()).map_or(0.0, |(first, last)| last.at.duration_since(first.at).as_secs_f64() / 60.0);
    slope_per_minute(samples, value) * minutes
}

/// Growth by least squares.
pub fn slope_per_minute(samples: &[Sample], value: impl Fn(&Sample) -> u64) -> f64 {
    let Some(first) = samples.first() else { return 0.0 };
    let points: Vec<_> = samples.iter().map(|sample| (sample.at.duration_since(first.at).as_secs_f64() / 60.0, value(sample) as f64)).collect();
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / n, y + point.1 / n));
    let (xy, xx) = points.iter().fold((0.0, 0.0), |(xy, xx), point| (xy + (point.0 - x) * (point.1 - y), xx + (point.0 - x).powi(2)));
    if xx == 0.0 { 0.0 } else { (xy / xx * 10.0).round() / 10.0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_call_of_which_the_receiver_has_not_taken_both_ends_is_unreported() {
        let ema = EmaReceiver::start(None).await.unwrap();
        for (call_sid, kind) in [("CA1", "call_initiated"), ("CA1", "call_ended"), ("CA2", "call_initiated"), ("CA3", "call_ended")] {
            let event = serde_json::json!({ "call_sid": call_sid, "event_type": kind });
            reqwest::Client::new().post(format!("{}/webhooks/livekit/{kind}", ema.url())).json(&event).send().await.unwrap();
        }
        let folder = tempfile::TempDir::new().unwrap();
        let unreported = |placed: &[&str]| {
            Account::of(&folder.path().join("events.db"), &ema, &placed.iter().map(|call_sid| (*call_sid).to_owned()).collect::<Vec<_>>()).unwrap().unreported
        };
        assert_eq!((unreported(&["CA1"]), unreported(&["CA1", "CA2", "CA3", "CA4"])), (0, 3));
    }

    #[test]
    fn steady_growth_is_told_per_minute() {
        let start = Instant::now();
        let sample = |second: u64| Sample { at: start + Duration::from_secs(second), memory_kb: 1_000 + second, files: 7 };
        let samples: Vec<_> = (0..120).map(sample).collect();
        assert_eq!((slope_per_minute(&samples, |sample| sample.memory_kb), slope_per_minute(&samples, |sample| sample.files)), (60.0, 0.0));
    }
}
