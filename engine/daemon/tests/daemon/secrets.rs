//! No key is ever written: a daemon with marked keys goes through a good call and a bad one, in which whoever it talks to
//! repeats its keys to it, at the most talkative log; then everything that it wrote or answered is searched.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use voiced_lab::phone::Step;
use voiced_lab::providers::{Answer, Script};

use crate::caller::{call, conversation, listen, say, script};
use crate::host::{AUTH_TOKEN, EMA_SECRET, Host};
use crate::stranger::{parameters, post};
use crate::{story, until};

/// In every key, so that one search finds any.
const MARK: &str = "marked0key";
/// Variables and their keys; Twilio's and EMA's are the host's own.
const KEYS: [(&str, &str); 11] = [
    ("DEEPGRAM_API_KEY", "marked0key-deepgram"),
    ("OPENAI_API_KEY", "marked0key-openai"),
    ("CARTESIA_API_KEY", "marked0key-cartesia"),
    ("LIVEKIT_API_SECRET", "marked0key-livekit-of-32-bytes-and-more"),
    ("LIVEKIT_WEBHOOK_API_SECRET", "marked0key-webhooks-of-32-bytes-and-more"),
    ("VOICED_LIVEKIT__EGRESS_SECRET", "marked0key-bucket"),
    ("VOICED_HTTP__API_KEYS", "marked0key-of-the-frontend"),
    ("VOICED_HTTP__JWT_SECRET", "marked0key-jwt-of-32-bytes-and-more"),
    ("VOICED_SERVER__API_KEY", "marked0key-operator"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=marked0key-collector"),
    ("CRM_TOKEN", "marked0key-of-a-tool"),
];

/// Refuses everything and repeats every header of the request, as a careless provider does.
async fn parrot() -> String {
    let refuse = |headers: HeaderMap| async move {
        let repeated: Vec<_> = headers.values().filter_map(|value| value.to_str().ok()).collect();
        (StatusCode::UNPROCESSABLE_ENTITY, json!({ "error": { "message": repeated.join(" ") }, "success": false }).to_string())
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(refuse)).await });
    address.to_string()
}

#[tokio::test]
async fn no_key_is_in_anything_that_the_daemon_writes_or_answers() {
    let parrot = parrot().await;
    let (http, ws) = (format!("http://{parrot}"), format!("ws://{parrot}"));
    let tools = format!(r#"[{{ name = "book", description = "Books.", url = "{http}", headers = {{ Authorization = "Bearer ${{CRM_TOKEN}}" }} }}]"#);
    let of_parrot = [("OTEL_EXPORTER_OTLP_ENDPOINT", http.as_str()), ("VOICED_AGENT__TOOLS", &tools)];
    let other = [("VOICED_LOG", "trace"), ("LIVEKIT_URL", "ws://127.0.0.1:9"), ("LIVEKIT_API_KEY", "APIname"), ("LIVEKIT_WEBHOOK_API_KEY", "APIhooks")];
    let books = |request: &Value| if request["messages"].to_string().contains("HTTP 422") { Answer::text("I could not.") } else { Answer::call("book", "{}") };
    let mut host = Host::start(Script { agent: Arc::new(books), ..Script::default() }, &[&KEYS[..], &of_parrot[..], &other[..]].concat()).await;
    let mut answers = Vec::new();
    let events = listen_to_events(&host).await;
    let call_sid = call(&host.phone(), conversation(&["My kitchen sink is leaking."])).await.call_sid;
    until("the call is reported", async || story::taken(&host, &call_sid).iter().any(|event| event.body["event_type"] == "call_ended")).await;
    ask(&host, &call_sid, &mut answers).await;
    let told = &answers.iter().find(|(what, _)| what.contains("/calls/")).expect("the call's record").1;
    assert!(told.contains("tool call 0 failed") && told.contains("Bearer "), "the tool's key was not repeated: the test is void\n{told}");
    host.kill();

    host.set(&[("DEEPGRAM_BASE_URL", &http), ("OPENAI_BASE_URL", &http), ("CARTESIA_BASE_URL", &http), ("EMA_API_URL", &http), ("LIVEKIT_URL", &ws)]);
    host.restart().await;
    call(&host.phone(), script([listen(), say("My kitchen sink is leaking."), Step::Wait { ms: 1_000 }])).await;
    until("the receiver's refusal is stored", async || host.stored().iter().any(|entry| entry.reason.is_some())).await;
    ask(&host, &call_sid, &mut answers).await;
    for arguments in [&["check"][..], &["events", "list", "--all"], &["calls", "list"], &["calls", "show", &call_sid]] {
        let output = host.voiced(arguments);
        answers.push((arguments.concat(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))));
    }
    host.kill();

    let log = host.log();
    assert!(log.contains("(hidden)") && log.contains("TRACE"), "nobody repeated a key: the test is void\n{log}");
    let keys = [MARK, AUTH_TOKEN, EMA_SECRET];
    let hold = |text: &[u8]| keys.iter().find(|key| text.windows(key.len()).any(|part| part == key.as_bytes()));
    let events = events.lock().expect("no panic").concat();
    assert!(events.contains("call_initiated"), "nobody listened: the test is void");
    answers.push(("/events".to_owned(), events));
    for (what, text) in &answers {
        assert_eq!(hold(text.as_bytes()), None, "{what}: {text}");
    }
    for (file, bytes) in host.files() {
        let lines: Vec<_> = bytes.split(|byte| *byte == b'\n').filter(|line| hold(line).is_some()).map(String::from_utf8_lossy).take(5).collect();
        assert!(lines.is_empty(), "{}: {lines:#?}", file.display());
    }
}

/// What `/events` tells from now on.
async fn listen_to_events(host: &Host) -> Arc<Mutex<Vec<String>>> {
    let mut request = format!("ws://{}/events", host.address()).into_client_request().expect("a request");
    request.headers_mut().insert("Authorization", format!("Bearer {}", KEYS[8].1).parse().expect("a header"));
    let (mut socket, _) = connect_async(request).await.expect("an upgrade");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Some(Ok(message)) = socket.next().await {
            told.lock().expect("no panic").push(message.to_string());
        }
    });
    heard
}

/// Asks for everything that the daemon answers, with the right keys and with wrong ones.
async fn ask(host: &Host, call_sid: &str, answers: &mut Vec<(String, String)>) {
    let client = reqwest::Client::new();
    let operator = KEYS[8].1;
    let record = format!("/calls/{call_sid}");
    for path in ["/health", "/metrics", "/sessions", "/events", "/calls", &record, "/openapi.json", "/nothing", "/telephony/calls/x"] {
        for request in [client.get(host.url(path)).bearer_auth(operator), client.get(host.url(path)).bearer_auth(format!("{operator}x"))] {
            answers.push((path.to_owned(), request.send().await.expect("an answer").text().await.expect("a text")));
        }
    }
    let front = |path: &str, body: Value| client.post(host.url(path)).header("X-API-Key", KEYS[6].1).json(&body);
    for request in [
        front("/session", json!({ "userIdentity": "anna" })),
        front("/session", json!({ "userIdentity": "anna", "agentConfig": { "stt": 7 } })),
        front("/room/join", json!({ "roomName": "room", "participantIdentity": "anna", "participantName": "Anna" })),
        client.post(host.url("/telephony/livekit-webhook")).bearer_auth("e30.e30.e30").json(&json!({})),
        client.post(host.url("/session")).bearer_auth("e30.e30.e30").json(&json!({})),
    ] {
        answers.push(("frontend".to_owned(), request.send().await.expect("an answer").text().await.expect("a text")));
    }
    answers.push(("TwiML".to_owned(), format!("{:?}", parameters(host, "CA77").await)));
    answers.push(("refused".to_owned(), post(host, "/twilio/voice", &[("CallSid", "CA78")], "another").await.1));
}
