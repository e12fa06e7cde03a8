//! Who is believed: signatures on every request, and a token that opens one stream of one call once.

use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use voiced_lab::providers::Script;

use crate::host::{AUTH_TOKEN, Host};
use crate::stranger::{Stream, parameters, post, post_with};
use crate::{story, until};

#[tokio::test]
async fn requests_and_upgrades_with_a_wrong_signature_are_refused() {
    let host = Host::start(Script::default(), &[]).await;
    let form = [("CallSid", "CA1"), ("CallStatus", "completed")];
    for path in ["/twilio/voice", "/twilio/status"] {
        assert_eq!(post(&host, path, &form, "another").await.0, 403, "{path}");
    }
    assert_eq!(Stream::dial(&host, "CA1", "another").await.err(), Some(403));
    assert_eq!(host.metric("voiced_twilio_total{what=\"refused_requests\"}").await, 3);
    assert_eq!(post(&host, "/twilio/status", &form, AUTH_TOKEN).await.0, 204);
}

#[tokio::test]
async fn requests_signed_with_a_shared_key_are_believed_where_it_is_configured() {
    let form = [("CallSid", "CA1"), ("CallStatus", "completed")];
    let named = || {
        HeaderMap::from_iter([(
            HeaderName::from_static("x-twilio-webhooks-signature-settings"),
            HeaderValue::from_static("key=webhooks_sharedkey_1,algorithm=HMAC_SHA1"),
        )])
    };
    let host = Host::start(Script::default(), &[("VOICED_TWILIO__SHARED_KEY", "shared")]).await;
    assert_eq!(post_with(&host, "/twilio/status", &form, "shared", named()).await.0, 204);
    assert_eq!(post_with(&host, "/twilio/status", &form, AUTH_TOKEN, named()).await.0, 403, "the auth token is another key");
    assert_eq!(post(&host, "/twilio/status", &form, "shared").await.0, 403, "not said to be the shared key's");
    let host = Host::start(Script::default(), &[]).await;
    assert_eq!(post_with(&host, "/twilio/status", &form, "shared", named()).await.0, 403);
}

#[tokio::test]
async fn a_token_opens_the_one_stream_of_its_call_once_and_soon() {
    let host = Host::start(Script::default(), &[("VOICED_TWILIO__TOKEN_TTL_S", "5")]).await;
    let late = parameters(&host, "CA9").await;

    let of_another_call = parameters(&host, "CA2").await;
    assert!(Stream::start(&host, "CA1", &of_another_call).await.ends().await, "a token of another call");
    let mut of_another_caller = parameters(&host, "CA1").await;
    of_another_caller.insert("from".to_owned(), json!("+15559999999"));
    assert!(Stream::start(&host, "CA1", &of_another_caller).await.ends().await, "a token with another caller");
    assert!(Stream::start(&host, "CA1", &Map::new()).await.ends().await, "no token");

    let (first, second) = (parameters(&host, "CA1").await, parameters(&host, "CA1").await);
    let mut stream = Stream::start(&host, "CA1", &first).await;
    assert!(stream.hears().await, "the greeting");
    assert!(Stream::start(&host, "CA1", &first).await.ends().await, "a replayed token");
    assert!(Stream::start(&host, "CA1", &second).await.ends().await, "a second stream of a live call");
    assert_eq!(host.calls().await, ["CA1"]);
    stream.press("5").await;
    until("the answer on the first stream", async || story::taken(&host, "CA1").iter().any(|event| event.body["data"]["text"] == "5")).await;
    stream.send(&json!({"event": "stop"})).await;
    assert!(stream.ends().await);
    until("the call is over", async || host.get("/sessions/phone-CA1").await.0 == 404).await;
    assert!(Stream::start(&host, "CA1", &first).await.ends().await, "a token replayed after its call");

    until("the token expires", async || now_s() > expiry_s(&late)).await;
    assert!(Stream::start(&host, "CA9", &late).await.ends().await, "an expired token");
    assert_eq!(host.metric("voiced_twilio_total{what=\"refused_streams\"}").await, 7);
    assert!(story::of(&host, "CA1").await.said().contains(&("tenant", "5")));
}

#[tokio::test]
async fn a_used_token_stays_used_over_a_restart_and_in_a_process_that_lingers() {
    let mut host = Host::start_lingering(Script::default(), &[]).await;
    let (first, unused) = (parameters(&host, "CA1").await, parameters(&host, "CA2").await);
    let mut stream = Stream::start(&host, "CA1", &first).await;
    assert!(stream.hears().await, "the greeting");
    // the old process talks on with CA1, the new one is asked for it again
    host.terminate();
    let old = host.stand_by();
    until("the old main process has ended", async || old.log().contains("draining")).await;
    host.restart().await;
    assert!(Stream::start(&host, "CA1", &first).await.ends().await, "a token that the old process has taken");
    stream.send(&json!({"event": "stop"})).await;
    assert!(stream.ends().await);
    assert!(Stream::start(&host, "CA2", &unused).await.hears().await, "a token that the old process has made");
    host.kill();
    host.restart().await;
    assert!(Stream::start(&host, "CA1", &first).await.ends().await, "after both are gone");
    assert!(Stream::start(&host, "CA2", &unused).await.ends().await, "a token that a killed process has taken");
}

fn expiry_s(parameters: &Map<String, Value>) -> u64 {
    let token = parameters["token"].as_str().expect("a token");
    token.split('.').next().and_then(|expiry| expiry.parse().ok()).expect("an expiry")
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}
