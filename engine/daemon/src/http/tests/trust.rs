//! Who may spend money, how fast, and what is told to those who may not.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::double::{Front, answer, serve};

const KEY: &str = "0123456789abcdef";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// An address that others reach.
const PUBLIC: &str = "192.0.2.1:8080";

fn jwt(header: &Value, claims: &Value, secret: &str) -> String {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

#[tokio::test]
async fn only_a_key_or_a_good_token_opens_what_costs_money() {
    let settings =
        [("VOICED_HTTP__API_KEYS", &*format!("another-key-of-ours,{KEY}")), ("VOICED_HTTP__JWT_SECRET", SECRET), ("VOICED_HTTP__JWT_AUDIENCE", "voiced")];
    let front = Front::start(&settings).await;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (hs256, later, earlier) = (json!({ "alg": "HS256" }), now_s + 300, now_s - 300);
    let good = json!({ "exp": later, "aud": ["voiced", "other"] });
    let tokens = [
        (jwt(&hs256, &good, SECRET), 200),
        (jwt(&hs256, &json!({ "exp": later, "aud": "voiced", "nbf": earlier }), SECRET), 200),
        (jwt(&hs256, &good, "another secret"), 401),
        (jwt(&json!({ "alg": "none" }), &good, SECRET), 401),
        (jwt(&json!({ "alg": "HS256", "crit": ["x"] }), &good, SECRET), 401),
        (jwt(&hs256, &json!({ "aud": "voiced" }), SECRET), 401),
        (jwt(&hs256, &json!({ "exp": earlier, "aud": "voiced" }), SECRET), 401),
        (jwt(&hs256, &json!({ "exp": later, "nbf": later, "aud": "voiced" }), SECRET), 401),
        (jwt(&hs256, &json!({ "exp": later, "aud": "another" }), SECRET), 401),
        (jwt(&hs256, &json!({ "exp": later }), SECRET), 401),
        ("..".to_owned(), 401),
        (KEY.to_owned(), 200),
        (KEY[1..].to_owned(), 401),
        (String::new(), 401),
    ];
    let request = || front.request("/session", &json!({ "userIdentity": "anna" }));
    for (token, expected) in tokens {
        let (status, reply) = answer(request().bearer_auth(&token)).await;
        assert_eq!(status, expected, "{token}: {reply}");
        assert!(status == 200 || (reply["error"]["field"] == "Authorization" && !reply.to_string().contains(SECRET)));
    }
    assert_eq!(answer(request().header("X-API-Key", KEY)).await.0, 200);
    assert_eq!(answer(request().header("X-API-Key", "wrong")).await.0, 401);
    assert_eq!(answer(request()).await.0, 401);
}

#[tokio::test]
async fn every_endpoint_that_costs_money_or_tells_numbers_is_guarded() {
    let front = Front::start_at(PUBLIC, &[("VOICED_HTTP__API_KEYS", KEY)]).await;
    let document = front.get("/openapi.json").await.1;
    let mut guarded = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let is_ours = path.starts_with("/session") && !path.starts_with("/sessions") || path.starts_with("/room") || path.starts_with("/telephony");
        if !is_ours {
            continue;
        }
        let status = if item["get"].is_object() { front.get(path).await.0 } else { front.post(path, json!({})).await.0 };
        assert_eq!(status, 401, "{path}");
        guarded += 1;
    }
    assert_eq!(guarded, 10);
    assert!(front.rooms.rooms().is_empty());
}

#[tokio::test]
async fn without_keys_loopback_is_open_and_any_other_address_closed() {
    let session = || json!({ "userIdentity": "anna" });
    assert_eq!(Front::start(&[]).await.post("/session", session()).await.0, 200);
    assert_eq!(Front::start_at("[::1]:8080", &[]).await.post("/session", session()).await.0, 200);
    assert_eq!(Front::start_at(PUBLIC, &[]).await.post("/session", session()).await.0, 401);
}

#[tokio::test]
async fn a_frontend_in_a_loop_is_told_when_to_come_again() {
    let front = Front::start(&[("VOICED_HTTP__ROOMS_PER_MINUTE", "3")]).await;
    assert_eq!(front.post("/session", json!({ "userIdentity": "a b" })).await.0, 400, "what is refused does not count");
    assert_eq!(front.post("/session", json!({ "userIdentity": "anna" })).await.0, 200);
    assert_eq!(front.post("/room/create", json!({ "roomName": "team", "hostIdentity": "anna" })).await.0, 200);
    assert_eq!(front.post("/room/team/agent", json!({ "enable": true })).await.0, 200);
    let refused = front.request("/session", &json!({ "userIdentity": "anna" })).send().await.unwrap();
    let wait_s: u64 = refused.headers()["Retry-After"].to_str().unwrap().parse().unwrap();
    assert_eq!(refused.status(), 429);
    assert!((1..=60).contains(&wait_s), "{wait_s}");
    assert_eq!(front.rooms.rooms().len(), 2);
    assert_eq!(front.post("/room/join", json!({ "roomName": "team", "participantIdentity": "bob" })).await.0, 200, "joining costs nothing");
}

#[tokio::test]
async fn a_forged_webhook_does_nothing() {
    let front = Front::start(&[]).await;
    let told = front.telephone("call-1", "sip_1");
    let forged = front.request("/telephony/livekit-webhook", &told).header("Authorization", "forged");
    assert_eq!(answer(forged).await.0, 401);
    assert_eq!(answer(front.request("/telephony/livekit-webhook", &told)).await.0, 401);
    assert_eq!(front.get("/telephony/calls/by-room/call-1").await.0, 404);
}

#[tokio::test]
async fn one_source_in_a_loop_leaves_room_for_others() {
    let front = Front::start(&[("VOICED_HTTP__API_KEYS", KEY), ("VOICED_HTTP__ROOMS_PER_MINUTE_PER_SOURCE", "1")]).await;
    let session = async |source: &str| {
        let request = front.request("/session", &json!({ "userIdentity": "anna" })).header("X-API-Key", KEY);
        request.header("X-Forwarded-For", source).send().await.unwrap().status().as_u16()
    };
    assert_eq!([session("203.0.113.5").await, session("203.0.113.5").await, session("203.0.113.6").await], [200, 429, 200]);
}

#[tokio::test]
async fn only_pages_of_the_named_origins_may_call() {
    let front = Front::start(&[("VOICED_HTTP__CORS_ORIGINS", "https://app.example.test"), ("VOICED_HTTP__API_KEYS", KEY)]).await;
    let url = front.request("/session", &Value::Null).build().unwrap().url().clone();
    let allowed = async |origin: &str| {
        let asked = front.client.request(reqwest::Method::OPTIONS, url.clone()).header("Origin", origin).header("Access-Control-Request-Method", "POST");
        let response = asked.header("Access-Control-Request-Headers", "content-type,x-api-key").send().await.unwrap();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        (header("access-control-allow-origin"), header("access-control-allow-headers").contains("x-api-key"))
    };
    assert_eq!(allowed("https://app.example.test").await, ("https://app.example.test".to_owned(), true));
    assert_eq!(allowed("https://evil.example.test").await.0, "");
    // refusals too are for the page to read
    let refused = front.request("/session", &json!({})).header("Origin", "https://app.example.test").send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("access-control-allow-origin")), (401, true));
}

#[tokio::test]
async fn without_livekit_every_route_says_what_to_set() {
    let url = serve(PUBLIC, &[("LIVEKIT_URL", "wss://rooms.example.test")], None).await;
    let client = reqwest::Client::new();
    for path in ["/session", "/session/end", "/room/create", "/room/join", "/room/x/agent", "/room/x/supervisor", "/telephony/livekit-webhook"] {
        let (status, refusal) = answer(client.post(format!("{url}{path}")).json(&json!({}))).await;
        assert_eq!((status, refusal["error"]["reason"].as_str()), (503, Some("LiveKit is not configured: set LIVEKIT_API_KEY, LIVEKIT_API_SECRET")), "{path}");
    }
}

#[tokio::test]
async fn the_document_has_every_route_and_its_errors() {
    let document = Front::start(&[]).await.get("/openapi.json").await.1;
    let paths: Vec<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "/calls",
        "/calls/{id}",
        "/events",
        "/health",
        "/metrics",
        "/room/create",
        "/room/join",
        "/room/{name}/agent",
        "/room/{name}/recording",
        "/room/{name}/supervisor",
        "/session",
        "/session/end",
        "/sessions",
        "/sessions/{id}",
        "/telephony/calls/by-room/{roomName}",
        "/telephony/calls/{callId}",
        "/telephony/livekit-webhook",
        "/twilio/status",
        "/twilio/stream/{call_sid}",
        "/twilio/voice",
    ];
    let mut sorted = paths.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    let session = &document["paths"]["/session"]["post"];
    assert_eq!(session["responses"]["400"]["content"]["application/json"]["schema"]["$ref"], "#/components/schemas/ErrorBody");
    assert!(session["security"].as_array().is_some_and(|schemes| schemes.len() == 2));
    assert!(session["responses"]["504"].is_object());
    let required = |body: &str| document["components"]["schemas"][body]["required"].clone();
    assert_eq!((required("SessionRequest"), required("EndRequest")), (json!(["userIdentity"]), json!(["roomName"])));
    assert_eq!((required("CreateRequest"), required("JoinRequest")), (json!(["roomName", "hostIdentity"]), json!(["roomName", "participantIdentity"])));
    assert_eq!((required("AgentRequest"), required("RecordingRequest")), (json!(["enable"]), json!(["enable"])));
    assert_eq!(required("SupervisorRequest"), json!(["identity", "mode"]));
    let text = document.to_string();
    let missing: Vec<_> = text
        .split("#/components/schemas/")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter(|name| document["components"]["schemas"][name].is_null())
        .collect();
    assert!(missing.is_empty(), "schemas that are named and not there: {missing:?}");
}
