//! kill -9, at any moment, loses no event that was reported.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::json;
use voiced_events::outbox::{Entry, State};
use voiced_events::sinks::ema::idempotency_key;
use voiced_lab::phone::Outcome;
use voiced_lab::providers::Script;

use crate::caller::{call, conversation, script};
use crate::host::Host;
use crate::stranger::{Stream, parameters};
use crate::{story, until};

const LINES: [&str; 4] = ["My kitchen sink is leaking.", "It is in the kitchen.", "My kitchen sink is leaking.", "It is in the kitchen."];

/// Calls that are cut off.
const CALLS: usize = 4;

#[tokio::test]
async fn every_event_survives_a_kill_amid_calls_while_the_receiver_is_down() {
    let mut host = Host::start(Script::default(), &[]).await;
    host.receiver_fails(true);
    let phone = host.phone();
    let ended = call(&phone, script([])).await;
    assert_eq!(ended.outcome, Outcome::CallerHungUp);

    let cut_off = join_all((0..CALLS).map(|_| call(&phone, conversation(&LINES))));
    let kill = async {
        until("two utterances of each call on disk", async || {
            let entries = host.stored();
            let calls = host.calls().await;
            let told = |call: &String| entries.iter().filter(|entry| entry.event.call_sid.as_ref() == Some(call)).count();
            calls.len() == CALLS && calls.iter().all(|call| told(call) > 2)
        })
        .await;
        // the receiver is back, some deliveries are done and others under way: then
        host.receiver_fails(false);
        until("a first delivery", async || host.ema.received().iter().any(|received| received.accepted)).await;
        host.kill();
    };
    let (cut_off, ()) = tokio::join!(cut_off, kill);
    assert!(cut_off.iter().all(|call| call.outcome == Outcome::AgentHungUp));
    let stored = host.stored();
    assert!(stored.iter().any(|entry| entry.state != State::Sent), "the kill came after all was delivered");

    host.restart().await;
    let mut told = 0;
    for report in cut_off.iter().chain([&ended]) {
        story::of(&host, &report.call_sid).await;
        let keys: BTreeSet<_> = story::taken(&host, &report.call_sid).into_iter().filter_map(|received| received.idempotency_key).collect();
        assert!(of(&stored, &report.call_sid).all(|entry| keys.contains(&idempotency_key(&entry.event))), "an event was lost: {keys:?}");
        told += keys.len();
    }
    assert_eq!(told, stored.len() + CALLS, "what was stored, and the end of each call that was cut off");
    assert!(host.calls().await.is_empty());
}

#[tokio::test]
async fn a_call_that_twilio_connects_once_more_loses_no_event() {
    let host = Host::start(Script::default(), &[]).await;
    for _ in 0..2 {
        let mut stream = Stream::start(&host, "CA1", &parameters(&host, "CA1").await).await;
        assert!(stream.hears().await, "the greeting");
        stream.send(&json!({"event": "stop"})).await;
        until("the call is over", async || host.get("/sessions/phone-CA1").await.0 == 404).await;
    }
    until("both ends at the receiver", async || of_kind(&host, "call_ended") == 2).await;
    assert_eq!(of_kind(&host, "call_initiated"), 2);
}

fn of_kind(host: &Host, event_type: &str) -> usize {
    story::taken(host, "CA1").iter().filter(|event| event.body["event_type"] == event_type).count()
}

fn of<'a>(stored: &'a [Entry], call_sid: &'a str) -> impl Iterator<Item = &'a Entry> {
    stored.iter().filter(move |entry| entry.event.call_sid.as_deref() == Some(call_sid))
}
