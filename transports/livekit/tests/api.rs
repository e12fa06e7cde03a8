//! The server's API and its webhooks against a real server.

mod server;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use livekit_protocol::{AudioMixing, EgressInfo, EgressStatus, EncodedFileType, RoomCompositeEgressRequest, StopEgressRequest, encoded_file_output};
use prost::Message;
use server::{Server, made_up_keys, until};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use voiced_livekit::api::{ApiFailure, DispatchOnce, Dispatched, Egress, EgressFile, EgressState, S3Bucket, ServerApi};
use voiced_livekit::token::{AgentDispatch, Keys, Secret};
use voiced_livekit::webhook::{Received, WEBHOOK_CONTENT_TYPE, WebhookError, WebhookKind, WebhookReceiver};

fn voiced() -> AgentDispatch {
    AgentDispatch { agent_name: "voiced".to_owned(), metadata: "{}".to_owned() }
}

/// Our agent's dispatches; a room made by hand has one for agents without a name too.
async fn dispatches(api: &ServerApi, room: &str) -> Vec<String> {
    let all = api.list_dispatch(room).await.unwrap();
    all.into_iter().filter(|dispatch| dispatch.agent_name == "voiced").map(|dispatch| dispatch.id).collect()
}

#[tokio::test]
async fn rooms_are_made_looked_into_and_ended() {
    let Some(server) = Server::start(None).await else { return };
    let api = server.api();
    assert_eq!(api.room("room-1").await.unwrap(), None);
    let room = api.create_room("room-1", Duration::from_mins(1), &[voiced()]).await.unwrap();
    assert_eq!((room.name.as_str(), room.empty_timeout), ("room-1", 60));
    assert_eq!(api.room("room-1").await.unwrap().unwrap().sid, room.sid);
    assert!(api.list_participants("room-1").await.unwrap().is_empty());
    let [dispatch_id] = dispatches(&api, "room-1").await.try_into().unwrap();
    api.delete_dispatch("room-1", &dispatch_id).await.unwrap();
    assert!(dispatches(&api, "room-1").await.is_empty());
    assert!(api.remove_participant("room-1", "nobody").await.unwrap_err().is_not_found());
    api.delete_room("room-1").await.unwrap();
    let error = api.delete_room("room-1").await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(error.to_string().starts_with("could not delete the room \"room-1\" at ws://127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn twenty_triggers_at_once_send_one_agent() {
    let Some(server) = Server::start(None).await else { return };
    let api = Arc::new(server.api());
    api.create_room("call-1", Duration::from_mins(1), &[]).await.unwrap();
    let once = Arc::new(DispatchOnce::new(Arc::clone(&api)));
    let asked = (0..20).map(|_| {
        let once = Arc::clone(&once);
        tokio::spawn(async move { once.dispatch("call-1", &voiced()).await.unwrap() })
    });
    let mut new = 0;
    for dispatched in asked.collect::<Vec<_>>() {
        new += usize::from(matches!(dispatched.await.unwrap(), Dispatched::Now(_)));
    }
    assert_eq!((new, dispatches(&api, "call-1").await.len()), (1, 1));
    let another_host = DispatchOnce::new(Arc::clone(&api));
    let Dispatched::Before(sent) = another_host.dispatch("call-1", &voiced()).await.unwrap() else { panic!("a second agent") };
    another_host.over("call-1", &sent).await.unwrap();
    assert!(matches!(once.dispatch("call-1", &voiced()).await.unwrap(), Dispatched::Now(_)), "the first is over, wherever it was");
    assert_eq!(dispatches(&api, "call-1").await.len(), 1);
    api.delete_room("call-1").await.unwrap();
    until("the room to be gone", async || api.room("call-1").await.unwrap().is_none()).await;
    assert!(matches!(once.dispatch("call-1", &voiced()).await.unwrap(), Dispatched::Now(_)), "a new room of that name has its own agent");
}

#[tokio::test]
async fn errors_say_what_was_asked_of_whom_and_no_secret() {
    let nothing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let api = ServerApi::new(&format!("wss://user:password@{nothing}").parse().unwrap(), &made_up_keys());
    let error = api.create_dispatch("room-1", &voiced()).await.unwrap_err();
    assert_eq!(error.failure, ApiFailure::Unreachable);
    assert_eq!(
        error.to_string(),
        format!("could not dispatch an agent to the room \"room-1\" at wss://{nothing}: the server cannot be reached: check LIVEKIT_URL")
    );
    let Some(server) = Server::start(None).await else { return };
    let wrong = ServerApi::new(&server.url(), &Keys::new(server.0.api_key(), "not-the-secret-of-this-server-at-all"));
    let text = wrong.delete_room("room-1").await.unwrap_err().to_string();
    assert!(text.contains("LIVEKIT_API_SECRET") && !text.contains("not-the-secret"), "{text}");
}

#[tokio::test]
async fn a_recording_is_asked_for_as_the_egress_service_expects_it() {
    let asked: Arc<Mutex<Vec<RoomCompositeEgressRequest>>> = Arc::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: url::Url = format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap();
    let start = |State(asked): State<Arc<Mutex<Vec<RoomCompositeEgressRequest>>>>, body: Bytes| async move {
        asked.lock().unwrap().push(RoomCompositeEgressRequest::decode(body).unwrap());
        EgressInfo { egress_id: "EG_1".to_owned(), ..Default::default() }.encode_to_vec()
    };
    let stop = |body: Bytes| async move {
        match StopEgressRequest::decode(body).unwrap().egress_id.as_str() {
            "EG_1" => Ok(EgressInfo { egress_id: "EG_1".to_owned(), status: EgressStatus::EgressEnding as i32, ..Default::default() }.encode_to_vec()),
            "EG_2" => Err((StatusCode::PRECONDITION_FAILED, r#"{"code":"failed_precondition","msg":"egress with status EGRESS_COMPLETE cannot be stopped"}"#)),
            _ => Err((StatusCode::NOT_FOUND, r#"{"code":"not_found","msg":"no such egress"}"#)),
        }
    };
    let router = Router::new()
        .route("/twirp/livekit.Egress/StartRoomCompositeEgress", post(start))
        .route("/twirp/livekit.Egress/StopEgress", post(stop))
        .with_state(Arc::clone(&asked));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let api = ServerApi::new(&url, &made_up_keys());
    let bucket = S3Bucket {
        name: "calls".to_owned(),
        region: "eu-west-1".to_owned(),
        endpoint: Some("http://127.0.0.1:9000".to_owned()),
        access_key: "AKIA".to_owned(),
        secret: Secret::new("hush"),
    };
    let file = EgressFile { path: "2026/room-1.ogg".to_owned(), bucket: Some(bucket) };
    assert!(!format!("{file:?}").contains("hush"));
    let started = api.start_egress("room-1", &file).await.unwrap();
    assert_eq!(started, Egress { id: "EG_1".to_owned(), state: EgressState::Starting, error: String::new() });
    api.start_egress("room-1", &EgressFile { path: "/recordings/room-1.mp3".to_owned(), bucket: None }).await.unwrap();
    assert_eq!(api.stop_egress("room-1", "EG_1").await.unwrap().state, EgressState::Ending);
    for over_or_unknown in ["EG_2", "EG_3"] {
        assert!(api.stop_egress("room-1", over_or_unknown).await.unwrap_err().is_not_found());
    }

    let asked = asked.lock().unwrap();
    assert!(asked.iter().all(|asked| asked.room_name == "room-1" && asked.audio_only && asked.audio_mixing() == AudioMixing::DualChannelAgent));
    let [in_bucket, on_disk] = [0, 1].map(|index: usize| asked[index].file_outputs[0].clone());
    assert_eq!((in_bucket.filepath.as_str(), in_bucket.file_type()), ("2026/room-1.ogg", EncodedFileType::Ogg));
    let Some(encoded_file_output::Output::S3(s3)) = in_bucket.output else { panic!("no bucket") };
    assert_eq!((s3.bucket.as_str(), s3.secret.as_str(), s3.force_path_style), ("calls", "hush", true));
    assert_eq!((on_disk.file_type(), on_disk.output), (EncodedFileType::Mp3, None));
}

type Post = (HeaderMap, Bytes);

#[tokio::test]
async fn the_servers_webhooks_are_believed_and_altered_ones_are_not() {
    let posts: Arc<Mutex<Vec<Post>>> = Arc::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/telephony/livekit-webhook", listener.local_addr().unwrap());
    let router = Router::new().route("/telephony/livekit-webhook", post(note)).with_state(Arc::clone(&posts));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let Some(server) = Server::start(Some(&url)).await else { return };
    let room = server.api().create_room("room-1", Duration::from_mins(1), &[]).await.unwrap();
    server.api().delete_room("room-1").await.unwrap();
    until("two webhooks", async || posts.lock().unwrap().len() >= 2).await;
    let posts = posts.lock().unwrap().clone();
    let receiver = WebhookReceiver::new(&server.keys());
    let mut kinds = Vec::new();
    for (headers, body) in &posts {
        assert_eq!(headers["content-type"], WEBHOOK_CONTENT_TYPE);
        let token = headers["authorization"].to_str().unwrap();
        let mut altered = body.to_vec();
        altered.push(b' ');
        assert_eq!(receiver.receive(Some(token), &altered), Err(WebhookError::Altered));
        assert_eq!(WebhookReceiver::new(&Keys::new("other", server.0.api_secret())).receive(Some(token), body), Err(WebhookError::Forged));
        let Ok(Received::News(event)) = receiver.receive(Some(token), body) else { panic!("{body:?}") };
        assert_eq!(event.room.unwrap().sid, room.sid);
        assert!(event.created_at > 0 && !event.id.is_empty());
        kinds.push(event.kind);
        assert_eq!(receiver.receive(Some(token), body), Ok(Received::Again));
    }
    assert_eq!(kinds, [WebhookKind::RoomStarted, WebhookKind::RoomFinished]);
}

async fn note(State(posts): State<Arc<Mutex<Vec<Post>>>>, headers: HeaderMap, body: Bytes) {
    posts.lock().unwrap().push((headers, body));
}
