//! Clients that break the protocol harm nobody but themselves.

use serde_json::json;
use voiced_lab::phone::Outcome;
use voiced_lab::providers::Script;

use crate::caller::{call, conversation};
use crate::host::Host;
use crate::stranger::{Stream, parameters};
use crate::{story, until};

#[tokio::test]
async fn garbage_is_forgiven_a_few_times_and_then_cut_off_while_other_calls_go_on() {
    let host = Host::start(Script::default(), &[("VOICED_TWILIO__BAD_MESSAGES_MAX", "3")]).await;
    let phone = host.phone();
    let polite = call(&phone, conversation(&["My kitchen sink is leaking."]));
    let rude = async {
        let mut stream = Stream::start(&host, "CA1", &parameters(&host, "CA1").await).await;
        assert!(stream.hears().await, "the greeting");
        for garbage in ["{", "[]", r#"{"event":"media","media":{"payload":"%"}}"#] {
            stream.send_text(garbage.to_owned()).await;
        }
        stream.press("5").await;
        until("an answer after three bad messages", async || story::taken(&host, "CA1").iter().any(|event| event.body["data"]["text"] == "5")).await;
        stream.send_text("one too many".to_owned()).await;
        assert!(stream.ends().await);
        until("the call is gone", async || host.get("/sessions/phone-CA1").await.0 == 404).await;
        story::of(&host, "CA1").await;
    };
    let (report, ()) = tokio::join!(polite, rude);
    assert_eq!(report.outcome, Outcome::CallerHungUp);
    assert!(report.utterances[0].response_ms.is_some(), "{:?}", report.utterances);
    assert_eq!(host.metric("voiced_twilio_total{what=\"bad_messages\"}").await, 4);
    assert_eq!(host.metric("voiced_twilio_total{what=\"cut_off\"}").await, 1);
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_its_call_and_no_other() {
    let host = Host::start(Script::default(), &[]).await;
    let mut other = Stream::start(&host, "CA2", &parameters(&host, "CA2").await).await;
    let mut stream = Stream::start(&host, "CA1", &parameters(&host, "CA1").await).await;
    assert!(stream.hears().await, "the greeting");
    stream.send_text(" ".repeat(1_000_000)).await;
    assert!(stream.ends().await);
    until("the call is gone", async || host.get("/sessions/phone-CA1").await.0 == 404).await;
    story::of(&host, "CA1").await;
    assert_eq!(host.metric("voiced_twilio_total{what=\"cut_off\"}").await, 1);
    assert_eq!(host.get("/sessions/phone-CA2").await.0, 200);
    assert!(other.hears().await, "the greeting of the other call");
    other.send(&json!({"event": "stop"})).await;
    story::of(&host, "CA2").await;
}
