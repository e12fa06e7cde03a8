//! A server's `/agent`, as much of it as it takes to misbehave.

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use livekit_protocol as proto;
use prost::Message as _;
use proto::server_message::Message as ToWorker;
use proto::worker_message::Message as FromWorker;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::sync::broadcast;
use url::Url;

/// Answers registrations, notes what it hears, and says what the test wants said.
pub struct Double {
    address: SocketAddr,
    shared: Shared,
}

#[derive(Clone)]
struct Shared {
    heard: Arc<Mutex<Vec<String>>>,
    says: broadcast::Sender<Say>,
}

#[derive(Clone)]
enum Say {
    Frame(Message),
    HangUp,
}

impl Double {
    pub async fn start() -> Self {
        let shared = Shared { heard: Arc::default(), says: broadcast::channel(16).0 };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/agent", get(upgrade)).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shared }
    }

    pub fn url(&self) -> Url {
        format!("http://{}", self.address).parse().unwrap()
    }

    pub fn offer(&self, job_id: &str) {
        self.say(ToWorker::Availability(proto::AvailabilityRequest { job: Some(job(job_id)), resuming: false }));
    }

    pub fn assign(&self, job_id: &str) {
        self.say(ToWorker::Assignment(proto::JobAssignment { job: Some(job(job_id)), url: None, token: "token".to_owned() }));
    }

    /// Bytes that are no message, and text.
    pub fn send_garbage(&self) {
        let _ = self.shared.says.send(Say::Frame(Message::Binary(vec![0xff; 64].into())));
        let _ = self.shared.says.send(Say::Frame(Message::Text("hello".into())));
    }

    /// Drops the connection without a close frame.
    pub fn hang_up(&self) {
        let _ = self.shared.says.send(Say::HangUp);
    }

    pub fn heard(&self, words: &str) -> bool {
        self.heard_times(words) > 0
    }

    pub fn heard_times(&self, words: &str) -> usize {
        self.shared.heard.lock().unwrap().iter().filter(|heard| *heard == words).count()
    }

    /// Whether this is the last of what it heard.
    pub fn heard_last(&self, words: &str) -> bool {
        self.shared.heard.lock().unwrap().last().is_some_and(|heard| heard == words)
    }

    fn say(&self, message: ToWorker) {
        let _ = self.shared.says.send(Say::Frame(frame(message)));
    }
}

fn job(id: &str) -> proto::Job {
    let room = proto::Room { name: format!("room-of-{id}"), ..Default::default() };
    proto::Job { id: id.to_owned(), room: Some(room), ..Default::default() }
}

fn frame(message: ToWorker) -> Message {
    Message::Binary(proto::ServerMessage { message: Some(message) }.encode_to_vec().into())
}

async fn upgrade(State(shared): State<Shared>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|socket| serve(shared, socket))
}

async fn serve(shared: Shared, mut socket: WebSocket) {
    let mut says = shared.says.subscribe();
    loop {
        tokio::select! {
            said = says.recv() => match said {
                Ok(Say::Frame(frame)) => drop(socket.send(frame).await),
                Ok(Say::HangUp) | Err(_) => return,
            },
            message = socket.recv() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    let Some(message) = proto::WorkerMessage::decode(bytes).unwrap().message else { continue };
                    if matches!(message, FromWorker::Register(_)) {
                        let welcome = proto::RegisterWorkerResponse { worker_id: "AW_double".to_owned(), ..Default::default() };
                        drop(socket.send(frame(ToWorker::Register(welcome))).await);
                    }
                    shared.heard.lock().unwrap().push(words(&message));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
}

fn words(message: &FromWorker) -> String {
    match message {
        FromWorker::Register(request) => format!("register {}", request.agent_name),
        FromWorker::Availability(answer) => format!("{} {}", if answer.available { "yes" } else { "no" }, answer.job_id),
        FromWorker::UpdateWorker(status) if status.status == Some(proto::WorkerStatus::WsFull as i32) => "full".to_owned(),
        FromWorker::UpdateWorker(_) => "available".to_owned(),
        FromWorker::UpdateJob(update) => {
            let status = proto::JobStatus::try_from(update.status).map_or("?", |status| match status {
                proto::JobStatus::JsRunning => "running",
                proto::JobStatus::JsSuccess => "success",
                proto::JobStatus::JsFailed => "failed",
                proto::JobStatus::JsPending => "pending",
            });
            format!("{status} {} {}", update.job_id, update.error).trim_end().to_owned()
        }
        other => format!("{other:?}"),
    }
}
