//! Who floods, dribbles, sends too much or asks for what is not theirs is turned away, and others are answered meanwhile.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use voiced_lab::providers::Script;

use crate::host::{AUTH_TOKEN, Host};
use crate::stranger::{Stream, parameters, post};
use crate::{PATIENCE, story, until};

/// Sends these bytes and reads until the daemon closes.
async fn raw(host: &Host, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(host.address()).await.expect("a connection");
    let _ = stream.write_all(bytes).await; // it may close before all is sent
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the daemon never closes");
    String::from_utf8_lossy(&answer).into_owned()
}

/// An address of this machine that is not loopback, if it has one.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?; // sends nothing
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_loopback())
}

#[tokio::test]
async fn requests_that_dribble_in_are_cut_off() {
    let host = Host::start(
        Script::default(),
        &[("VOICED_SERVER__HEADER_TIMEOUT_S", "1"), ("VOICED_SERVER__BODY_TIMEOUT_S", "1"), ("VOICED_SERVER__KEEP_ALIVE_S", "2")],
    )
    .await;
    let silent = raw(&host, b"");
    let headless = raw(&host, b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    let bodiless = raw(&host, b"POST /twilio/voice HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nCallSid");
    let second = raw(&host, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HT");
    let (silent, headless, bodiless, second) = tokio::join!(silent, headless, bodiless, second);
    assert_eq!((silent.as_str(), headless.as_str()), ("", ""));
    assert!(bodiless.starts_with("HTTP/1.1 408"), "{bodiless}");
    assert_eq!(second.matches("HTTP/1.1 200").count(), 1, "{second}");
    assert_eq!(host.metric("voiced_connections_refused_total{why=\"slow\"}").await, 2);
}

#[tokio::test]
async fn who_never_reads_the_answers_is_cut_off() {
    let host = Host::start(Script::default(), &[("VOICED_SERVER__BODY_TIMEOUT_S", "1")]).await;
    let mut stream = TcpStream::connect(host.address()).await.expect("a connection");
    // more answers than any socket buffers; the daemon stops reading before it has made all of them
    let asking = async { while stream.write_all(&b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100)).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, asking).await.expect("the daemon never closes");
    assert_eq!(host.get("/health").await.0, 200);
    until("its place is free", async || host.metric("voiced_connections").await == 1).await;
}

#[tokio::test]
async fn heads_and_bodies_that_are_too_large_are_refused() {
    let host = Host::start(Script::default(), &[]).await;
    let line = format!("GET /health?{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(20_000));
    let header = format!("GET /health HTTP/1.1\r\nHost: x\r\nCookie: {}\r\n\r\n", "x".repeat(20_000));
    let headers = format!("GET /health HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(200));
    for (head, refusals) in [(line, ["414", "431"]), (header, ["431"; 2]), (headers, ["431"; 2])] {
        let answer = raw(&host, head.as_bytes()).await;
        assert!(refusals.iter().any(|status| answer.starts_with(&format!("HTTP/1.1 {status}"))), "{answer}");
    }
    let long = "x".repeat(70_000);
    assert_eq!(post(&host, "/twilio/voice", &[("CallSid", "CA1"), ("From", &long)], AUTH_TOKEN).await.0, 413);
    assert_eq!(host.get("/health").await.0, 200);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_until_others_end_and_a_flood_of_one_source_leaves_room_for_others() {
    let host = Host::start(Script::default(), &[("VOICED_SERVER__CONNECTIONS_MAX", "16")]).await;
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(TcpStream::connect(host.address()).await.expect("a connection"));
    }
    assert_eq!(raw(&host, b"").await, "");
    drop(held.split_off(8));
    until("a place is free", async || host.get("/health").await.0 == 200).await;
    assert!(host.metric("voiced_connections_refused_total{why=\"total\"}").await >= 1);
    drop(held);

    let Some(own) = own_address() else { return eprintln!("skipped: this machine has no address but loopback") };
    let host = Host::start(Script::default(), &[("VOICED_SERVER__BIND", "0.0.0.0"), ("VOICED_SERVER__CONNECTIONS_PER_SOURCE_MAX", "4")]).await;
    let port = host.address().rsplit(':').next().expect("a port").to_owned();
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(TcpStream::connect(format!("{own}:{port}")).await.expect("a connection"));
    }
    let read = held.pop().expect("five").read(&mut [0; 1]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "the fifth is closed");
    assert_eq!(host.get("/health").await.0, 200, "others are answered");
    assert_eq!(host.metric("voiced_connections_refused_total{why=\"source\"}").await, 1);
}

#[tokio::test]
async fn a_flood_of_messages_ends_its_stream_and_no_other() {
    let host = Host::start(Script::default(), &[]).await;
    let mut other = Stream::start(&host, "CA2", &parameters(&host, "CA2").await).await;
    let mut flood = Stream::start(&host, "CA1", &parameters(&host, "CA1").await).await;
    assert!(flood.hears().await, "the greeting");
    let deep = format!(r#"{{"event":"mark","mark":{}"#, "[".repeat(30_000));
    flood.send_text(deep).await; // no stack is big enough for it
    let media = json!({"event": "media", "media": {"track": "inbound", "payload": "/////w=="}}).to_string();
    for _ in 0..5_000 {
        flood.send_text(media.clone()).await;
    }
    assert!(flood.ends().await);
    until("the call is gone", async || host.get("/sessions/phone-CA1").await.0 == 404).await;
    story::of(&host, "CA1").await;
    assert_eq!(host.metric("voiced_twilio_total{what=\"cut_off\"}").await, 1);
    assert!(other.hears().await, "the greeting of the other call");
    other.send(&json!({"event": "stop"})).await;
    story::of(&host, "CA2").await;
}

#[tokio::test]
async fn compression_is_never_agreed_to_and_a_compressed_message_ends_its_socket() {
    let host = Host::start(Script::default(), &[]).await;
    let mut request = format!("ws://{}/events", host.address()).into_client_request().expect("a request");
    request.headers_mut().insert("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits".parse().expect("a header"));
    let (mut socket, answer) = tokio_tungstenite::connect_async(request).await.expect("an upgrade");
    assert!(answer.headers().get("sec-websocket-extensions").is_none(), "{answer:?}");
    let mut bomb = Frame::message(vec![0_u8; 64], OpCode::Data(Data::Binary), true);
    bomb.header_mut().rsv1 = true;
    let _ = socket.send(Message::Frame(bomb)).await;
    let end = tokio::time::timeout(PATIENCE, socket.next()).await.expect("the socket stays open");
    assert!(matches!(end, None | Some(Ok(Message::Close(_)) | Err(_))), "{end:?}");
}

#[tokio::test]
async fn what_tells_of_calls_is_for_programs_on_this_machine_or_who_has_the_key() {
    let open = Host::start(Script::default(), &[("VOICED_SERVER__BIND", "0.0.0.0"), ("VOICED_SERVER__METRICS_BIND", "127.0.0.1:0")]).await;
    let guarded = Host::start(Script::default(), &[("VOICED_SERVER__API_KEY", "key-of-the-operator")]).await;
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().expect("a client");
    let status = async |request: reqwest::RequestBuilder| request.send().await.expect("an answer").status().as_u16();
    for path in ["/sessions", "/sessions/x", "/events", "/calls", "/calls/x"] {
        assert_eq!(status(client.get(open.url(path)).header("X-Forwarded-For", "203.0.113.5")).await, 401, "{path} through a proxy");
        assert_eq!(status(client.get(open.url(path)).header("Host", "rebound.example.test")).await, 401, "{path} by another name");
        assert_eq!(status(client.get(guarded.url(path))).await, 401, "{path} without the key");
        assert_ne!(status(client.get(guarded.url(path)).bearer_auth("key-of-the-operator")).await, 401, "{path} with it");
        if let Some(own) = own_address() {
            let port = open.address().rsplit(':').next().expect("a port");
            assert_eq!(status(client.get(format!("http://{own}:{port}{path}"))).await, 401, "{path} from elsewhere");
        }
    }
    assert_eq!(status(client.get(guarded.url("/metrics"))).await, 401);
    assert_eq!(status(client.get(open.url("/metrics"))).await, 404, "it has an address of its own");
    let metrics = format!("http://{}", open.metrics_address());
    assert_eq!(status(client.get(format!("{metrics}/metrics"))).await, 200);
    assert_eq!(status(client.get(format!("{metrics}/sessions"))).await, 404);
}

/// What strangers may ask: the host's health, and what is signed by who sends it, as other tests hold.
const OPEN: [&str; 5] = ["/health", "/telephony/livekit-webhook", "/twilio/voice", "/twilio/status", "/twilio/stream/{call_sid}"];

#[tokio::test]
async fn every_route_that_is_not_for_strangers_wants_its_own_key() {
    let livekit = [("LIVEKIT_URL", "ws://127.0.0.1:9"), ("LIVEKIT_API_KEY", "APIname"), ("LIVEKIT_API_SECRET", "a-secret-of-32-bytes-and-then-more")];
    let keys = [("VOICED_SERVER__API_KEY", "key-of-the-operator"), ("VOICED_HTTP__API_KEYS", "key-of-the-frontend")];
    let host = Host::start(Script::default(), &[&livekit[..], &keys[..]].concat()).await;
    let document: Value = serde_json::from_str(&host.get("/openapi.json").await.1).expect("the document of all routes");
    let client = reqwest::Client::new();
    let mut guarded = 0;
    for (path, methods) in document["paths"].as_object().expect("paths").iter().filter(|(path, _)| !OPEN.contains(&path.as_str())) {
        for method in methods.as_object().expect("methods").keys() {
            let request = || client.request(method.to_uppercase().parse().expect("a method"), host.url(path));
            // the operator's key opens nothing that costs money, and the frontend's none of callers' words
            let wrong = if methods[method]["security"][0].get("operatorKey").is_some() { "key-of-the-frontend" } else { "key-of-the-operator" };
            for (request, with) in [(request(), "no key"), (request().bearer_auth(wrong), wrong)] {
                assert_eq!(request.send().await.expect("an answer").status(), 401, "{method} {path} with {with}");
            }
            guarded += 1;
        }
    }
    assert!(guarded >= 15, "{guarded} routes are told of");
}
