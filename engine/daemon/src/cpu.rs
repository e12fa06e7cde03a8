//! Where this process's CPU time and memory go, as the kernel tells: what an operator would look for with `top -H`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

/// The kernel's unit of CPU time in `/proc`, per second: the same on every Linux.
const TICKS_PER_S: f64 = 100.0;
/// Name of the threads that judge ends of turns, which run only while nobody else wants the core.
const JUDGE: &str = "judge";
/// Size of a page in `/proc/self/statm`, in bytes.
const PAGE_BYTES: u64 = 4_096;

/// CPU seconds of the threads that live now, by what they are for: their name without its number.
pub fn seconds_by_thread() -> BTreeMap<String, f64> {
    let mut seconds = BTreeMap::new();
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    for stat in tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok()) {
        if let Some((name, ticks)) = parse(&stat) {
            *seconds.entry(name.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '-').to_owned()).or_default() +=
                ticks as f64 / TICKS_PER_S;
        }
    }
    seconds
}

/// CPU seconds of the threads that live now, but for [`JUDGE`]s.
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
    let _ = writeln!(out, "# HELP voiced_cpu_seconds_total CPU time of the threads alive, by what they are for.\n# TYPE voiced_cpu_seconds_total counter");
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
    fn work_shows_under_the_name_of_the_thread_that_does_it() {
        let busy = std::thread::Builder::new().name("busy-7".into()).spawn(|| while seconds_by_thread().get("busy").is_none_or(|seconds| *seconds < 0.02) {});
        busy.expect("a thread").join().expect("it ends once it has seen its own time");
    }
}
