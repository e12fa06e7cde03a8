//! What a process uses, seen from outside, and the machine that it runs on.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The kernel's clock ticks of CPU time in a second, on every Linux there is.
const TICKS_PER_S: f64 = 100.0;

/// CPU time so far, in s.
pub fn cpu_s(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // the name in brackets may hold anything
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    let used = ticks(11).zip(ticks(12)).context("no CPU times in /proc")?;
    Ok((used.0 + used.1) / TICKS_PER_S)
}

/// Memory in use now, in KB.
pub fn rss_kb(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    line.context("no VmRSS in /proc")
}

/// The machine, and how busy others kept it before.
pub fn machine() -> Value {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).map_or("unknown", |line| line.trim_start_matches(['\t', ' ', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load_before = load.split_whitespace().next().and_then(|load| load.parse::<f64>().ok());
    json!({ "cpu": model, "cores": cores, "load_before": load_before })
}

/// cargo's target folder: this binary is in `release/deps` there.
pub fn target_folder() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    own.ancestors().nth(3).map(PathBuf::from).context("no target folder above this binary")
}

/// The release binary of the daemon.
pub fn voiced() -> Result<PathBuf> {
    let path = std::env::var_os("VOICED_BIN").map_or_else(|| Ok::<_, anyhow::Error>(target_folder()?.join("release/voiced")), |path| Ok(path.into()))?;
    anyhow::ensure!(path.is_file(), "{} is missing: run `make build`, or set VOICED_BIN", path.display());
    Ok(path)
}

/// The `percent`-th percentile, by nearest rank.
pub fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) * percent / 100).map(|value| rounded(*value, 1))
}

/// To so many digits behind the point.
pub fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}
