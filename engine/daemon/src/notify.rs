//! systemd: ready, watchdog, stopping. Without systemd nothing happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use sd_notify::NotifyState;
use voiced_rt::Engine;

use crate::linger;

/// This process drains: the service that systemd watches is another one by now.
static LEFT: AtomicBool = AtomicBool::new(false);

/// The listener is open.
pub fn ready() {
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

/// The drain has begun.
pub fn stopping() {
    if linger::is_watched() {
        // it would be taken for the successor's word, and stop it
        LEFT.store(true, Relaxed);
    } else {
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
    }
}

/// Pets the watchdog while every audio thread ticks: a daemon whose sockets answer but whose callers hear nothing is dead.
pub async fn watchdog(engine: Arc<Engine>) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    let mut before: Vec<u64> = Vec::new();
    while !LEFT.load(Relaxed) {
        let ticks: Vec<u64> = engine.meters().iter().map(|meter| meter.ticks).collect();
        if before.is_empty() || ticks.iter().zip(&before).all(|(now, before)| now > before) {
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
        before = ticks;
        tokio::time::sleep(patience.min(Duration::from_mins(1)) / 3).await;
    }
}
