//! What whoever runs the daemon does at the command line.

use std::process::Output;

use voiced_lab::ema::Behaviour;
use voiced_lab::phone::{Outcome, Sign};
use voiced_lab::providers::Script;

use crate::caller::{call, listen, say, script, wait_for};
use crate::host::Host;
use crate::{story, until};

fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn check_names_every_mistake_at_once_with_what_to_do() {
    let mut host = Host::start(Script::default(), &[]).await;
    let good = host.voiced(&["check"]);
    assert!(good.status.success(), "{}", words(&good));
    host.set(&[
        ("PORT", "http"),
        ("VOICED_AGENT__GREETNG", "Hi."),
        ("VOICED_TURN__LEAD_MS", "1"),
        ("VOICED_AGENT__STT", "deepgrm/nova-3"),
        ("WEBHOOK_URL", ""),
        ("CARTESIA_BASE_URL", ""),
        ("CARTESIA_API_KEY", ""),
    ]);
    let bad = host.voiced(&["check"]);
    let told = words(&bad);
    assert!(!bad.status.success(), "{told}");
    let expected = [
        "server.port (environment variable PORT): \"http\" is not a whole number",
        "did you mean `agent.greeting`?",
        "turn.lead_ms (merged settings): 1 is out of range, must be 40 to 500",
        "names an unknown provider; known for stt: local, deepgram",
        "set WEBHOOK_URL",
        "needs CARTESIA_API_KEY",
    ];
    for mistake in expected {
        assert!(told.contains(mistake), "{mistake:?} is not told in\n{told}");
    }
}

#[tokio::test]
async fn a_parked_event_is_listed_shown_and_goes_out_on_retry() {
    let host = Host::start(Script::default(), &[]).await;
    host.ema.behave(Some(Behaviour::Refuses));
    let report = call(&host.phone(), script([])).await;
    until("both events are parked", async || host.metric("voiced_outbox_parked{sink=\"ema\"}").await == 2).await;

    let list = words(&host.voiced(&["events", "list"]));
    let parked = list.lines().find(|line| line.contains(&report.call_sid) && line.contains("Parked") && line.contains("400")).expect(&list);
    let number = parked.split_whitespace().next().expect("a number");
    let shown = words(&host.voiced(&["events", "show", number]));
    assert!(shown.contains("\"call_initiated\"") && shown.contains("refused"), "{shown}");

    host.ema.behave(None);
    let retried = host.voiced(&["events", "retry"]);
    assert!(retried.status.success() && words(&retried).starts_with('2'), "{}", words(&retried));
    story::of(&host, &report.call_sid).await;
    assert!(!words(&host.voiced(&["events", "list"])).contains("Parked"));
}

#[tokio::test]
async fn a_second_daemon_on_the_same_state_leaves_the_first_ones_calls_alone() {
    let mut host = Host::start(Script::default(), &[]).await;
    let phone = host.phone();
    let told = Sign::default();
    let call = call(&phone, script([listen(), wait_for(&told), say("My kitchen sink is leaking."), listen()]));
    let second = async {
        until("the greeting", async || host.stored().len() > 1).await;
        let first = host.stand_by();
        host.restart().await;
        let live = words(&host.voiced(&["check", "--live"]));
        assert_eq!(live.matches("takes calls").count(), 2, "{live}");
        assert_eq!(live.matches("phone-CA").count(), 1, "{live}");
        told.give();
        first
    };
    let (report, _first) = tokio::join!(call, second);
    assert_eq!(report.outcome, Outcome::CallerHungUp);
    assert_eq!(story::of(&host, &report.call_sid).await.said().len(), 3);
}
