//! What `/metrics` tells. The audio threads' meters are read when asked for; the rim's own counts are kept here.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use voiced_core::conversation::TurnTiming;
use voiced_core::leg::LegEvent;
use voiced_events::outbox::StoreHealth;
use voiced_models_remote::breaker::{Breaker, BreakerReading};
use voiced_rt::{MeterReading, STAGES as TICK_STAGES, TICK_BUCKETS_US};
use voiced_twilio::{DELAY_BUCKETS_US, Delays, TwilioCounters};

use crate::headroom::Headroom;

/// Upper bounds of the stage histograms, in ms: fine around what callers feel as quick.
const STAGE_BUCKETS_MS: [u32; 14] = [50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 1_000, 1_500, 2_000, 5_000];

/// A count that only grows.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }
}

#[derive(Default)]
struct Histogram {
    buckets: [AtomicU64; STAGE_BUCKETS_MS.len() + 1],
    sum_ms: AtomicU64,
}

impl Histogram {
    fn observe(&self, ms: u32) {
        let bucket = STAGE_BUCKETS_MS.iter().position(|&bound| ms <= bound).unwrap_or(STAGE_BUCKETS_MS.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_ms.fetch_add(u64::from(ms), Relaxed);
    }
}

/// The rim's counts.
#[derive(Default)]
pub struct Metrics {
    pub calls_taken: Counter,
    pub calls_refused: Counter,
    pub packets_dropped: Counter,
    pub commands_dropped: Counter,
    pub stt_dropped: Counter,
    pub stt_switched: Counter,
    pub trace_spans_sent: Counter,
    pub trace_spans_lost: Counter,
    held: Counter,
    unheld: Counter,
    interrupted: Counter,
    stages: [Histogram; 6],
    hold: Histogram,
    ended: Mutex<BTreeMap<&'static str, u64>>,
    /// By name, which the settings bound, and outcome.
    tools: Mutex<BTreeMap<(String, &'static str), u64>>,
}

/// Steps of an answered turn, in the order of [`TurnTiming`].
pub const STAGES: [&str; 6] = ["turn_end", "transcript", "llm_first_token", "first_phrase", "tts_first_sound", "reply"];

impl Metrics {
    /// Counts what a leg did.
    pub fn leg(&self, event: &LegEvent) {
        match event {
            LegEvent::Held { at, cleared_at, .. } => {
                self.held.add(1);
                self.hold.observe(cleared_at.since(*at) as u32);
            }
            LegEvent::Unheld { .. } => self.unheld.add(1),
            LegEvent::Interrupted { .. } => self.interrupted.add(1),
            _ => {}
        }
    }

    /// Counts an answered turn's steps.
    pub fn timing(&self, timing: &TurnTiming) {
        let steps = [timing.ended_ms, timing.transcript_ms, timing.llm_ms, timing.phrase_ms, timing.tts_ms, timing.reply_ms];
        for (histogram, ms) in self.stages.iter().zip(steps) {
            if let Some(ms) = ms {
                histogram.observe(ms);
            }
        }
    }

    /// Counts an ended call.
    pub fn ended(&self, reason: &'static str) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    /// Counts a tool's call.
    pub fn tool(&self, name: &str, outcome: &'static str) {
        *self.tools.lock().unwrap_or_else(PoisonError::into_inner).entry((name.to_owned(), outcome)).or_default() += 1;
    }

    /// Prometheus' text form.
    pub fn render(
        &self,
        threads: &[MeterReading],
        headroom: &Headroom,
        backlog: &BTreeMap<String, (u64, u64)>,
        twilio: &TwilioCounters,
        rooms: &[(&'static str, u64)],
        providers: &[Arc<Breaker>],
    ) -> String {
        let mut out = String::new();
        let rim = [
            ("calls_taken_total", "Calls taken.", &self.calls_taken),
            ("calls_refused_total", "Calls refused for want of a place.", &self.calls_refused),
            ("packets_dropped_total", "Caller's packets that the audio thread had no room for.", &self.packets_dropped),
            ("commands_dropped_total", "Commands that the audio thread had no room for.", &self.commands_dropped),
            ("stt_dropped_total", "Pieces of sound that speech to text had no room for.", &self.stt_dropped),
            ("stt_switched_total", "Times that another speech-to-text took over within a call.", &self.stt_switched),
            ("trace_spans_sent_total", "Spans of calls' traces that the collector took.", &self.trace_spans_sent),
            ("trace_spans_lost_total", "Spans that the collector did not take or had no room for.", &self.trace_spans_lost),
            ("held_total", "Agent's speech held because the caller spoke over it.", &self.held),
            ("unheld_total", "Held speech that went on: a backchannel or noise.", &self.unheld),
            ("interrupted_total", "Held speech that was cut: an interruption.", &self.interrupted),
        ];
        for (name, help, counter) in rim {
            single(&mut out, name, "counter", help, &counter.0.load(Relaxed).to_string());
        }
        let help = "1: at the limit of this host, with what is left out as if it were done; from 0.95 on calls are refused.";
        single(&mut out, "pressure", "gauge", help, &format!("{:.3}", headroom.pressure()));
        single(&mut out, "shed_total", "counter", "Times that optional work was left out.", &headroom.steps().to_string());
        let mut family = |name: &str, kind: &str, help: &str, rows: Vec<(String, u64)>| {
            let _ = writeln!(out, "# HELP voiced_{name} {help}\n# TYPE voiced_{name} {kind}");
            for (labels, value) in rows {
                let _ = writeln!(out, "voiced_{name}{{{labels}}} {value}");
            }
        };
        let by_thread = |read: fn(&MeterReading) -> u64| threads.iter().enumerate().map(|(i, meter)| (format!("thread=\"{i}\""), read(meter))).collect();
        family("calls", "gauge", "Calls now.", by_thread(|meter| meter.calls as u64));
        family("shed_level", "gauge", "Optional work left out: 1 noise cancellation, 2 the end-of-turn model too.", by_thread(|meter| meter.shed as u64));
        family("ticks_total", "counter", "Ticks run.", by_thread(|meter| meter.ticks));
        family("tick_busy_us_total", "counter", "Time spent in ticks, µs.", by_thread(|meter| meter.busy_us));
        family("tick_overruns_total", "counter", "Ticks that took longer than 10 ms.", by_thread(|meter| meter.overruns));
        family("ticks_late_total", "counter", "Ticks over more than 20 ms after they were due: frames that missed their slot.", by_thread(|meter| meter.late));
        family("ticks_skipped_total", "counter", "Ticks left out to catch up.", by_thread(|meter| meter.skipped));
        family("rings_full_total", "counter", "Drops at a full ring towards the rim.", by_thread(|meter| meter.rings_full));
        family("turn_asks_answered_total", "counter", "End-of-turn questions that the model answered.", by_thread(|meter| meter.asks_answered));
        family(
            "turn_asks_dropped_total",
            "counter",
            "End-of-turn questions that it had no time for: pause and transcript decided.",
            by_thread(|meter| meter.asks_dropped),
        );
        family("heard_packets_total", "counter", "Callers' packets that came.", by_thread(|meter| meter.packets));
        family("heard_packets_late_total", "counter", "Of them, those whose moment had passed.", by_thread(|meter| meter.packets_late));
        family("heard_packets_lost_total", "counter", "Packets that never came.", by_thread(|meter| meter.packets_lost));
        family("heard_packets_recovered_total", "counter", "Lost packets rebuilt from the next one's FEC.", by_thread(|meter| meter.packets_recovered));
        family("heard_concealed_ms_total", "counter", "Sound made up in place of what was missing.", by_thread(|meter| meter.concealed_ms));
        family("playout_underruns_total", "counter", "Times a caller's end ran dry within a reply.", by_thread(|meter| meter.underruns));
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        family("calls_ended_total", "counter", "Calls ended, by reason.", ended.iter().map(|(reason, n)| (format!("reason=\"{reason}\""), *n)).collect());
        let tools = self.tools.lock().unwrap_or_else(PoisonError::into_inner);
        let by_tool = tools.iter().map(|((name, outcome), n)| (format!("tool=\"{name}\",outcome=\"{outcome}\""), *n)).collect();
        family("tool_calls_total", "counter", "Calls of the operator's tools, by outcome.", by_tool);
        family("outbox_pending", "gauge", "Events owed to a sink.", backlog.iter().map(|(sink, n)| (format!("sink=\"{sink}\""), n.0)).collect());
        family("outbox_parked", "gauge", "Events that a sink refused.", backlog.iter().map(|(sink, n)| (format!("sink=\"{sink}\""), n.1)).collect());
        family("twilio_total", "counter", "Twilio transport counts.", twilio.read().iter().map(|(what, n)| (format!("what=\"{what}\""), *n)).collect());
        family("livekit_total", "counter", "LiveKit transport counts.", rooms.iter().map(|(what, n)| (format!("what=\"{what}\""), *n)).collect());
        let by_provider =
            |read: fn(BreakerReading) -> u64| providers.iter().map(|breaker| (format!("provider=\"{}\"", breaker.name()), read(breaker.read()))).collect();
        family("provider_state", "gauge", "0: well, 1: being tried again, 2: left alone because it kept failing.", by_provider(|reading| reading.state));
        family("provider_failures_total", "counter", "Failures of a provider, slow answers too.", by_provider(|reading| reading.failures));
        family("provider_opened_total", "counter", "Times that a provider was left alone.", by_provider(|reading| reading.opened));
        delays(&mut out, "clear_sent", "From the tick that decided on a clear until Twilio's socket had taken it.", &twilio.clear_sent);
        let help = "From when a reply could be heard at the earliest until Twilio's socket had taken its first sound.";
        delays(&mut out, "reply_sent", help, &twilio.reply_sent);
        ticks(&mut out, threads);
        crate::cpu::render(&mut out);
        let stages = STAGES.iter().copied().zip(&self.stages).chain([("barge_in_hold", &self.hold)]);
        let _ =
            writeln!(out, "# HELP voiced_stage_ms From the caller's last speech frame (barge_in_hold: first) to each step.\n# TYPE voiced_stage_ms histogram");
        for (stage, histogram) in stages {
            let rows = STAGE_BUCKETS_MS.iter().map(ToString::to_string).zip(histogram.buckets.iter().map(|n| n.load(Relaxed)));
            let all = histogram.buckets.iter().map(|n| n.load(Relaxed)).sum();
            buckets(&mut out, "stage_ms", &format!("stage=\"{stage}\""), rows, all, histogram.sum_ms.load(Relaxed));
        }
        out
    }
}

/// How the event store is.
pub fn store(out: &mut String, health: &StoreHealth) {
    let degraded = u8::from(health.trouble().is_some());
    single(out, "outbox_degraded", "gauge", "1: events are not stored now, see /health and the log.", &degraded.to_string());
    single(out, "outbox_unwritten", "gauge", "Events that wait in memory for the disk.", &health.unwritten().to_string());
    single(out, "outbox_lost_total", "counter", "Events for which even memory had no room.", &health.lost().to_string());
    single(out, "outbox_set_aside_total", "counter", "Damaged event stores set aside.", &health.set_aside().to_string());
}

fn ticks(out: &mut String, threads: &[MeterReading]) {
    let _ = writeln!(out, "# HELP voiced_tick_stage_seconds_total Time of each part of the ticks.\n# TYPE voiced_tick_stage_seconds_total counter");
    for (number, meter) in threads.iter().enumerate() {
        for ((_, stage), ns) in TICK_STAGES.iter().zip(meter.stages_ns) {
            let _ = writeln!(out, "voiced_tick_stage_seconds_total{{thread=\"{number}\",stage=\"{stage}\"}} {:.4}", ns as f64 / 1e9);
        }
    }
    let _ = writeln!(out, "# HELP voiced_tick_us Time of one tick over all calls of a thread.\n# TYPE voiced_tick_us histogram");
    for (number, meter) in threads.iter().enumerate() {
        let rows = TICK_BUCKETS_US.iter().map(ToString::to_string).zip(meter.histogram);
        buckets(out, "tick_us", &format!("thread=\"{number}\""), rows, meter.histogram.iter().sum(), meter.busy_us);
    }
}

fn delays(out: &mut String, name: &str, help: &str, delays: &Delays) {
    let _ = writeln!(out, "# HELP voiced_{name}_us {help}\n# TYPE voiced_{name}_us histogram");
    let (counts, sum_us) = delays.read();
    let rows = DELAY_BUCKETS_US.iter().map(ToString::to_string).zip(counts);
    buckets(out, &format!("{name}_us"), "transport=\"twilio\"", rows, counts.iter().sum(), sum_us);
}

fn buckets(out: &mut String, name: &str, labels: &str, rows: impl Iterator<Item = (String, u64)>, all: u64, sum: u64) {
    let mut below = 0;
    for (bound, n) in rows {
        below += n;
        let _ = writeln!(out, "voiced_{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
    }
    let _ = writeln!(out, "voiced_{name}_bucket{{{labels},le=\"+Inf\"}} {all}\nvoiced_{name}_sum{{{labels}}} {sum}\nvoiced_{name}_count{{{labels}}} {all}");
}

fn single(out: &mut String, name: &str, kind: &str, help: &str, value: &str) {
    let _ = writeln!(out, "# HELP voiced_{name} {help}\n# TYPE voiced_{name} {kind}\nvoiced_{name} {value}");
}
