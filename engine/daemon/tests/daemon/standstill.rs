//! Time that passes without the daemon: it is stopped, starved, or the road to the caller stands still. Afterwards the
//! caller is heard and answered as before: what piled up meanwhile is not played or heard late.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::connect_async;
use voiced_lab::phone::{CallReport, Outcome, PhoneEvent, Step};
use voiced_lab::providers::{Answer, Script};

use crate::caller::{call, conversation, listen, say, script};
use crate::host::Host;
use crate::{story, until};

const FIRST: &str = "My kitchen sink is leaking.";
const AGAIN: &str = "It is in the kitchen.";
/// A standstill of this long must not be in what comes after it, ms.
const STOOD_MS: u64 = 3_000;
/// A host that is held up runs for so long at a time, and stands for as long.
const HELD_UP: Duration = Duration::from_millis(60);
/// A change takes some seconds to be decided on; this long only where it never comes.
const TOLD_WITHIN: Duration = Duration::from_mins(1);
/// Sound that may wait at the caller's end, ms: the lead is 400, however late a busy machine fills it up. What the rings to the
/// line would hold of a standstill is some 2 s.
const AHEAD_MS_MAX: u64 = 1_000;

/// A model that answers with so many words, of 300 ms each.
fn speaks(words: usize) -> Script {
    let answer = "The plumber comes tomorrow. ".repeat(words / 4);
    Script { agent: Arc::new(move |_| Answer::text(answer.clone())), ..Script::default() }
}

/// What is said after the standstill is answered, and by no more than the standstill itself later than what was said before.
fn is_as_before(report: &CallReport) {
    assert_eq!(report.outcome, Outcome::CallerHungUp);
    let responses: Vec<_> = report.utterances.iter().map(|said| said.response_ms.expect("an answer")).collect();
    assert!(responses[1] < responses[0] + STOOD_MS, "what came after was heard late: {responses:?}");
}

#[tokio::test]
async fn a_host_that_is_held_up_leaves_work_out_refuses_callers_tells_of_it_and_recovers_by_itself() {
    let host = Host::start(Script::default(), &[("VOICED_ENGINE__HEADROOM_PERCENT", "30")]).await;
    let (mut events, _) = connect_async(format!("ws://{}/events", host.address())).await.expect("an upgrade");
    let mut told = async || loop {
        let event = timeout(TOLD_WITHIN, events.next()).await.expect("the daemon tells of a change").expect("it is there").expect("a message");
        let event: Value = serde_json::from_str(&event.to_string()).expect("JSON");
        if event["kind"] == "host" {
            return event["left_out"].as_str().unwrap_or_default().to_owned();
        }
    };
    let held_up = async {
        loop {
            for signal in ["STOP", "CONT"] {
                host.signal(signal);
                sleep(HELD_UP).await; // the fault itself
            }
        }
    };
    let under_pressure = async {
        assert_eq!(told().await, "noise cancellation");
        assert_eq!(call(&host.phone(), script([])).await.outcome, Outcome::Apology);
    };
    tokio::select! {
        () = held_up => {}
        () = under_pressure => {}
    }
    host.signal("CONT");
    until("all is done again", async || host.metric("voiced_shed_level{thread=\"0\"}").await == 0).await;
    while told().await != "nothing" {}
    assert!(host.metric("voiced_shed_total").await > 0);
    assert_eq!(call(&host.phone(), script([])).await.outcome, Outcome::CallerHungUp);
}

#[tokio::test]
async fn a_daemon_that_was_suspended_for_3_s_goes_on_with_its_calls() {
    let host = Host::start(speaks(20), &[]).await;
    let phone = host.phone();
    // the gap ends the first listening, and what is left of the answer the second
    let steps = [listen(), say(FIRST), listen(), listen(), say(AGAIN), listen()];
    let starts = AtomicUsize::new(0);
    let observer = |_, event: PhoneEvent<'_>| _ = starts.fetch_add(usize::from(event == PhoneEvent::AgentStarted), Relaxed);
    let calling = async { phone.call(script(steps), &observer).await.expect("a call") };
    let suspend = async {
        until("the first answer is heard", async || starts.load(Relaxed) >= 2).await;
        host.signal("STOP");
        sleep(Duration::from_millis(STOOD_MS)).await; // the fault itself
        host.signal("CONT");
    };
    let (report, ()) = tokio::join!(calling, suspend);
    is_as_before(&report);
    assert!(starts.load(Relaxed) >= 4, "the daemon was suspended while it said nothing");
    assert!(report.counts.ahead_ms < AHEAD_MS_MAX, "a burst of stale speech: {:?}", report.counts);
    assert_eq!(story::of(&host, &report.call_sid).await.said().len(), 5);
}

#[tokio::test]
async fn a_line_that_stood_still_for_3_s_is_heard_and_answered_at_once_again() {
    let host = Host::start(Script::default(), &[]).await;
    // amid the agent's answer, and while the caller is silent; afterwards the phone sends at once what it owes of that silence
    let stall = [Step::Wait { ms: 600 }, Step::Stall { ms: STOOD_MS }, Step::Wait { ms: STOOD_MS + 500 }];
    let steps: Vec<_> = [listen(), say(FIRST)].into_iter().chain(stall).chain([listen(), say(AGAIN), listen()]).collect();
    let report = call(&host.phone(), script(steps)).await;
    is_as_before(&report);
    let story = story::of(&host, &report.call_sid).await;
    assert_eq!(story.said().iter().filter(|(speaker, _)| *speaker == "tenant").count(), 2, "{:?}", story.said());
}

#[tokio::test]
async fn a_caller_whose_road_stands_still_for_long_is_let_go_and_the_place_is_free() {
    let host = Host::start(Script::default(), &[("VOICED_TWILIO__IDLE_TIMEOUT_S", "2")]).await;
    let phone = host.phone();
    let gone = call(&phone, script([listen(), Step::Stall { ms: 6_000 }, Step::Wait { ms: 10_000 }])).await;
    assert_eq!(gone.outcome, Outcome::AgentHungUp);
    until("the place is free", async || host.metric("voiced_calls{thread=\"0\"}").await == 0).await;
    story::of(&host, &gone.call_sid).await;
    assert_eq!(call(&phone, conversation(&[FIRST])).await.outcome, Outcome::CallerHungUp);
}

#[tokio::test]
async fn a_caller_who_sends_but_reads_nothing_is_let_go_when_the_road_takes_no_more() {
    // not for silence: this caller is never silent
    let host = Host::start(speaks(80), &[("VOICED_TWILIO__IDLE_TIMEOUT_S", "60")]).await;
    let phone = host.phone();
    let gone = call(&phone, script([listen(), say(FIRST), Step::Deaf { ms: 40_000 }, Step::Wait { ms: 40_000 }])).await;
    assert_eq!(gone.outcome, Outcome::AgentHungUp);
    until("the place is free", async || host.metric("voiced_calls{thread=\"0\"}").await == 0).await;
    assert_eq!(host.metric("voiced_twilio_total{what=\"timed_out\"}").await, 1);
    story::of(&host, &gone.call_sid).await;
    let told: serde_json::Value = serde_json::from_str(&host.get(&format!("/calls/{}", gone.call_sid)).await.1).expect("the call's record");
    assert_eq!(told["ended"], "lost", "{told:#}");
}

/// Someone else's work on the daemon's core; it ends with this.
struct Neighbour(Child);

impl Neighbour {
    fn on(cpu: &str) -> Self {
        let busy = Command::new("taskset").args(["-c", cpu, "sh", "-c", "while :; do :; done"]).stdout(Stdio::null()).spawn();
        Self(busy.expect("taskset"))
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn with_busy_neighbours_on_its_core_a_call_goes_on_and_is_answered() {
    let host = Host::start(Script::default(), &[]).await;
    let pinned = Command::new("taskset").args(["-apc", "0", &host.pid().to_string()]).stdout(Stdio::null()).status();
    assert!(pinned.is_ok_and(|status| status.success()), "the daemon is on core 0");
    let neighbours = [Neighbour::on("0"), Neighbour::on("0")];
    let report = call(&host.phone(), conversation(&[FIRST, AGAIN])).await;
    drop(neighbours);
    is_as_before(&report);
    assert_eq!(story::of(&host, &report.call_sid).await.said().len(), 5);
}

/// What lies to a process about the hour, by Debian's package of this name; the monotonic clock stays true.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// A wall clock that can be set.
struct WallClock(NamedTempFile);

impl WallClock {
    fn right() -> Self {
        let clock = Self(NamedTempFile::new().expect("a file"));
        clock.set("+0");
        clock
    }

    /// Off the right time by this, such as `-2h`.
    fn set(&self, off: &str) {
        // in one write over the old text: the process reads it at any moment
        self.0.reopen().expect("a file").write_all(format!("{off:<8}\n").as_bytes()).expect("room on disk");
    }
}

#[tokio::test]
async fn when_the_wall_clock_is_set_forward_and_back_calls_and_their_events_go_on() {
    if !Path::new(FAKETIME).exists() {
        assert!(std::env::var_os("CI").is_none(), "libfaketime is missing");
        return eprintln!("skipped: install libfaketime to set the daemon's clock");
    }
    let clock = WallClock::right();
    let file = clock.0.path().to_str().expect("a path in UTF-8");
    let settings = [("LD_PRELOAD", FAKETIME), ("FAKETIME_TIMESTAMP_FILE", file), ("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    let host = Host::start(Script::default(), &settings).await;
    let phone = host.phone();
    let calling = call(&phone, conversation(&[FIRST, AGAIN, AGAIN]));
    let hour = |event: &serde_json::Value| event["timestamp"].as_str().map(|at| at[..13].to_owned());
    let jumps = async {
        until("the first answer", async || host.stored().len() >= 4).await;
        clock.set("+30h");
        until("the second answer", async || host.stored().len() >= 6).await;
        clock.set("-30h");
    };
    let (report, ()) = tokio::join!(calling, jumps);
    assert_eq!(report.outcome, Outcome::CallerHungUp);
    assert!(report.utterances.iter().all(|said| said.response_ms.is_some_and(|ms| ms < STOOD_MS)), "{:?}", report.utterances);
    let story = story::of(&host, &report.call_sid).await;
    assert_eq!(story.said().len(), 7);
    let hours: std::collections::BTreeSet<_> = story::taken(&host, &report.call_sid).iter().filter_map(|event| hour(&event.body)).collect();
    assert!(hours.len() >= 3, "the clock was not set: {hours:?}");
    assert!(story.duration_seconds() < 120.0, "the call's length is not the clock's");
    // and the next caller is taken by the clock as it is now
    assert_eq!(call(&phone, conversation(&[FIRST])).await.outcome, Outcome::CallerHungUp);
}
