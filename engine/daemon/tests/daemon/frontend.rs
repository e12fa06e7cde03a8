//! What a frontend meets at a daemon without LiveKit, and what its operator is told.

use serde_json::{Value, json};
use voiced_lab::providers::Script;

use crate::host::Host;

#[tokio::test]
async fn without_livekit_the_host_says_what_to_set_and_serves_the_rest() {
    let host = Host::start(Script::default(), &[("VOICED_HTTP__CORS_ORIGINS", "https://app.example.test")]).await;
    assert!(host.log().contains("LiveKit is not configured (set LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET)"), "{}", host.log());
    let client = reqwest::Client::new();
    let session = client.post(host.url("/session")).json(&json!({ "userIdentity": "anna" })).send().await.expect("an answer");
    assert_eq!(session.status(), 503);
    let refusal: Value = session.json().await.expect("JSON");
    assert!(refusal["error"]["reason"].as_str().is_some_and(|reason| reason.contains("LIVEKIT_URL")), "{refusal}");

    let health = client.get(host.url("/health")).header("Origin", "https://app.example.test").send().await.expect("an answer");
    assert_eq!((health.status().as_u16(), health.headers().contains_key("access-control-allow-origin")), (200, true));
    let nothing = host.get("/nothing").await;
    assert_eq!((nothing.0, nothing.1.contains("openapi.json")), (404, true));
    let document: Value = serde_json::from_str(&host.get("/openapi.json").await.1).expect("JSON");
    assert!(document["paths"]["/session"].is_object() && document["paths"]["/twilio/voice"].is_object());
}

#[tokio::test]
async fn a_host_whose_rooms_are_open_to_the_network_does_not_start() {
    let mut host = Host::start(Script::default(), &[]).await;
    host.set(&[("LIVEKIT_URL", "wss://rooms.example.test"), ("LIVEKIT_API_KEY", "key"), ("LIVEKIT_API_SECRET", "room-secret")]);
    assert!(host.voiced(&["check"]).status.success(), "on loopback it may");
    host.set(&[("VOICED_SERVER__BIND", "0.0.0.0")]);
    for command in ["check", "serve"] {
        let refused = host.voiced(&[command]);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && told.contains("VOICED_HTTP__API_KEYS") && !told.contains("room-secret"), "{command}: {told}");
    }
    host.set(&[("VOICED_HTTP__API_KEYS", "0123456789abcdef")]);
    assert!(host.voiced(&["check"]).status.success(), "with a key it may");
}
