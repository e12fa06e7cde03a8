//! How much more this host can take, as measured, and what it leaves out when that is too little.
//!
//! Every second three things are looked at: the share of their time that the audio threads' ticks took, how late the
//! rim's timers woke, and the share of this host's cores that the process needed. Any at its limit is a pressure of 1. From
//! [`FULL`] on new calls are refused: those who talk come first. If it stays beyond [`PRESSED`], optional work is left out
//! step by step ([`Shed`]); with room again for some time, it is taken up step by step.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use voiced_rt::{Engine, MeterReading, Shed};

use crate::cpu;

/// Pressure from which on new calls are refused.
const FULL: f32 = 0.95;
/// Pressure from which on work is left out.
const PRESSED: f32 = 0.98;
/// Pressure below which a step is taken back.
const EASY: f32 = 0.8;
/// Seconds under it before a step: one slow second is an accident.
const PRESSED_S: u32 = 3;
/// Seconds of ease before a step back: a call takes a while to show what it costs.
const EASY_S: u32 = 15;
/// Lateness of the rim's timers that a caller would begin to notice, ms: a packet and a half.
const LATE_MS: f32 = 30.0;
/// How often the rim's lateness is looked at.
const PROBE: Duration = Duration::from_millis(20);
/// Probes of a window.
const PROBES: usize = 50;
/// Of a window's probes, so many may be later than the one that counts: a busy moment is not overload.
const PROBES_LATER: usize = 5;
/// One tick, in µs.
const TICK_US: f32 = 10_000.0;

/// What is left out, from one window to the next.
#[derive(Debug, Default)]
struct Control {
    shed: Shed,
    pressed_s: u32,
    easy_s: u32,
}

impl Control {
    /// One second passed under this pressure; what is left out from now on.
    fn second(&mut self, pressure: f32) -> Shed {
        self.pressed_s = if pressure >= PRESSED { self.pressed_s + 1 } else { 0 };
        self.easy_s = if pressure < EASY { self.easy_s + 1 } else { 0 };
        if self.pressed_s >= PRESSED_S {
            (self.shed, self.pressed_s) = (self.shed.more(), 0);
        } else if self.easy_s >= EASY_S {
            (self.shed, self.easy_s) = (self.shed.less(), 0);
        }
        self.shed
    }
}

/// The pressure of the last second, for who decides about new calls.
#[derive(Debug, Default)]
pub struct Headroom {
    /// In thousandths.
    pressure: AtomicU32,
}

impl Headroom {
    /// 0 idle, 1 at the limit.
    pub fn pressure(&self) -> f32 {
        self.pressure.load(Relaxed) as f32 / 1_000.0
    }

    /// No new calls.
    pub fn is_full(&self) -> bool {
        self.pressure() >= FULL
    }
}

/// Watches until the daemon stops. `kept_free` is the share of a tick that must stay free.
pub async fn watch(headroom: Arc<Headroom>, engine: Arc<Engine>, kept_free: f32) {
    let mut control = Control::default();
    let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f32);
    let (mut meters, mut wanted_s, mut looked_at) = (engine.meters(), cpu::wanted_seconds(), Instant::now());
    loop {
        let late_ms = lateness().await;
        let (meters_now, wanted_now_s, now) = (engine.meters(), cpu::wanted_seconds(), Instant::now());
        let needed = (wanted_now_s - wanted_s) as f32 / (now - looked_at).as_secs_f32() / cores;
        let pressure = (busy(&meters, &meters_now) / (1.0 - kept_free)).max(late_ms / LATE_MS).max(needed);
        (meters, wanted_s, looked_at) = (meters_now, wanted_now_s, now);
        headroom.pressure.store((pressure * 1_000.0) as u32, Relaxed);
        let was = control.shed;
        let shed = control.second(pressure);
        if shed != was {
            engine.shed(shed);
            tracing::warn!(
                pressure,
                calls = engine.calls(),
                left_out = shed.name(),
                "{}",
                if shed > was { "too much to do: leaving out more" } else { "room again" }
            );
        }
    }
}

/// Share of their time that the busiest audio thread's ticks took.
fn busy(before: &[MeterReading], now: &[MeterReading]) -> f32 {
    let share = |(before, now): (&MeterReading, &MeterReading)| (now.busy_us - before.busy_us) as f32 / (TICK_US * (now.ticks - before.ticks).max(1) as f32);
    before.iter().zip(now).map(share).fold(0.0, f32::max)
}

/// How late a timer of the rim woke in the last second, ms: the latest but a few.
async fn lateness() -> f32 {
    let mut probe = interval(PROBE);
    probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
    probe.tick().await;
    let mut late = [0.0; PROBES];
    for late in &mut late {
        let due = Instant::now() + PROBE;
        probe.tick().await;
        *late = Instant::now().saturating_duration_since(due).as_secs_f32() * 1_000.0;
    }
    late.sort_by(f32::total_cmp);
    late[PROBES - 1 - PROBES_LATER]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_left_out_in_order_under_lasting_pressure_and_taken_up_again_with_lasting_room() {
        let mut control = Control::default();
        let mut after = |seconds: u32, pressure| (0..seconds).map(|_| control.second(pressure)).last();
        assert_eq!(after(2, 1.5), Some(Shed::Nothing), "an accident");
        assert_eq!(after(1, 0.95), Some(Shed::Nothing));
        assert_eq!(after(3, 1.1), Some(Shed::Denoise));
        assert_eq!(after(3, 1.1), Some(Shed::TurnModel));
        assert_eq!(after(60, 1.1), Some(Shed::TurnModel), "there is nothing else to leave out");
        assert_eq!(after(60, 0.85), Some(Shed::TurnModel), "no room for more yet");
        assert_eq!(after(15, 0.5), Some(Shed::Denoise));
        assert_eq!(after(15, 0.5), Some(Shed::Nothing));
    }
}
