//! How much is taken on: places, and an orderly end.

use futures_util::future::join_all;
use serde_json::Value;
use voiced_lab::phone::{Outcome, Step};
use voiced_lab::providers::Script;

use crate::caller::{call, conversation, listen, script};
use crate::host::Host;
use crate::story::Story;
use crate::{story, until};

#[tokio::test]
async fn a_caller_without_a_place_hears_an_apology_until_a_place_is_free() {
    let host = Host::start(Script::default(), &[("VOICED_ENGINE__CALLS_PER_THREAD", "1")]).await;
    let phone = host.phone();
    let first = call(&phone, conversation(&["My kitchen sink is leaking."]));
    let second = async {
        until("the first call", async || !host.calls().await.is_empty()).await;
        let report = call(&phone, script([])).await;
        assert_eq!(report.outcome, Outcome::Apology);
        assert_eq!(host.metric("voiced_calls_refused_total").await, 1);
        assert_eq!(host.metric("voiced_twilio_total{what=\"apologies\"}").await, 1);
        assert_eq!(host.calls().await.len(), 1, "the first goes on");
    };
    let (first, ()) = tokio::join!(first, second);
    assert!(first.utterances[0].response_ms.is_some());
    until("the place is free", async || host.metric("voiced_calls{thread=\"0\"}").await == 0).await;
    let third = call(&phone, script([Step::Wait { ms: 200 }])).await;
    assert_eq!(third.outcome, Outcome::CallerHungUp);
}

#[tokio::test]
async fn of_callers_who_ring_at_once_those_without_a_place_hear_an_apology() {
    let host = Host::start(Script::default(), &[("VOICED_ENGINE__CALLS_PER_THREAD", "2")]).await;
    let phone = host.phone();
    let reports = join_all((0..6).map(|_| call(&phone, script([listen()])))).await;
    let apologies = reports.iter().filter(|report| report.outcome == Outcome::Apology).count();
    let answered = reports.iter().filter(|report| report.outcome == Outcome::CallerHungUp).count();
    assert_eq!((answered, apologies), (2, 4), "{:?}", reports.iter().map(|report| report.outcome).collect::<Vec<_>>());
    assert_eq!(host.metric("voiced_calls_refused_total").await, 4);
    assert_eq!(host.metric("voiced_twilio_total{what=\"refused_streams\"}").await, 0);
}

#[tokio::test]
async fn a_call_that_has_lasted_as_long_as_it_may_ends_with_a_goodbye() {
    let host = Host::start(Script::default(), &[("VOICED_TWILIO__MAX_DURATION_S", "10"), ("VOICED_AGENT__GOODBYE", "Goodbye.")]).await;
    let report = call(&host.phone(), script([listen(), Step::Wait { ms: 40_000 }])).await;
    assert_eq!(report.outcome, Outcome::AgentHungUp);
    assert_eq!(story::of(&host, &report.call_sid).await.agent().last(), Some(&"Goodbye."));
    let told = async || -> Value { serde_json::from_str(&host.get(&format!("/calls/{}", report.call_sid)).await.1).unwrap_or_default() };
    until("the record is whole", async || told().await["ended"].is_string()).await;
    let told = told().await;
    assert_eq!(told["ended"], "max_duration");
    assert_eq!(told["moments"].to_string().matches("as long as it may").count(), 1, "it is told once: {told:#}");
}

#[tokio::test]
async fn on_sigterm_calls_end_as_they_would_and_no_new_ones_are_taken() {
    let mut host = Host::start(Script::default(), &[]).await;
    let phone = host.phone();
    let running = call(&phone, conversation(&["My kitchen sink is leaking.", "It is in the kitchen."]));
    let stop = async {
        until("the call", async || !host.calls().await.is_empty()).await;
        host.terminate();
        until("the drain", async || host.get("/health").await.0 == 503).await;
        assert_eq!(call(&phone, script([])).await.outcome, Outcome::Apology);
    };
    let (running, ()) = tokio::join!(running, stop);
    assert_eq!(running.outcome, Outcome::CallerHungUp);
    assert!(running.utterances.iter().all(|said| said.response_ms.is_some()), "{:?}", running.utterances);
    assert_eq!(host.exit().await.code(), Some(0));
    let last = story::taken(&host, &running.call_sid).pop().expect("events");
    assert_eq!(last.body["event_type"], "call_ended", "what is owed is delivered before the end");
    story::of(&host, &running.call_sid).await;
}

#[tokio::test]
async fn a_second_sigterm_ends_calls_with_a_goodbye() {
    let story = ended_by_second_sigterm("Goodbye.").await;
    assert_eq!(story.agent(), ["Hello.", "Goodbye."]);
}

#[tokio::test]
async fn a_goodbye_that_takes_too_long_is_cut_and_the_calls_end_is_reported_all_the_same() {
    let goodbye = "We have to go now. ".repeat(20);
    let story = ended_by_second_sigterm(goodbye.trim()).await;
    let said = story.agent()[1..].join(" ");
    assert!(said.starts_with("We have to go now.") && said.len() < goodbye.trim().len(), "{said:?}");
}

/// What the receiver knows of a call that was under way, once the daemon is gone.
async fn ended_by_second_sigterm(goodbye: &str) -> Story {
    let mut host = Host::start(Script::default(), &[("VOICED_AGENT__GOODBYE", goodbye)]).await;
    let phone = host.phone();
    let running = call(&phone, script([Step::Wait { ms: 40_000 }]));
    let stop = async {
        until("the greeting", async || host.stored().len() > 1).await;
        host.terminate();
        until("the drain", async || host.get("/health").await.0 == 503).await;
        host.terminate();
    };
    let (running, ()) = tokio::join!(running, stop);
    assert_eq!(running.outcome, Outcome::AgentHungUp);
    assert_eq!(host.exit().await.code(), Some(0));
    let last = story::taken(&host, &running.call_sid).pop().expect("events");
    assert_eq!(last.body["event_type"], "call_ended", "what is owed is delivered before the end");
    story::of(&host, &running.call_sid).await
}
