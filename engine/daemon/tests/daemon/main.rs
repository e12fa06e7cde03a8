//! The daemon as its users meet it: the real binary on loopback, set up by environment, called by a telephone, with fake
//! providers and a receiver of its events. Each module is one promise of the daemon, tested from outside.

mod caller;
mod host;
mod proxy;
mod story;
mod stranger;
mod systemd;
mod venue;

mod attack;
mod backlog;
mod bridge;
mod browser;
mod chains;
mod crash;
mod dialogue;
mod disk;
mod faults;
mod flight;
mod frontend;
mod kill;
mod limits;
mod logs;
mod operator;
mod realtime;
mod restart;
mod rooms;
mod rudeness;
mod secrets;
mod standstill;
mod tools;
mod traces;
mod trust;
mod unit;

use std::time::{Duration, Instant};

/// What has not happened after this long does not happen.
const PATIENCE: Duration = Duration::from_mins(1);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until it holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(LOOK).await;
    }
}
