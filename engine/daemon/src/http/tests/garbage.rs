//! Requests that are nearly right, by the thousand: each has an answer, and none makes a handler panic.

use std::collections::BTreeSet;
use std::net::IpAddr;

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use tower::ServiceExt;
use voiced_fuzz::Mutations;

use super::super::frontend;
use super::super::source::Source;
use super::double::Double;

/// Requests of a run; `VOICED_FUZZ_INPUTS` asks for more.
const INPUTS: usize = 20_000;
const KEY: &str = "0123456789abcdef";
/// A path, a key or token, and a body, a line each.
const SEEDS: [&str; 9] = [
    "/session\nBearer 0123456789abcdef\n{\"userIdentity\":\"anna\",\"roomName\":\"room\",\"agentConfig\":{\"stt\":\"deepgram/nova-3:en\",\"llm\":\"openai/gpt-4o\",\"vad_enabled\":true,\"noise_cancellation_type\":\"auto\"}}",
    "/session\nBearer eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE4OTM0NTYwMDB9.AAAA\n{\"userIdentity\":\"anna\"}",
    "/session/end\nBearer 0123456789abcdef\n{\"roomName\":\"room\"}",
    "/room/create\nBearer 0123456789abcdef\n{\"roomName\":\"room\",\"hostIdentity\":\"anna\",\"hostName\":\"Anna\"}",
    "/room/join\nBearer 0123456789abcdef\n{\"roomName\":\"room\",\"participantIdentity\":\"bob\",\"participantName\":\"B\u{f6}b\"}",
    "/room/room/agent\nBearer 0123456789abcdef\n{\"enable\":true,\"agentConfig\":{\"prompt\":\"You are.\"}}",
    "/room/room/recording\nBearer 0123456789abcdef\n{\"enable\":false}",
    "/room/room/supervisor\nBearer 0123456789abcdef\n{\"identity\":\"anna\",\"mode\":\"whisper\"}",
    "/telephony/livekit-webhook\nsigned\n{\"event\":\"participant_joined\",\"room\":\"room\",\"identity\":\"sip_1\",\"at\":1700000000000}",
];

#[tokio::test]
async fn every_request_has_an_answer_however_wrong_it_is() {
    let settings = [("VOICED_HTTP__API_KEYS", KEY), ("VOICED_HTTP__JWT_SECRET", "0123456789abcdef0123456789abcdef"), ("LIVEKIT_API_KEY", "name")];
    let settings = voiced_config::load(None, settings.map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap();
    let router = frontend(&settings, "127.0.0.1:8080".parse().unwrap(), Some(Double::new())).unwrap();
    let source = Source::of(IpAddr::from([192, 0, 2, 1]), &HeaderMap::new(), &BTreeSet::new());
    let inputs = std::env::var("VOICED_FUZZ_INPUTS").ok().and_then(|inputs| inputs.parse().ok()).unwrap_or(INPUTS);
    let mut answers = [0; 6];
    for (number, input) in Mutations::new(SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).collect(), 1).take(inputs).enumerate() {
        let mut parts = input.splitn(3, |byte| *byte == b'\n');
        let mut next = || parts.next().unwrap_or_default();
        let (path, authorization, body) = (next(), next(), next().to_vec());
        let request = Request::post(path).header("Authorization", authorization).header("Content-Type", "application/json").extension(source);
        let Ok(request) = request.body(Body::from(body)) else { continue }; // hyper would not let it through either
        let status = router.clone().oneshot(request).await.unwrap().status().as_u16();
        assert!(status < 500 || status == 503, "{status} for input {number}: {:?}", String::from_utf8_lossy(&input));
        answers[usize::from(status / 100)] += 1;
    }
    assert!(answers[2] > 0 && answers[4] > 0, "{answers:?}");
}
