//! Calls on one core: the real `voiced serve` pinned to core 0, the lab's providers and phones on the others, more calls
//! from step to step until a tick is missed or responses come late.
//!
//! `cargo bench -p voiced-benches --bench calls -- [--rows NAME,…] [--from N] [--seconds N] [--hold N] [--speech FOLDER] [--profile]`
//!
//! Writes `target/bench/calls.json` and `calls.svg`. `--profile` runs one step of each row and prints where its CPU time
//! went. A step holds when no call failed, was refused or was ended by the daemon, no work was left out, no tick was over more
//! than 20 ms after it was due or was skipped, no phone heard a gap, what callers said was answered, and the p95 of responses
//! is within [`RESPONSE_SLACK_MS`] of the first step's.

mod plot;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use run::{Load, Step};
use serde_json::{Value, json};

/// A step fails when responses come this much later than at the first step, at the 95th percentile.
const RESPONSE_SLACK_MS: u64 = 150;
/// From step to step.
const GROWTH: f64 = 1.4;
/// No row is raised further.
const CALLS_MAX: usize = 1_500;

/// A row of the table: what runs for each call.
struct Row {
    name: &'static str,
    models: &'static str,
    settings: &'static [(&'static str, &'static str)],
}

const ROWS: [Row; 3] = [
    Row {
        name: "bridge",
        models: "none: energy gate; STT, LLM and TTS streams open",
        settings: &[
            ("VOICED_AGENT__VAD_ENABLED", "false"),
            ("VOICED_AGENT__TURN_DETECTION_ENABLED", "false"),
            ("VOICED_AGENT__NOISE_CANCELLATION_ENABLED", "false"),
        ],
    },
    Row {
        name: "turns",
        models: "voice activity, end of turn; STT, LLM and TTS streams open",
        settings: &[("VOICED_AGENT__NOISE_CANCELLATION_ENABLED", "false")],
    },
    Row { name: "all", models: "the same and noise cancellation", settings: &[("VOICED_AGENT__NOISE_CANCELLATION_ENABLED", "true")] },
];

/// The number is near enough when so small a share of it more were too many.
const NEAR: usize = 16;

struct Options {
    rows: Vec<String>,
    from: usize,
    seconds: u64,
    hold: u64,
    speech: Option<PathBuf>,
    profile: bool,
}

fn main() -> ExitCode {
    match options().and_then(|options| measure(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, String> {
    let mut options = Options { rows: Vec::new(), from: 40, seconds: 30, hold: 0, speech: None, profile: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} wants a value"));
        let number = |value: String| value.parse::<u64>().map_err(|_| format!("{value:?} is no number"));
        match argument.as_str() {
            "--bench" => {} // cargo's own
            "--rows" => options.rows = value()?.split(',').map(str::to_owned).collect(),
            "--from" => options.from = number(value()?)? as usize,
            "--seconds" => options.seconds = number(value()?)?.max(20),
            "--hold" => options.hold = number(value()?)?,
            "--speech" => options.speech = Some(value()?.into()),
            "--profile" => options.profile = true,
            other => return Err(format!("{other} is unknown; known are --rows, --from, --seconds, --hold, --speech, --profile")),
        }
    }
    match options.rows.iter().find(|name| ROWS.iter().all(|row| row.name != **name)) {
        Some(unknown) => Err(format!("there is no row {unknown:?}: rows are bridge, turns, all")),
        None => Ok(options),
    }
}

fn measure(options: &Options) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let voiced = root.join("target/release/voiced");
    if !voiced.exists() {
        return Err("target/release/voiced is missing: `make bench-calls` builds it".into());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return Err("this takes two cores: one for the daemon, one for those who call it".into());
    }
    let machine = run::machine();
    eprintln!("{machine}; the daemon on core 0, providers and phones on the other {}", cores - 1);
    let load = Load { voiced, cores, speech: options.speech.clone() };
    let rows = ROWS.iter().filter(|row| options.rows.is_empty() || options.rows.iter().any(|name| name == row.name));
    let mut table = Vec::new();
    let mut curves = Vec::new();
    for row in rows {
        let (held, limit, steps) = raise(&load, row, options)?;
        curves.push((row.name, steps));
        let Some(best) = held else {
            println!("{:<8} not even {} calls: {limit}", row.name, options.from);
            continue;
        };
        println!(
            "{:<8} {:>4} calls  {:.2} % of the core and {:>4} KB each  response {}/{} ms, {:.1}/{:.1} of it ours  clear {}/{} ms, {:.1}/{:.1} ours  {}limit: {limit}",
            row.name,
            best.calls,
            best.cpu_percent_per_call,
            best.rss_kb_per_call,
            best.response.0,
            best.response.1,
            best.own.0,
            best.own.1,
            best.clear.0,
            best.clear.1,
            best.clear_sent.0,
            best.clear_sent.1,
            best.questions_answered_percent.map_or(String::new(), |percent| format!("{percent:.0} % of questions answered  "))
        );
        table.push(json!({
            "row": row.name, "models": row.models, "calls_per_core": best.calls, "cpu_percent_per_call": best.cpu_percent_per_call,
            "rss_kb_per_call": best.rss_kb_per_call, "missed_ticks": best.missed_ticks, "seconds": best.seconds,
            "response_ms": { "p50": best.response.0, "p95": best.response.1 }, "clear_ms": { "p50": best.clear.0, "p99": best.clear.1 },
            "own_response_ms": { "p50": best.own.0, "p95": best.own.1 }, "own_clear_ms": { "p50": best.clear_sent.0, "p99": best.clear_sent.1 },
            "questions_answered_percent": best.questions_answered_percent, "limit": limit,
        }));
    }
    if options.profile {
        return Ok(());
    }
    let folder = root.join("target/bench");
    let written = std::fs::create_dir_all(&folder)
        .and_then(|()| {
            std::fs::write(folder.join("calls.json"), serde_json::to_string_pretty(&json!({ "rows": table, "machine": machine })).unwrap_or_default())
        })
        .and_then(|()| std::fs::write(folder.join("calls.svg"), plot::svg(&curves, &machine)));
    written.map_err(|error| format!("{}: {error}", folder.display()))?;
    println!("target/bench/calls.json and calls.svg written");
    Ok(())
}

/// Raises the calls of a row: the last step that held, what ended it, and all steps.
fn raise(load: &Load, row: &Row, options: &Options) -> Result<(Option<Step>, String, Vec<Step>), String> {
    let (mut calls, mut held, mut steps) = (options.from, None::<Step>, Vec::<Step>::new());
    let at_rest_kb = load.at_rest_kb(row.settings)?;
    let mut failed = None;
    let limit = loop {
        eprintln!("{}: {calls} calls, {} s", row.name, options.seconds);
        let step = load.step(row.settings, calls, options.seconds, at_rest_kb)?;
        if options.profile {
            println!("{}: {} calls, {:.2} % of the core each\n{}", row.name, calls, step.cpu_percent_per_call, step.shares);
            return Ok((None, "profile".into(), Vec::new()));
        }
        let allowed = steps.first().map_or(u64::MAX, |first| first.response.1 + RESPONSE_SLACK_MS);
        let fault = step.fault(allowed);
        eprintln!("    {}", step.line());
        steps.push(step.clone());
        match fault {
            Some(fault) => failed = Some((calls, fault)),
            None => held = Some(step),
        }
        let holds = held.as_ref().map_or(0, |step| step.calls);
        calls = match failed.take() {
            Some((calls, fault)) if holds == 0 || calls - holds <= holds / NEAR => break fault,
            Some((calls, fault)) => {
                failed = Some((calls, fault));
                usize::midpoint(holds, calls)
            }
            None if calls == CALLS_MAX => break format!("{CALLS_MAX} calls were not too many"),
            None => CALLS_MAX.min((calls as f64 * GROWTH) as usize),
        };
    };
    steps.sort_by_key(|step| step.calls);
    let Some(best) = &held else { return Ok((None, limit, steps)) };
    if options.hold > 0 {
        eprintln!("{}: {} calls, held for {} s", row.name, best.calls, options.hold);
        let long = load.step(row.settings, best.calls, options.hold, at_rest_kb)?;
        eprintln!("    {}", long.line());
        if let Some(fault) = long.fault(u64::MAX) {
            return Ok((Some(long), format!("{limit}; held for {} s: {fault}", options.hold), steps));
        }
        held = Some(long);
    }
    Ok((held, limit, steps))
}

/// A field of a JSON object as a number.
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}
