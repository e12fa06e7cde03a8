//! `voiced lab soak`: a real daemon under calls of every kind for minutes, while providers, callers and the receiver of
//! events go wrong at random (from a seed). First the same process for two thirds of the time, so that what leaks shows
//! in its memory and files; then it is killed again and again. At last everything is well again, and the calls that phones
//! placed and what the daemon stored are held against what the receiver took.

mod account;
mod daemon;
mod faults;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::task::JoinSet;
use voiced_lab::ema::EmaReceiver;
use voiced_lab::phone::{CallReport, CallScript, Line, Outcome, PhoneEvent, Step};
use voiced_lab::providers::{FakeProviders, Latency, Script};

use account::{Account, Sample, growth, slope_per_minute};
use daemon::Daemon;
use verdict::Findings;

/// Time at the start that says nothing about leaks: pools and caches fill.
const WARM_UP: Duration = Duration::from_secs(30);
/// Longest call, s.
const CALL_S: u64 = 40;
/// For the last calls to end, amid faults.
const CALLS_END: Duration = Duration::from_mins(1);
/// Between two kills.
const KILL_EVERY: Duration = Duration::from_secs(8);
/// What is owed at the end must be delivered within this.
const SETTLE: Duration = Duration::from_mins(3);
/// A call that began so shortly before a kill may have left no trace: its begin was not on disk yet.
const STORED_WITHIN: Duration = Duration::from_secs(2);

#[derive(Args)]
pub struct SoakArgs {
    /// How long.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Phones that call all the time.
    #[arg(long, default_value_t = 4)]
    phones: usize,
    /// Repeats a run's faults.
    #[arg(long)]
    seed: Option<u64>,
    /// Also write the report to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What callers are to do, and what they met.
#[derive(Default)]
struct Callers {
    /// No new calls for now.
    pause: AtomicBool,
    whole: AtomicU64,
    cut_off: AtomicU64,
    refused: AtomicU64,
    answered: AtomicU64,
    /// Refused while nobody killed the daemon.
    refused_steady: AtomicU64,
    /// The daemon is being killed, again and again.
    kills: AtomicBool,
    /// Each call whose stream opened, and when.
    placed: Mutex<Vec<(String, Instant)>>,
}

impl Callers {
    fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
        if !self.kills.load(Relaxed) {
            self.refused_steady.fetch_add(1, Relaxed);
        }
    }

    /// The calls that must have been reported, each kill being at one of these moments.
    fn owed(&self, kills: &[Instant]) -> Vec<String> {
        let placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        let outlived = |at: &Instant| !kills.iter().any(|kill| *kill >= *at && kill.duration_since(*at) < STORED_WITHIN);
        placed.iter().filter(|(_, at)| outlived(at)).map(|(call_sid, _)| call_sid.clone()).collect()
    }
}

/// Runs a soak and prints its report; fails where something was lost or leaks, or where callers were not answered.
pub async fn run(args: &SoakArgs, lines: Vec<Line>) -> Result<ExitCode> {
    let seed = args.seed.unwrap_or_else(|| rand::random::<u32>().into());
    eprintln!("soak: {} min, {} phones, seed {seed}", args.minutes, args.phones);
    let fakes = Arc::new(FakeProviders::start(Latency::default(), Script::default()).await?);
    let ema = Arc::new(EmaReceiver::start(None).await?);
    let state = std::env::temp_dir().join(format!("voiced-soak-{}", std::process::id()));
    let daemon = Arc::new(Daemon::new(&state, &fakes, &ema)?);
    daemon.start().await?;
    let at_rest = daemon.sample().context("the daemon is gone")?;

    let (stop, callers) = (Arc::new(AtomicBool::new(false)), Arc::new(Callers::default()));
    let mut phones = JoinSet::new();
    for number in 0..args.phones {
        let rng = StdRng::seed_from_u64(seed ^ (number as u64 + 1) << 32);
        phones.spawn(caller(Arc::clone(&daemon), lines.clone(), rng, Arc::clone(&callers), Arc::clone(&stop)));
    }
    let faults = tokio::spawn(faults::run(Arc::clone(&fakes), Arc::clone(&ema), Arc::clone(&daemon), StdRng::seed_from_u64(seed), Arc::clone(&stop)));
    let all = Duration::from_mins(args.minutes);
    let steady = samples(&daemon, all * 2 / 3).await;
    // by the second half whatever fills is full
    let later = &steady[steady.len() / 2..];
    // the same process without calls again: what it holds now, it holds for good
    callers.pause.store(true, Relaxed);
    daemon.settle(CALLS_END).await;
    let rest = daemon.sample().context("the daemon is gone")?;
    callers.kills.store(true, Relaxed);
    callers.pause.store(false, Relaxed);
    let kills = kills(&daemon, all / 3, &mut StdRng::seed_from_u64(!seed)).await?;
    stop.store(true, Relaxed);
    while phones.join_next().await.is_some() {}
    let faults = faults.await?;
    faults::heal(&fakes, &ema);

    daemon.settle(SETTLE).await;
    let owed = callers.owed(&kills);
    let count = |count: &AtomicU64| count.load(Relaxed);
    let findings = Findings {
        taken: count(&callers.whole) + count(&callers.cut_off),
        refused: count(&callers.refused_steady),
        lines_answered: count(&callers.answered),
        memory_growth_kb: growth(later, |sample| sample.memory_kb),
        more_files: rest.files as i64 - at_rest.files as i64,
        account: Account::of(&daemon.store(), &ema, &owed)?,
    };
    let faulty = findings.faults();
    let account = &findings.account;
    let report = json!({
        "seed": seed, "minutes": args.minutes,
        "calls": { "whole": count(&callers.whole), "cut_off": count(&callers.cut_off), "refused": count(&callers.refused), "refused_without_kills": findings.refused, "lines_answered": findings.lines_answered },
        "faults": faults, "kills": kills.len(),
        "events": { "stored": account.stored, "lost": account.lost, "undelivered": account.undelivered, "out_of_order": account.out_of_order, "calls_without_end": account.without_end, "calls_owed": owed.len(), "calls_unreported": account.unreported, "deliveries": account.deliveries },
        "memory": { "at_rest_kb": at_rest.memory_kb, "at_rest_after_kb": rest.memory_kb, "highest_kb": steady.iter().map(|sample| sample.memory_kb).max(), "slope_kb_per_minute": slope_per_minute(later, |sample| sample.memory_kb), "growth_kb": findings.memory_growth_kb.round() },
        "files": { "at_rest": at_rest.files, "at_rest_after": rest.files, "slope_per_minute": slope_per_minute(later, |sample| sample.files) },
        "worst_tick_us_at_most": daemon.worst_tick_us().await,
        "not_good": faulty,
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    if let Some(file) = &args.json {
        std::fs::write(file, report.to_string()).with_context(|| file.display().to_string())?;
    }
    daemon.kill();
    if faulty.is_empty() {
        let _ = std::fs::remove_dir_all(&state);
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("soak: NOT good: {}; the daemon's state and logs are in {}", faulty.join(", "), state.display());
    Ok(ExitCode::FAILURE)
}

/// Calls again and again, each time otherwise.
async fn caller(daemon: Arc<Daemon>, lines: Vec<Line>, mut rng: StdRng, callers: Arc<Callers>, stop: Arc<AtomicBool>) {
    while !stop.load(Relaxed) {
        if callers.pause.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        }
        let script = script(&lines, &mut rng);
        let phone = daemon.phone();
        let opened = OnceLock::new();
        let observer = |_: u64, event: PhoneEvent<'_>| {
            if event == PhoneEvent::Connected {
                let _ = opened.set(Instant::now()); // once a call
            }
        };
        match phone.call(script, &observer).await {
            Ok(CallReport { outcome: Outcome::Apology, .. }) | Err(_) => callers.refused(),
            Ok(report) => {
                let count = if report.outcome == Outcome::AgentHungUp { &callers.cut_off } else { &callers.whole };
                count.fetch_add(1, Relaxed);
                callers.placed.lock().unwrap_or_else(PoisonError::into_inner).extend(opened.into_inner().map(|at| (report.call_sid, at)));
                callers.answered.fetch_add(report.utterances.iter().filter(|said| said.response_ms.is_some()).count() as u64, Relaxed);
            }
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..500))).await;
    }
}

/// A talk, a caller who hangs up at once or amid a word, one whose line stands still, one who presses keys.
fn script(lines: &[Line], rng: &mut StdRng) -> CallScript {
    let limit_ms = CALL_S * 1_000;
    let listen = Step::Listen { quiet_ms: 600, at_most_ms: 8_000 };
    let (label, pcm8k) = lines[rng.random_range(0..lines.len())].clone();
    let steps = match rng.random_range(0..8) {
        0 => vec![],
        1 => vec![listen, Step::Say { pcm8k: pcm8k[..pcm8k.len() / 3].to_vec(), label }],
        2 => vec![listen.clone(), Step::Stall { ms: rng.random_range(500..5_000) }, Step::Say { pcm8k, label }, listen],
        3 => vec![Step::Dtmf('4'), Step::Dtmf('#'), listen.clone(), Step::Say { pcm8k, label }, listen],
        _ => return CallScript::talk(lines, rng.random_range(0..lines.len()), rng.random_range(5..CALL_S)),
    };
    CallScript { steps, limit_ms }
}

/// A second apart, once it is warm.
async fn samples(daemon: &Daemon, time: Duration) -> Vec<Sample> {
    let (begun, mut samples) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if begun.elapsed() > WARM_UP.min(time / 3) {
            samples.extend(daemon.sample());
        }
    }
    samples
}

/// Kills and starts the daemon again and again; returns when.
async fn kills(daemon: &Daemon, time: Duration, rng: &mut StdRng) -> Result<Vec<Instant>> {
    let (begun, mut kills) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        tokio::time::sleep(KILL_EVERY.mul_f64(rng.random_range(0.2..1.8))).await;
        daemon.kill();
        kills.push(Instant::now());
        daemon.start().await?;
    }
    Ok(kills)
}
