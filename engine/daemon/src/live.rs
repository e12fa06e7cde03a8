//! `voiced check --live`: who runs on this state folder, and who still talks. Asked of the store and not of the daemon,
//! since one that drains has left its socket to its successor.

use anyhow::{Result, bail};
use voiced_config::Settings;
use voiced_events::deliver::unix_ms;
use voiced_events::outbox::{Process, Store};

use crate::dirs;

/// Prints each process and its calls; fails when none runs.
pub fn print(settings: &Settings) -> Result<()> {
    let file = dirs::event_store(&settings.storage);
    let processes = if file.exists() { Store::open(&file, &[])?.processes()? } else { Vec::new() };
    if processes.is_empty() {
        bail!("no voiced runs on {} (storage.state_dir)", file.display());
    }
    let now = unix_ms();
    for Process { pid, since_unix_ms, draining, calls } in processes {
        let state = if draining { "draining: takes no new calls" } else { "takes calls" };
        println!("process {pid}, up {}, {state}, {} call(s)", ago(now, since_unix_ms), calls.len());
        for (session, since) in calls {
            println!("  {session:<48} {}", ago(now, since));
        }
    }
    Ok(())
}

fn ago(now_unix_ms: u64, then_unix_ms: u64) -> String {
    let seconds = now_unix_ms.saturating_sub(then_unix_ms) / 1_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}
