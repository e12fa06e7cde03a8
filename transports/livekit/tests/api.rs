//! The server's API and its webhooks against a real server.

mod server;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use server::{API_SECRET, Server, keys, until};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use voiced_livekit::api::{ApiFailure, DispatchOnce, Dispatched, ServerApi};
use voiced_livekit::token::{AgentDispatch, Keys};
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
    assert!(matches!(another_host.dispatch("call-1", &voiced()).await.unwrap(), Dispatched::Before(_)));
    api.delete_room("call-1").await.unwrap();
    once.forget("call-1");
    until("the room to be gone", async || api.room("call-1").await.unwrap().is_none()).await;
    assert!(matches!(once.dispatch("call-1", &voiced()).await.unwrap(), Dispatched::Now(_)), "a new room of that name has its own agent");
}

#[tokio::test]
async fn errors_say_what_was_asked_of_whom_and_no_secret() {
    let nothing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let api = ServerApi::new(&format!("wss://user:password@{nothing}").parse().unwrap(), &keys());
    let error = api.create_dispatch("room-1", &voiced()).await.unwrap_err();
    assert_eq!(error.failure, ApiFailure::Unreachable);
    assert_eq!(
        error.to_string(),
        format!("could not dispatch an agent to the room \"room-1\" at wss://{nothing}: the server cannot be reached: check LIVEKIT_URL")
    );
    let Some(server) = Server::start(None).await else { return };
    let wrong = ServerApi::new(&server.url(), &Keys::new("devkey", "not-the-secret-of-this-server-at-all"));
    let text = wrong.delete_room("room-1").await.unwrap_err().to_string();
    assert!(text.contains("LIVEKIT_API_SECRET") && !text.contains("not-the-secret"), "{text}");
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
    let receiver = WebhookReceiver::new(&keys());
    let mut kinds = Vec::new();
    for (headers, body) in &posts {
        assert_eq!(headers["content-type"], WEBHOOK_CONTENT_TYPE);
        let token = headers["authorization"].to_str().unwrap();
        let mut altered = body.to_vec();
        altered.push(b' ');
        assert_eq!(receiver.receive(Some(token), &altered), Err(WebhookError::Altered));
        assert_eq!(WebhookReceiver::new(&Keys::new("other", API_SECRET)).receive(Some(token), body), Err(WebhookError::Forged));
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
