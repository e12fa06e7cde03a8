//! A disk that takes nothing more, and a store that cannot be read: callers notice neither.

use std::process::Command;

use voiced_lab::phone::{Outcome, Sign};
use voiced_lab::providers::Script;

use crate::caller::{call, conversation, listen, say, script, wait_for};
use crate::host::Host;
use crate::{story, until};

/// No file of the daemon's may grow beyond this: what a full disk is to it.
pub fn file_limit(host: &Host, bytes: &str) {
    let set = Command::new("prlimit").args([format!("--pid={}", host.pid()), format!("--fsize={bytes}:unlimited")]).status();
    assert!(set.is_ok_and(|status| status.success()), "no limit was set");
}

#[tokio::test]
async fn on_a_full_disk_calls_go_on_the_operator_is_told_and_every_event_arrives_when_there_is_room() {
    let host = Host::start(Script::default(), &[]).await;
    let (phone, room) = (host.phone(), Sign::default());
    let talking = call(&phone, script([listen(), say("My kitchen sink is leaking."), listen(), wait_for(&room), say("It is in the kitchen."), listen()]));
    let full = async {
        until("the greeting", async || host.stored().len() > 1).await;
        file_limit(&host, "1");
        until("the operator is told", async || host.get("/health").await.1.contains("degraded")).await;
        until("the answer waits in memory", async || host.metric("voiced_outbox_unwritten").await >= 2).await;
        assert_eq!(host.metric("voiced_outbox_degraded").await, 1);
        let (status, body) = host.get("/health").await;
        assert_eq!(status, 200, "calls are still taken: {body}");
        let other = call(&phone, conversation(&["My kitchen sink is leaking."])).await;
        assert!(other.utterances[0].response_ms.is_some(), "and answered");
        room.give();
        other
    };
    let (talking, other) = tokio::join!(talking, full);
    assert_eq!(talking.outcome, Outcome::CallerHungUp);
    assert!(talking.utterances.iter().all(|said| said.response_ms.is_some()), "{:?}", talking.utterances);
    until("the calls are over", async || host.calls().await.is_empty()).await;
    file_limit(&host, "unlimited");
    for (report, said) in [(&talking, 5), (&other, 3)] {
        assert_eq!(story::of(&host, &report.call_sid).await.said().len(), said);
    }
    until("all is well", async || host.get("/health").await.1.contains("\"ok\"")).await;
    assert_eq!((host.metric("voiced_outbox_unwritten").await, host.metric("voiced_outbox_lost_total").await), (0, 0));
}

#[tokio::test]
async fn a_damaged_store_is_set_aside_at_the_start_and_calls_are_answered() {
    let mut host = Host::start(Script::default(), &[]).await;
    host.receiver_fails(true);
    let before = call(&host.phone(), script([])).await;
    until("the call is over", async || host.calls().await.is_empty()).await;
    host.kill();
    host.damage_store();
    host.restart().await;
    assert!(host.log().contains("the event store was damaged"), "{}", host.log());
    assert_eq!(host.metric("voiced_outbox_set_aside_total").await, 1);
    host.receiver_fails(false);
    let after = call(&host.phone(), conversation(&["My kitchen sink is leaking."])).await;
    assert_eq!(story::of(&host, &after.call_sid).await.said().len(), 3);
    assert!(story::taken(&host, &before.call_sid).is_empty(), "that could not be read any more");
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_at_the_start_costs_no_call_and_no_event() {
    let mut host = Host::start(Script::default(), &[]).await;
    host.receiver_fails(true);
    let before = call(&host.phone(), conversation(&["My kitchen sink is leaking."])).await;
    until("the call is over", async || host.calls().await.is_empty()).await;
    host.kill();
    host.bar_store(true);
    host.receiver_fails(false);
    host.restart().await;
    assert!(host.get("/health").await.1.contains("degraded"), "the operator is told");
    let meanwhile = call(&host.phone(), conversation(&["My kitchen sink is leaking."])).await;
    assert!(meanwhile.utterances[0].response_ms.is_some(), "a caller is answered");
    host.bar_store(false);
    for report in [&before, &meanwhile] {
        assert_eq!(story::of(&host, &report.call_sid).await.said().len(), 3);
    }
    until("all is well", async || host.get("/health").await.1.contains("\"ok\"")).await;
}

#[tokio::test]
async fn a_state_folder_that_cannot_be_written_is_told_at_the_start() {
    let mut host = Host::start(Script::default(), &[]).await;
    host.set(&[("STATE_DIRECTORY", "/proc/voiced")]);
    let refused = host.voiced(&["serve"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("cannot write in /proc/voiced (storage.state_dir, STATE_DIRECTORY)"), "{told}");
}
