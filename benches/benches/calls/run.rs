//! One step: a fresh daemon, so many calls at once, and what came of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::number;

/// A start may take so long, and until all calls are placed.
const PATIENCE: Duration = Duration::from_mins(1);
/// CPU and memory are read over this much of the time in which all calls talk.
const READ: f64 = 0.8;
/// Frames that a phone sends a second; more than one in a hundred late is worth a word.
const FRAMES_PER_S: u64 = 50;
/// The kernel's unit of CPU time in `/proc`, per second.
const TICKS_PER_S: f64 = 100.0;

/// How load is put on a daemon.
pub struct Load {
    pub voiced: PathBuf,
    pub cores: usize,
    pub speech: Option<PathBuf>,
}

/// What a step came to.
#[derive(Clone, Debug)]
pub struct Step {
    pub calls: usize,
    pub seconds: u64,
    pub cpu_percent_per_call: f64,
    pub rss_kb_per_call: u64,
    pub missed_ticks: u64,
    /// p50 and p95, ms.
    pub response: (u64, u64),
    /// From the caller's first sound to the clear, p50 and p99, ms.
    pub clear: (u64, u64),
    /// What the daemon itself adds to a response, p50 and p95, ms.
    pub own: (f64, f64),
    /// From the decision to the clear in Twilio's socket, p50 and p99, ms.
    pub clear_sent: (f64, f64),
    /// Of the end-of-turn questions, how many the model answered, in percent; the others went by pause and transcript.
    /// None where nothing was asked.
    pub questions_answered_percent: Option<f64>,
    /// CPU by thread and by part of the tick, as a table.
    pub shares: String,
    /// Calls that failed, were refused or were ended by the daemon.
    failed: u64,
    /// Times that work was left out for want of time.
    left_out: u64,
    answered: u64,
    utterances: u64,
    gaps: u64,
    /// Of the phones: all, about, and those sent late.
    frames: u64,
    late_frames: u64,
    /// Of the daemon's core, and of all that the phones used.
    busy_percent: f64,
    phones_percent: f64,
}

impl Step {
    /// Why this is too many calls, if it is.
    pub fn fault(&self, response_p95_max: u64) -> Option<String> {
        let fault = self.own_fault(response_p95_max)?;
        // phones without time of their own make it harder for the daemon, never easier: what it stands all the same, it stands
        if self.late_frames * 100 > self.frames {
            return Some(format!("{fault}; the phones sent {} frames late ({:.0} % of their core)", self.late_frames, self.phones_percent));
        }
        Some(fault)
    }

    fn own_fault(&self, response_p95_max: u64) -> Option<String> {
        let core = format!("the daemon's core is {:.0} % busy", self.busy_percent);
        if self.failed > 0 {
            return Some(format!("{} calls failed; {core}", self.failed));
        }
        if self.left_out > 0 {
            return Some(format!("optional work was left out at {} calls; {core}", self.calls));
        }
        // at a step's end each call may be waiting for its answer
        if self.answered + (self.calls as u64) < self.utterances {
            return Some(format!("{} of {} things said were answered at {} calls; {core}", self.answered, self.utterances, self.calls));
        }
        if self.missed_ticks > 0 {
            return Some(format!("{} ticks missed at {} calls; {core}", self.missed_ticks, self.calls));
        }
        if self.gaps > 0 {
            return Some(format!("{} gaps heard at {} calls; {core}", self.gaps, self.calls));
        }
        (self.response.1 > response_p95_max).then(|| format!("response p95 {} ms at {} calls; {core}", self.response.1, self.calls))
    }

    /// For a person who waits.
    pub fn line(&self) -> String {
        format!(
            "{:.2} % each, core {:.0} %, phones {:.0} %, {} KB each, response {}/{} ms (own {:.1}/{:.1}), clear {}/{} ms (own {:.1}/{:.1}), {}{} ticks missed, {} gaps",
            self.cpu_percent_per_call,
            self.busy_percent,
            self.phones_percent,
            self.rss_kb_per_call,
            self.response.0,
            self.response.1,
            self.own.0,
            self.own.1,
            self.clear.0,
            self.clear.1,
            self.clear_sent.0,
            self.clear_sent.1,
            self.questions_answered_percent.map_or(String::new(), |percent| format!("{percent:.0} % of questions answered, ")),
            self.missed_ticks,
            self.gaps
        )
    }
}

/// A process that ends with this.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Load {
    /// Memory of a daemon without calls that has a place for one, in KB.
    pub fn at_rest_kb(&self, settings: &[(&str, &str)]) -> Result<u64, String> {
        let state = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (_providers, environment) = self.providers("0")?;
        let (daemon, _, _) = self.serve(settings, 1, state.path(), environment)?;
        Ok(resident_kb(daemon.0.id()))
    }

    fn serve(&self, settings: &[(&str, &str)], places: usize, state: &Path, environment: BTreeMap<String, String>) -> Result<(Process, String, u16), String> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(|error| error.to_string())?.port();
        let url = format!("http://127.0.0.1:{port}");
        let mut serve = self.pinned("0");
        serve.arg("serve").envs(environment).env("PORT", port.to_string()).env("WEBHOOK_URL", &url).env("TWILIO_AUTH_TOKEN", "bench");
        serve.env("STATE_DIRECTORY", state).env("VOICED_ENGINE__CALLS_PER_THREAD", places.to_string()).env("VOICED_ENGINE__THREADS", "1");
        // as an operator may have it: the unit allows it; where it is not permitted the daemon says so and runs without
        serve.env("VOICED_ENGINE__REALTIME_PRIORITY", "20");
        serve.envs(settings.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log(state, "serve.log")?);
        let daemon = Process(serve.spawn().map_err(|error| error.to_string())?);
        until(|| get(port, "/health").is_some()).ok_or_else(|| format!("voiced serve does not answer:\n{}", tail(state, "serve.log")))?;
        Ok((daemon, url, port))
    }

    /// Runs a step; memory is what is used beyond `at_rest_kb`.
    pub fn step(&self, settings: &[(&str, &str)], calls: usize, seconds: u64, at_rest_kb: u64) -> Result<Step, String> {
        let state = tempfile::tempdir().map_err(|error| error.to_string())?;
        let others = if self.cores == 2 { "1".to_owned() } else { format!("1-{}", self.cores - 1) };
        let (_providers, environment) = self.providers(&others)?;
        let (daemon, url, port) = self.serve(settings, calls, state.path(), environment)?;
        let pid = daemon.0.id();
        let result = state.path().join("phones.json");
        let mut phones = self.pinned(&others);
        phones.args(["lab", "phone", "--url", &url, "--public-url", &url, "--auth-token", "bench"]);
        phones.args(["--calls", &calls.to_string(), "--seconds", &seconds.to_string()]).arg("--json").arg(&result);
        if let Some(speech) = &self.speech {
            phones.arg("--speech").arg(speech);
        }
        phones.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log(state.path(), "phones.log")?);
        let mut phones = Process(phones.spawn().map_err(|error| error.to_string())?);
        let count = |name| get(port, "/metrics").map_or(0.0, |metrics| value(&metrics, name));
        let (taken, refused) = (|| count("voiced_calls_taken_total"), || count("voiced_calls_refused_total"));
        // the first call may wait for the phones' own voice to be made
        until(|| taken() > 0.0).ok_or_else(|| format!("nobody calls:\n{}", tail(state.path(), "phones.log")))?;
        let first = Instant::now();
        let _ = until(|| taken() + refused() >= calls as f64);
        let placing = first.elapsed().as_secs();
        let window = Duration::from_secs_f64(seconds as f64 * READ);
        let (before, ticks, phone_ticks, since) = (get(port, "/metrics").unwrap_or_default(), cpu_ticks(pid), cpu_ticks(phones.0.id()), Instant::now());
        std::thread::sleep(window);
        let (spent, phones_spent, took) = (cpu_ticks(pid) - ticks, cpu_ticks(phones.0.id()) - phone_ticks, since.elapsed().as_secs_f64());
        let (after, full_kb) = (get(port, "/metrics").unwrap_or_default(), resident_kb(pid));
        let _ = phones.0.wait();
        let last = get(port, "/metrics").unwrap_or_default();
        let figures = std::fs::read_to_string(&result).map_err(|_| format!("the phones measured nothing:\n{}", tail(state.path(), "phones.log")))?;
        let figures: Value = serde_json::from_str(&figures).map_err(|error| error.to_string())?;
        let percent = |ticks: f64| ticks / TICKS_PER_S / took * 100.0;
        let (judged, unjudged) = (value(&last, "voiced_turn_asks_answered_total{"), value(&last, "voiced_turn_asks_dropped_total{"));
        Ok(Step {
            calls,
            seconds,
            frames: calls as u64 * (seconds + placing) * FRAMES_PER_S,
            cpu_percent_per_call: percent(spent) / calls as f64,
            rss_kb_per_call: full_kb.saturating_sub(at_rest_kb) / calls as u64,
            missed_ticks: missed(&last),
            response: (number(&figures["response_ms"]["p50"]), number(&figures["response_ms"]["p95"])),
            clear: (number(&figures["barge_in_to_clear_ms"]["p50"]), number(&figures["barge_in_to_clear_ms"]["p99"])),
            own: (quantile(&last, "reply_sent", 0.5), quantile(&last, "reply_sent", 0.95)),
            clear_sent: (quantile(&last, "clear_sent", 0.5), quantile(&last, "clear_sent", 0.99)),
            questions_answered_percent: (judged + unjudged > 0.0).then(|| judged / (judged + unjudged) * 100.0),
            shares: shares(&before, &after, took),
            failed: number(&figures["failed"]) + number(&figures["ended_by_the_agent"]) + value(&last, "voiced_calls_refused_total") as u64,
            left_out: value(&last, "voiced_shed_total") as u64,
            answered: number(&figures["answered"]),
            utterances: number(&figures["utterances"]),
            gaps: number(&figures["gaps"]),
            late_frames: number(&figures["late_frames_of_the_phone"]),
            busy_percent: percent(spent),
            phones_percent: percent(phones_spent),
        })
    }

    fn pinned(&self, cores: &str) -> Command {
        let mut command = Command::new("taskset");
        command.args(["-c", cores]).arg(&self.voiced);
        command
    }

    fn providers(&self, cores: &str) -> Result<(Process, BTreeMap<String, String>), String> {
        let mut command = self.pinned(cores);
        command.args(["lab", "providers"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Process(command.spawn().map_err(|error| format!("taskset: {error}"))?);
        let mut stdout = process.0.stdout.take().ok_or("no output")?;
        let (mut text, mut byte) = (String::new(), [0]);
        // five lines of NAME=value, and then it waits
        while text.lines().count() < 5 || !text.ends_with('\n') {
            if !matches!(stdout.read(&mut byte), Ok(1)) {
                return Err("the lab's providers do not start".into());
            }
            text.push(char::from(byte[0]));
        }
        let environment = text.split_whitespace().filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok((process, environment.collect()))
    }
}

/// Ticks whose frames left later than their packet's slot, whether they took long or began late, and skipped ones.
fn missed(metrics: &str) -> u64 {
    (value(metrics, "voiced_ticks_late_total{") + value(metrics, "voiced_ticks_skipped_total{")) as u64
}

/// So much of a histogram of µs lies below this, in ms; as Prometheus tells it, evenly spread within a bucket.
fn quantile(metrics: &str, name: &str, share: f64) -> f64 {
    let bucket = |line: &str| {
        let (bound, count) = line.strip_prefix(&format!("voiced_{name}_us_bucket{{"))?.split_once("le=\"")?.1.split_once("\"} ")?;
        Some((bound.parse::<f64>().ok()?, count.parse::<f64>().ok()?))
    };
    let wanted = value(metrics, &format!("voiced_{name}_us_count")) * share;
    let (mut below, mut from) = (0.0, 0.0);
    for (bound, count) in metrics.lines().filter_map(bucket) {
        if count >= wanted && count > below {
            return (from + (bound - from) * (wanted - below) / (count - below)) / 1_000.0;
        }
        (below, from) = (count, bound);
    }
    from / 1_000.0
}

/// What threads and parts of the tick cost from one scrape to another.
fn shares(before: &str, after: &str, seconds: f64) -> String {
    let mut out = String::new();
    for (family, label, what) in [("voiced_cpu_seconds_total{", "threads=\"", "threads"), ("voiced_tick_stage_seconds_total{", "stage=\"", "in the tick")] {
        let spent = |line: &str| {
            let name = line.split_once(label)?.1.split_once('"')?.0.to_owned();
            let (key, now) = line.rsplit_once(' ')?;
            Some((name, now.parse::<f64>().ok()? - value(before, key)))
        };
        let mut rows: Vec<_> = after.lines().filter(|line| line.starts_with(family)).filter_map(spent).collect();
        rows.sort_by(|a, b| b.1.total_cmp(&a.1));
        let all: f64 = rows.iter().map(|row| row.1).sum();
        let _ = writeln!(out, "  {what:<16} {:>6.2} % of a core", all / seconds * 100.0);
        for (name, spent) in rows {
            let _ = writeln!(out, "    {name:<14} {:>6.2} %   {:>3.0} % of it", spent / seconds * 100.0, spent / all.max(1e-9) * 100.0);
        }
    }
    out
}

/// The value of the first line that begins so; 0 where there is none.
fn value(metrics: &str, key: &str) -> f64 {
    metrics.lines().find(|line| line.starts_with(key)).and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or_default()
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

fn until(mut done: impl FnMut() -> bool) -> Option<()> {
    let since = Instant::now();
    while !done() {
        if since.elapsed() > PATIENCE {
            return None;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Some(())
}

fn cpu_ticks(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, tail)| tail.split_whitespace().skip(11).take(2)).into_iter().flatten();
    fields.filter_map(|field| field.parse::<f64>().ok()).sum()
}

fn resident_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn log(folder: &Path, name: &str) -> Result<Stdio, String> {
    std::fs::File::create(folder.join(name)).map(Stdio::from).map_err(|error| error.to_string())
}

fn tail(folder: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

/// Processor, and how busy the machine was before anything began.
pub fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("unknown processor", |(_, model)| model);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?");
    format!("{model}, load average {load} before the start")
}
