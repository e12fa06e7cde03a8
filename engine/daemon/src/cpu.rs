//! Where this process's CPU time and memory go, as the kernel tells: what an operator would look for with `top -H`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::sync::{Mutex, PoisonError};

/// The kernel's unit of CPU time in `/proc`, per second: the same on every Linux.
const TICKS_PER_S: f64 = 100.0;
/// Name of the threads that judge ends of turns, which run only while nobody else wants the core.
const JUDGE: &str = "judge";
/// Size of a page in `/proc/self/statm`, in bytes.
const PAGE_BYTES: u64 = 4_096;

/// CPU ticks of this process' threads, those that have ended among them.
#[derive(Debug, Default)]
struct Threads {
    /// By thread id: its name without its number, and its ticks when it was last seen.
    alive: BTreeMap<u64, (String, u64)>,
    ended: BTreeMap<String, u64>,
}

impl Threads {
    fn look(&mut self, now: BTreeMap<u64, (String, u64)>) {
        for (id, (name, ticks)) in std::mem::replace(&mut self.alive, now) {
            // an id is given again; a thread's own clock never goes back
            if self.alive.get(&id).is_none_or(|(name_now, ticks_now)| *name_now != name || *ticks_now < ticks) {
                *self.ended.entry(name).or_default() += ticks;
            }
        }
    }

    fn seconds(&self) -> BTreeMap<String, f64> {
        let mut seconds = BTreeMap::new();
        let alive = self.alive.values().map(|(name, ticks)| (name, ticks));
        for (name, ticks) in alive.chain(&self.ended) {
            *seconds.entry(name.clone()).or_default() += *ticks as f64 / TICKS_PER_S;
        }
        seconds
    }
}

/// CPU seconds of this process' threads, by what they are for: their name without its number. Whose thread ended between two
/// calls is counted up to the first of them.
pub fn seconds_by_thread() -> BTreeMap<String, f64> {
    static THREADS: Mutex<Threads> = Mutex::new(Threads { alive: BTreeMap::new(), ended: BTreeMap::new() });
    // before the look: of two at once the older must not come second, or it would seem that ids were given again
    let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut now = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let (Ok(stat), Some(Ok(id))) = (fs::read_to_string(task.path().join("stat")), task.file_name().to_str().map(str::parse)) else { continue };
        if let Some((name, ticks)) = parse(&stat) {
            now.insert(id, (name.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '-').to_owned(), ticks));
        }
    }
    threads.look(now);
    threads.seconds()
}

/// CPU seconds of this process, but for [`JUDGE`]s.
pub fn wanted_seconds() -> f64 {
    seconds_by_thread().iter().filter(|(name, _)| !name.starts_with(JUDGE)).map(|(_, seconds)| seconds).sum()
}

/// Name and CPU ticks of a line like `17 (audio-0) S 1 …`, in user and kernel mode.
fn parse(stat: &str) -> Option<(&str, u64)> {
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1;
    let mut fields = tail.split_whitespace().skip(11);
    Some((name, fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?))
}

/// Memory in use, in bytes.
fn resident_bytes() -> Option<u64> {
    fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse::<u64>().ok().map(|pages| pages * PAGE_BYTES)
}

/// The same as Prometheus' text.
pub fn render(out: &mut String) {
    let _ = writeln!(out, "# HELP voiced_cpu_seconds_total CPU time by what the threads are for.\n# TYPE voiced_cpu_seconds_total counter");
    for (name, seconds) in seconds_by_thread() {
        let _ = writeln!(out, "voiced_cpu_seconds_total{{threads=\"{}\"}} {seconds:.2}", name.replace(['"', '\\', '\n'], ""));
    }
    if let Some(bytes) = resident_bytes() {
        let _ = writeln!(
            out,
            "# HELP process_resident_memory_bytes Memory in use.\n# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {bytes}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threads_line_is_read_whatever_its_name() {
        let stat = "81 (tokio) rt-(1) S 1 80 80 0 -1 4194368 215 0 0 0 773 41 0 0 20 0 7 0 38014 20 99";
        assert_eq!(parse(stat), Some(("tokio) rt-(1", 814)));
        assert_eq!(parse("garbage"), None);
    }

    #[test]
    fn work_shows_under_the_name_of_the_thread_that_did_it_even_after_its_end() {
        let busy = std::thread::Builder::new().name("busy-7".into()).spawn(|| while seconds_by_thread().get("busy").is_none_or(|seconds| *seconds < 0.02) {});
        busy.expect("a thread").join().expect("it ends once it has seen its own time");
        let alone = || {
            !fs::read_dir("/proc/self/task")
                .into_iter()
                .flatten()
                .flatten()
                .any(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "busy-7\n"))
        };
        while !alone() {
            std::thread::yield_now();
        }
        assert!(seconds_by_thread()["busy"] >= 0.02);
    }
}
