//! Sessions and rooms.

use serde_json::{Value, json};
use voiced_livekit::job::{GREETING_BYTES_MAX, JobSettings, PROMPT_BYTES_MAX, TEXT_BYTES_MAX};

use super::double::{Front, answer};
use crate::http::rooms::{Grants, Kind, SupervisorMode};

#[tokio::test]
async fn a_session_gets_a_room_a_token_and_an_agent_made_as_asked() {
    let front = Front::start(&[]).await;
    let config = json!({ "stt": "deepgram/nova-3:de", "prompt": "Be brief.", "vad_enabled": "false", "unheard_of": 1 });
    let (status, reply) = front.post("/session", json!({ "userIdentity": "anna-1", "agentConfig": config })).await;
    assert_eq!(status, 200, "{reply}");
    let room = reply["roomName"].as_str().unwrap();
    assert!(room.strip_prefix("room-").is_some_and(|hex| hex.len() == 16 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())), "{room}");
    let expected = json!({
        "userToken": "token of anna-1",
        "roomName": room,
        "livekitUrl": "wss://rooms.example.test",
        "agentDispatched": true,
        "agentConfig": { "stt": "deepgram/nova-3:de", "tts": "local/piper", "llm": "local/script", "realtime": false },
    });
    assert_eq!(reply, expected);
    let metadata: Value = serde_json::from_str(&front.rooms.rooms()[room].dispatches[0]).unwrap();
    assert_eq!(metadata, json!({ "stt": "deepgram/nova-3:de", "prompt": "Be brief.", "vad_enabled": false }));
    let pass = front.rooms.passes.lock().unwrap()[0].clone();
    assert_eq!((pass.room.as_str(), pass.identity.as_str(), pass.grants), (room, "anna-1", Grants::Talk));
    assert_eq!(pass.agent_metadata.as_ref(), front.rooms.rooms()[room].dispatches.first());
}

#[tokio::test]
async fn a_session_accepts_texts_as_long_as_its_job_takes_and_no_longer() {
    let front = Front::start(&[]).await;
    for (key, bytes_max) in [("prompt", PROMPT_BYTES_MAX), ("greeting", GREETING_BYTES_MAX), ("realtime_voice", TEXT_BYTES_MAX)] {
        let session = |bytes: usize| json!({ "userIdentity": "anna", "roomName": key, "agentConfig": { key: "x".repeat(bytes) } });
        assert_eq!(front.post("/session", session(bytes_max + 1)).await.0, 400, "{key}");
        assert_eq!(front.post("/session", session(bytes_max)).await.0, 200, "{key}");
        let (job, warnings) = JobSettings::parse(&front.rooms.rooms()[key].dispatches[0]);
        assert!(warnings.is_empty() && job != JobSettings::default(), "{warnings:?}");
    }
}

#[tokio::test]
async fn a_session_ends_once_and_its_room_is_gone() {
    let front = Front::start(&[]).await;
    let (_, reply) = front.post("/session", json!({ "userIdentity": "anna", "roomName": "my_room" })).await;
    assert_eq!(reply["roomName"], "my_room");
    assert_eq!(front.post("/session/end", json!({ "roomName": "my_room" })).await.0, 204);
    assert!(front.rooms.rooms().is_empty());
    let (status, refusal) = front.post("/session/end", json!({ "roomName": "my_room" })).await;
    assert_eq!((status, &refusal["error"]["field"]), (404, &json!("roomName")));
}

#[tokio::test]
async fn what_is_wrong_is_named_by_its_field_before_anything_is_made() {
    let front = Front::start(&[]).await;
    let long = "x".repeat(129);
    let session = |config: Value| json!({ "userIdentity": "anna", "agentConfig": config });
    let wrong = [
        ("/session", json!({}), "userIdentity"),
        ("/session", json!({ "userIdentity": "anna b" }), "userIdentity"),
        ("/session", json!({ "userIdentity": 5 }), "userIdentity"),
        ("/session", json!({ "userIdentity": "anna", "roomName": long }), "roomName"),
        ("/session", json!({ "userIdentity": "anna", "roomName": "" }), "roomName"),
        ("/session", session(json!({ "stt": "deepgrm/nova-3" })), "agentConfig.stt"),
        ("/session", session(json!({ "tts": "cartesia/sonic-3" })), "agentConfig.tts"),
        ("/session", session(json!({ "llm": 5 })), "agentConfig.llm"),
        ("/session", session(json!({ "vad_enabled": "maybe" })), "agentConfig.vad_enabled"),
        ("/session", session(json!({ "noise_cancellation_type": "loud" })), "agentConfig.noise_cancellation_type"),
        ("/session", session(json!({ "prompt": "x".repeat(16_385) })), "agentConfig.prompt"),
        ("/session/end", json!({}), "roomName"),
        ("/room/create", json!({ "roomName": "r", "hostIdentity": "../etc" }), "hostIdentity"),
        ("/room/create", json!({ "roomName": "r", "hostIdentity": "host", "hostName": "a\nb" }), "hostName"),
        ("/room/join", json!({ "roomName": "r" }), "participantIdentity"),
        ("/room/a%20b/agent", json!({ "enable": true }), "name"),
        ("/room/r/agent", json!({}), "enable"),
        ("/room/r/recording", json!({ "enable": "yes" }), "enable"),
        ("/room/r/supervisor", json!({ "identity": "boss", "mode": "shout" }), "mode"),
    ];
    for (path, body, field) in wrong {
        let (status, refusal) = front.post(path, body.clone()).await;
        assert_eq!((status, &refusal["error"]["field"]), (400, &json!(field)), "{path} {body}: {refusal}");
        assert!(refusal["error"]["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    }
    assert!(front.rooms.rooms().is_empty());
}

#[tokio::test]
async fn bodies_that_are_no_json_or_too_long_are_refused() {
    let front = Front::start(&[]).await;
    let post = || front.request("/session", &Value::Null);
    let cut = answer(post().body("{\"userIdentity\": ")).await;
    assert_eq!((cut.0, &cut.1["error"]["field"]), (400, &json!("body")));
    let long = answer(post().body(format!("{{\"userIdentity\": \"{}\"}}", "x".repeat(70_000)))).await;
    assert_eq!((long.0, &long.1["error"]["field"]), (413, &json!("body")));
    // what a foreign web page can send to loopback without asking
    let plain = answer(front.client.post(post().build().unwrap().url().clone()).header("Content-Type", "text/plain").body("{\"userIdentity\":\"anna\"}")).await;
    assert_eq!((plain.0, &plain.1["error"]["field"]), (415, &json!("Content-Type")));
    assert!(front.rooms.rooms().is_empty());
}

#[tokio::test]
async fn a_host_makes_a_room_that_others_join_and_calls_the_agent_in_and_out() {
    let front = Front::start(&[("VOICED_HTTP__ROOM_URL", "https://meet.example.test/{room}?by=voice")]).await;
    let unknown = front.post("/room/join", json!({ "roomName": "team", "participantIdentity": "bob" })).await;
    assert_eq!((unknown.0, &unknown.1["error"]["field"]), (404, &json!("roomName")));

    let made = front.post("/room/create", json!({ "roomName": "team", "hostIdentity": "anna", "hostName": "Anna K." })).await;
    assert_eq!(made, (200, json!({ "roomName": "team", "roomUrl": "https://meet.example.test/team?by=voice", "token": "token of anna" })));
    let join = json!({ "roomName": "team", "participantIdentity": "bob", "participantName": "Bob" });
    assert_eq!(front.post("/room/join", join.clone()).await, (200, json!({ "token": "token of bob", "agentPresent": false })));
    let granted: Vec<_> = front.rooms.passes.lock().unwrap().iter().map(|pass| (pass.name.clone(), pass.grants)).collect();
    assert_eq!(granted, [("Anna K.".to_owned(), Grants::Host), ("Bob".to_owned(), Grants::Talk)]);

    assert_eq!(front.post("/room/nowhere/agent", json!({ "enable": true })).await.0, 404);
    let enabled = front.post("/room/team/agent", json!({ "enable": true, "agentConfig": { "greeting": "Hi." } })).await;
    assert_eq!(enabled, (200, json!({ "roomName": "team", "enabled": true })));
    assert_eq!(front.rooms.rooms()["team"].dispatches, ["{\"greeting\":\"Hi.\"}"]);
    front.rooms.enters("team", "agent-AJ_1", Kind::Agent);
    assert_eq!(front.post("/room/join", join.clone()).await.1["agentPresent"], true);
    let agents = json!({ "roomName": "team", "participantIdentity": "agent-AJ_1" });
    assert_eq!(front.post("/room/join", agents).await.0, 400, "the agent's identity would throw it out");

    assert_eq!(front.post("/room/team/agent", json!({ "enable": false })).await.1["enabled"], false);
    assert_eq!(front.post("/room/join", join).await.1["agentPresent"], false);
    assert_eq!(front.post("/room/team/agent", json!({ "enable": true })).await.0, 200);
    assert_eq!(front.rooms.dispatches("team"), 1, "the agent is called back");
}

#[tokio::test]
async fn calls_are_recorded_and_supervised_where_there_is_one() {
    let front = Front::start(&[]).await;
    front.rooms.enters("twilio-CA1", "boss", Kind::Standard);
    front.rooms.enters("team", "boss", Kind::Standard);
    assert_eq!(front.post("/room/team/recording", json!({ "enable": true })).await, (200, json!({ "roomName": "team", "enabled": true })));
    assert!(front.rooms.rooms()["team"].recorded);
    for (word, mode) in
        [("listen", SupervisorMode::Listen), ("whisper", SupervisorMode::Whisper), ("barge", SupervisorMode::Barge), ("takeover", SupervisorMode::Takeover)]
    {
        let asked = json!({ "identity": "boss", "mode": word });
        assert_eq!(front.post("/room/twilio-CA1/supervisor", asked.clone()).await, (200, asked));
        assert_eq!(front.rooms.rooms()["twilio-CA1"].supervised.last(), Some(&("boss".to_owned(), mode)));
    }
    assert_eq!(front.post("/room/team/supervisor", json!({ "identity": "boss", "mode": "barge" })).await.0, 409);
    assert_eq!(front.post("/room/nowhere/supervisor", json!({ "identity": "boss", "mode": "barge" })).await.0, 404);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_told_as_such() {
    let front = Front::start(&[]).await;
    *front.rooms.failures.lock().unwrap() = 1;
    let (status, refusal) = front.post("/session", json!({ "userIdentity": "anna" })).await;
    assert_eq!((status, &refusal["error"]["field"]), (502, &Value::Null));
    assert!(refusal["error"]["reason"].as_str().unwrap().contains("connection refused"));
}
