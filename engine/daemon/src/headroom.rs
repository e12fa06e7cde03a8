//! How much more this host can take, as measured, and what it leaves out when that is too little.
//!
//! Every second three things are looked at: the share of their time that the audio threads' ticks took, how late the
//! rim's timers woke, and the share of this host's cores that the process needed. Any at its limit is a pressure of 1. From
//! [`FULL`] on new calls are refused: those who talk come first. If it stays beyond [`PRESSED`], optional work is left out
//! step by step ([`Shed`]); once there is room for it again, it is taken up step by step. For new calls work that is left
//! out counts as if it were done: nobody is let in at the cost of those whose sound is no longer cleaned.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use voiced_events::deliver::unix_ms;
use voiced_rt::{Engine, MeterReading, Shed, Stage};

use crate::cpu;

/// Pressure from which on new calls are refused.
const FULL: f32 = 0.95;
/// Pressure from which on work is left out.
const PRESSED: f32 = 0.98;
/// Pressure, with what is left out added, below which a step is taken back.
const EASY: f32 = 0.8;
/// How long under it before a step: one slow second is an accident.
const PRESSED_FOR: Duration = Duration::from_secs(3);
/// How long there is ease before a step back: a call takes a while to show what it costs.
const EASY_FOR: Duration = Duration::from_secs(15);
/// Where a step back did not last [`LASTS`], the next is waited for twice as long, up to this.
const EASY_FOR_MAX: Duration = Duration::from_mins(4);
const LASTS: Duration = Duration::from_mins(1);
/// Lateness of the rim's timers that a caller would begin to notice, ms: a packet and a half.
const LATE_MS: f32 = 30.0;
/// How often all is looked at.
const WINDOW: Duration = Duration::from_secs(1);
/// How often the rim's lateness is looked at.
const PROBE: Duration = Duration::from_millis(20);
/// Of a window's probes, one in so many may be later than the one that counts: a busy moment is not overload.
const PROBES_LATER: usize = 10;
/// One tick, in µs.
const TICK_US: f32 = 10_000.0;
/// Calls that are let in between two looks whatever the pressure was: below this the measure says little of a call's cost.
const BURST_MIN: usize = 10;

/// What is left out, from one look to the next.
#[derive(Debug)]
struct Control {
    shed: Shed,
    pressed_for: Duration,
    easy_for: Duration,
    /// How long ease has to last now.
    patience: Duration,
    /// Since the last step back.
    restored_for: Duration,
}

impl Default for Control {
    fn default() -> Self {
        Self { shed: Shed::Nothing, pressed_for: Duration::ZERO, easy_for: Duration::ZERO, patience: EASY_FOR, restored_for: Duration::MAX }
    }
}

impl Control {
    /// So much time passed under this pressure, while `left_out` more would come from what is left out; what is left out from now on.
    fn look(&mut self, passed: Duration, pressure: f32, left_out: f32) -> Shed {
        let so_long = |so_far: Duration, holds: bool| if holds { so_far + passed } else { Duration::ZERO };
        self.pressed_for = so_long(self.pressed_for, pressure >= PRESSED);
        self.easy_for = so_long(self.easy_for, pressure + left_out < EASY);
        self.restored_for = self.restored_for.saturating_add(passed);
        if self.pressed_for >= PRESSED_FOR {
            if self.shed.more() != self.shed {
                self.patience = if self.restored_for < LASTS { (self.patience * 2).min(EASY_FOR_MAX) } else { EASY_FOR };
            }
            (self.shed, self.pressed_for) = (self.shed.more(), Duration::ZERO);
        } else if self.easy_for >= self.patience && self.shed != Shed::Nothing {
            (self.shed, self.easy_for, self.restored_for) = (self.shed.less(), Duration::ZERO, Duration::ZERO);
        }
        self.shed
    }
}

/// A change of what is left out, for those who listen to `/events`; of the kind `host`, which no call's event is.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(tag = "kind", rename = "host")]
pub struct Change {
    /// What is left out from now on.
    pub left_out: &'static str,
    /// The pressure that led to it.
    pub pressure: f32,
    /// Calls at that moment.
    pub calls: usize,
    /// Wall clock, ms since the Unix epoch.
    pub at_unix_ms: u64,
}

/// The pressure at the last look, for who decides about new calls.
#[derive(Debug)]
pub struct Headroom {
    /// In thousandths, with what is left out.
    pressure: AtomicU32,
    /// Calls at which no more are let in before the next look.
    calls_max: AtomicU32,
    /// Steps of leaving out since the start.
    steps: AtomicU32,
    changes: watch::Sender<Change>,
}

impl Default for Headroom {
    fn default() -> Self {
        Self { pressure: AtomicU32::new(0), calls_max: AtomicU32::new(u32::MAX), steps: AtomicU32::new(0), changes: watch::Sender::default() }
    }
}

impl Headroom {
    /// 0 idle, 1 at the limit; what is left out counts as if it were done.
    pub fn pressure(&self) -> f32 {
        self.pressure.load(Relaxed) as f32 / 1_000.0
    }

    /// No new call besides these.
    pub fn is_full(&self, calls: usize) -> bool {
        self.pressure() >= FULL || calls >= self.calls_max.load(Relaxed) as usize
    }

    /// How often work was left out.
    pub fn steps(&self) -> u32 {
        self.steps.load(Relaxed)
    }

    /// What is left out, at each change.
    pub fn changes(&self) -> watch::Receiver<Change> {
        self.changes.subscribe()
    }

    /// A look has found this pressure, and what is left out.
    fn found(&self, pressure: f32, left_out: f32, shed: Shed, calls: usize) {
        // what the model's work would cost is not known: the core's idle time is what it runs in
        let whole = if shed == Shed::TurnModel { (pressure + left_out).max(FULL) } else { pressure + left_out };
        let each = whole / calls.max(1) as f32;
        let more = ((FULL - whole).max(0.0) / each.max(f32::EPSILON)) as usize;
        self.calls_max.store((calls + more.max(BURST_MIN)).min(u32::MAX as usize) as u32, Relaxed);
        self.pressure.store((whole * 1_000.0) as u32, Relaxed);
    }
}

/// Watches until the daemon stops. `kept_free` is the share of a tick that must stay free.
pub async fn watch(headroom: Arc<Headroom>, engine: Arc<Engine>, kept_free: f32) {
    let mut control = Control::default();
    let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f32);
    let mut denoise_each = 0.0;
    let (mut meters, mut wanted_s, mut looked_at) = (engine.meters(), cpu::wanted_seconds(), Instant::now());
    loop {
        let late_ms = lateness().await;
        let (meters_now, wanted_now_s, now) = (engine.meters(), cpu::wanted_seconds(), Instant::now());
        let passed = now - looked_at;
        let needed = (wanted_now_s - wanted_s) as f32 / passed.as_secs_f32() / cores;
        let pressure = (busiest(&meters, &meters_now, |meter| meter.busy_us * 1_000) / (1.0 - kept_free)).max(late_ms / LATE_MS).max(needed);
        let calls = engine.calls();
        let denoise = busiest(&meters, &meters_now, |meter| meter.stages_ns[Stage::Denoise as usize]) / (1.0 - kept_free);
        let was = control.shed;
        if was == Shed::Nothing {
            denoise_each = denoise / calls.max(1) as f32;
        }
        let left_out = if was == Shed::Nothing { 0.0 } else { denoise_each * calls as f32 };
        (meters, wanted_s, looked_at) = (meters_now, wanted_now_s, now);
        let shed = control.look(passed, pressure, left_out);
        headroom.found(pressure, left_out, shed, calls);
        if shed != was {
            engine.shed(shed);
            headroom.steps.fetch_add(u32::from(shed > was), Relaxed);
            headroom.changes.send_replace(Change { left_out: shed.name(), pressure, calls, at_unix_ms: unix_ms() });
            let what = if shed > was { "too much to do: leaving out more" } else { "room again" };
            tracing::warn!(pressure, calls, left_out = shed.name(), "{what}");
        }
    }
}

/// Share of their time that the busiest audio thread's ticks took for this, which is counted in ns.
fn busiest(before: &[MeterReading], now: &[MeterReading], ns: fn(&MeterReading) -> u64) -> f32 {
    let share = |(before, now): (&MeterReading, &MeterReading)| (ns(now) - ns(before)) as f32 / (1_000.0 * TICK_US * (now.ticks - before.ticks).max(1) as f32);
    before.iter().zip(now).map(share).fold(0.0, f32::max)
}

/// How late a timer of the rim woke within [`WINDOW`], ms: the latest but a few.
async fn lateness() -> f32 {
    let end = Instant::now() + WINDOW;
    let mut late = Vec::with_capacity((WINDOW.as_millis() / PROBE.as_millis()) as usize);
    while Instant::now() < end {
        let due = Instant::now() + PROBE;
        sleep_until(due).await;
        late.push(Instant::now().saturating_duration_since(due).as_secs_f32() * 1_000.0);
    }
    late.sort_by(f32::total_cmp);
    late[late.len() - 1 - late.len() / PROBES_LATER]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host on which each call costs so much, noise cancellation a third of it; looked at each second.
    struct Host {
        control: Control,
        headroom: Headroom,
        each: f32,
        changes: usize,
    }

    impl Host {
        fn new(each: f32) -> Self {
            Self { control: Control::default(), headroom: Headroom::default(), each, changes: 0 }
        }

        fn passes(&mut self, seconds: u32, calls: usize) -> Shed {
            for _ in 0..seconds {
                let (whole, denoise) = (self.each * calls as f32, self.each * calls as f32 / 3.0);
                let was = self.control.shed;
                let left_out = if was == Shed::Nothing { 0.0 } else { denoise };
                let shed = self.control.look(Duration::from_secs(1), whole - left_out, left_out);
                self.headroom.found(whole - left_out, left_out, shed, calls);
                self.changes += usize::from(shed != was);
            }
            self.control.shed
        }
    }

    #[test]
    fn work_is_left_out_in_order_under_lasting_pressure_and_taken_up_again_with_lasting_room() {
        let mut control = Control::default();
        let mut after = |seconds: u32, pressure| (0..seconds).map(|_| control.look(Duration::from_secs(1), pressure, 0.0)).last();
        assert_eq!(after(2, 1.5), Some(Shed::Nothing), "an accident");
        assert_eq!(after(1, 0.95), Some(Shed::Nothing));
        assert_eq!(after(3, 1.1), Some(Shed::Denoise));
        assert_eq!(after(3, 1.1), Some(Shed::TurnModel));
        assert_eq!(after(60, 1.1), Some(Shed::TurnModel), "there is nothing else to leave out");
        assert_eq!(after(60, 0.85), Some(Shed::TurnModel), "no room for more yet");
        assert_eq!(after(15, 0.5), Some(Shed::Denoise));
        assert_eq!(after(15, 0.5), Some(Shed::Nothing));
    }

    #[test]
    fn with_as_many_calls_as_before_work_that_did_not_fit_stays_left_out() {
        let mut host = Host::new(0.004);
        assert_eq!(host.passes(10, 250), Shed::Denoise);
        assert_eq!(host.passes(600, 250), Shed::Denoise, "what is left is easy, but all of it would not fit");
        assert_eq!(host.changes, 1);
        assert_eq!(host.passes(60, 150), Shed::Nothing, "some have hung up");
    }

    #[test]
    fn nobody_is_let_in_at_the_cost_of_those_whose_sound_is_no_longer_cleaned() {
        let mut host = Host::new(0.004);
        host.passes(10, 250);
        assert!(host.headroom.is_full(250));
        host.passes(10, 200);
        assert!(!host.headroom.is_full(200));
    }

    #[test]
    fn a_step_back_that_does_not_last_is_tried_ever_less_often() {
        let mut control = Control::default();
        let mut changes = 0;
        for _ in 0..3_600 {
            // what the model costs is not known beforehand: with it there is too much to do, without it there is room
            let pressure = if control.shed == Shed::TurnModel { 0.5 } else { 1.1 };
            let was = control.shed;
            changes += u32::from(control.look(Duration::from_secs(1), pressure, 0.0) != was);
        }
        assert!(changes < 60, "{changes} changes in an hour");
    }

    #[test]
    fn a_burst_takes_no_more_calls_than_there_is_room_for_before_the_next_look() {
        let headroom = Headroom::default();
        headroom.found(0.5, 0.0, Shed::Nothing, 100);
        assert!(!headroom.is_full(185), "a call costs 0.005: 90 more are room");
        assert!(headroom.is_full(190));
        headroom.found(0.9, 0.0, Shed::Nothing, 3);
        assert!(!headroom.is_full(12), "three calls say little");
        assert!(headroom.is_full(13));
    }
}
