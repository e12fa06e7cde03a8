//! The whole chain: `voiced serve` with real models and fake providers, and callers in so many rooms at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use voiced_lab::phone::{CallReport, CallScript};
use voiced_lab::room::RoomCaller;

use crate::Stage;
use crate::host::Host;
use crate::process::{cpu_s, percentile, rounded, rss_kb};

/// Length of each call, in s.
const CALL_S: u64 = 26;
/// Calls start this far apart, so that they are not in step.
const STAGGER: Duration = Duration::from_millis(97);
/// After the first call begins, until all are up and greeted.
const SETTLE: Duration = Duration::from_secs(7);
/// The daemon without a call.
const IDLE: Duration = Duration::from_secs(3);
/// All calls are up for so long.
const MEASURED: Duration = Duration::from_secs(16);

pub async fn run(stage: &Stage) -> Result<Value> {
    let lines = Arc::new(stage.voice.lines());
    let mut rows = Vec::new();
    let mut fewer: Option<(usize, f64)> = None;
    for &rooms in &stage.rooms {
        eprintln!("  {rooms} rooms, {CALL_S} s");
        // a fresh daemon for each row: memory that one has had it keeps
        let host = Arc::new(Host::start(stage, &[]).await?);
        let callers = Arc::new(RoomCaller::start(1)?);
        let before_kb = rss_kb(host.id())?;
        let idle = used_by(host.id(), IDLE).await?;
        let mut calls = JoinSet::new();
        for number in 0..rooms {
            let (host, callers) = (Arc::clone(&host), Arc::clone(&callers));
            let script = CallScript::talk(&lines, number * 3, CALL_S);
            calls.spawn(async move {
                tokio::time::sleep(STAGGER * number as u32).await;
                let invitation = host.session(&format!("caller-{number}")).await?;
                Ok::<CallReport, anyhow::Error>(callers.call(invitation, script).await?)
            });
        }
        tokio::time::sleep(SETTLE).await;
        let used = used_by(host.id(), MEASURED).await?;
        let memory_kb = rss_kb(host.id())? - before_kb;
        let (reports, failed) = gather(calls).await?;
        let mut row = figures(&reports);
        row["rooms"] = rooms.into();
        row["failed"] = failed.into();
        row["cpu_percent_per_call"] = rounded(used * 100.0 / rooms as f64, 2).into();
        row["cpu_percent_idle"] = rounded(idle * 100.0, 2).into();
        row["rss_kb_per_call"] = rounded(memory_kb / rooms as f64, 0).into();
        // what comes once with the first, code and pools, is no call's
        let further = fewer.filter(|(fewer, _)| rooms > *fewer);
        row["rss_kb_per_further_call"] = further.map(|(fewer, kb)| rounded((memory_kb - kb) / (rooms - fewer) as f64, 0)).into();
        fewer = Some((rooms, memory_kb));
        rows.push(row);
    }
    Ok(rows.into())
}

/// Cores that a process uses from now on for so long.
async fn used_by(pid: u32, lasting: Duration) -> Result<f64> {
    let (before, since) = (cpu_s(pid)?, Instant::now());
    tokio::time::sleep(lasting).await;
    Ok((cpu_s(pid)? - before) / since.elapsed().as_secs_f64())
}

async fn gather(mut calls: JoinSet<Result<CallReport>>) -> Result<(Vec<CallReport>, usize)> {
    let (mut reports, mut failed) = (Vec::new(), 0);
    while let Some(ended) = calls.join_next().await {
        match ended? {
            Ok(report) => reports.push(report),
            Err(error) => {
                eprintln!("  a call failed: {error:#}");
                failed += 1;
            }
        }
    }
    Ok((reports, failed))
}

fn figures(reports: &[CallReport]) -> Value {
    let utterances: Vec<_> = reports.iter().flat_map(|report| &report.utterances).collect();
    let barge_ins: Vec<_> = reports.iter().flat_map(|report| &report.barge_ins).collect();
    let responses: Vec<f64> = utterances.iter().filter_map(|said| said.response_ms).map(|ms| ms as f64).collect();
    let quiet: Vec<f64> = barge_ins.iter().filter_map(|cut| cut.stopped_ms).map(|ms| ms as f64).collect();
    let cut_off = utterances.iter().filter(|said| said.cut_off).count();
    let sum = |count: fn(&CallReport) -> u64| reports.iter().map(count).sum::<u64>();
    json!({
        "said": utterances.len(), "answered": responses.len(),
        "response_ms": { "p50": percentile(&responses, 50), "p95": percentile(&responses, 95) },
        "interrupted": barge_ins.len(), "quiet_ms": { "p50": percentile(&quiet, 50), "p95": percentile(&quiet, 95) },
        "cut_off_percent": rounded(cut_off as f64 * 100.0 / utterances.len().max(1) as f64, 1),
        "gaps": sum(|report| report.counts.gaps), "late_frames_of_callers": sum(|report| report.counts.late_frames),
    })
}
