//! A proxy between a participant and a real livekit-server, for faults that the server cannot make.
//!
//! It reads every signal on its way. On order it refuses participants or keeps them waiting, breaks their sockets, says
//! things in the server's name or in theirs, and alters what the server says. Sound goes past it, over addresses that the
//! server names itself. What participants did is kept for the test to look at.

use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::{SinkExt, StreamExt};
use livekit_protocol::{SignalRequest, SignalResponse, signal_request, signal_response};
use prost::Message as _;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::AbortHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Error as WsError};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Orders on their way to the sockets; a test gives a handful.
const ORDERS_MAX: usize = 256;
/// Signals kept of each direction; a test's room says some hundred.
const SIGNALS_MAX: usize = 10_000;
/// How long a silent door is kept open: longer than any participant waits.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// Stands between participants and a server; gone when dropped.
pub struct SignalProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: AbortHandle,
}

/// What happens to who knocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Goes through to the server.
    Open,
    /// Is told this HTTP status, and to come back in a second.
    Refuse(u16),
    /// Goes through after so long.
    Slow(Duration),
    /// Is let in, and then told nothing.
    Silent,
}

/// A participant's knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// When.
    pub at: Instant,
    /// To go on with a stay, not to begin one.
    pub resume: bool,
}

/// Alters a signal of the server's, or swallows it.
type Alter = dyn Fn(signal_response::Message) -> Option<signal_response::Message> + Send + Sync;

struct Shared {
    server: String,
    door: Mutex<fn(&Visit) -> Door>,
    alter: Mutex<Option<Arc<Alter>>>,
    orders: broadcast::Sender<Order>,
    visits: Mutex<Vec<Visit>>,
    from_participants: Mutex<Vec<signal_request::Message>>,
    from_server: Mutex<Vec<signal_response::Message>>,
}

#[derive(Clone)]
enum Order {
    Cut,
    ToParticipants(Bytes),
    ToServer(Bytes),
}

impl SignalProxy {
    /// A proxy to the server at `server`, a `ws://` URL.
    pub async fn to(server: &str) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            server: server.trim_end_matches('/').to_owned(),
            door: Mutex::new(|_| Door::Open),
            alter: Mutex::default(),
            orders: broadcast::channel(ORDERS_MAX).0,
            visits: Mutex::default(),
            from_participants: Mutex::default(),
            from_server: Mutex::default(),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let router = Router::new().route("/rtc", get(enter)).route("/rtc/validate", get(validate)).with_state(shared.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await }).abort_handle();
        Ok(Self { address, shared, serving })
    }

    /// Where participants connect.
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// What happens to those who knock from now on.
    pub fn door(&self, door: fn(&Visit) -> Door) {
        *lock(&self.shared.door) = door;
    }

    /// Breaks every participant's socket, with no close frame.
    pub fn cut(&self) {
        self.order(Order::Cut);
    }

    /// Says something to every participant in the server's name.
    pub fn say(&self, message: signal_response::Message) {
        self.say_bytes(SignalResponse { message: Some(message) }.encode_to_vec());
    }

    /// Says bytes to every participant, whatever they mean.
    pub fn say_bytes(&self, bytes: Vec<u8>) {
        self.order(Order::ToParticipants(bytes.into()));
    }

    /// Says something to the server in the name of every participant.
    pub fn say_to_server(&self, message: signal_request::Message) {
        self.order(Order::ToServer(SignalRequest { message: Some(message) }.encode_to_vec().into()));
    }

    /// Lets `alter` change or swallow what the server says from now on, in place of an earlier one.
    pub fn alter(&self, alter: impl Fn(signal_response::Message) -> Option<signal_response::Message> + Send + Sync + 'static) {
        *lock(&self.shared.alter) = Some(Arc::new(alter));
    }

    /// Who has knocked so far.
    pub fn visits(&self) -> Vec<Visit> {
        lock(&self.shared.visits).clone()
    }

    /// What participants have said to the server so far.
    pub fn from_participants(&self) -> Vec<signal_request::Message> {
        lock(&self.shared.from_participants).clone()
    }

    /// What the server has said to participants so far, as they were told it.
    pub fn from_server(&self) -> Vec<signal_response::Message> {
        lock(&self.shared.from_server).clone()
    }

    fn order(&self, order: Order) {
        // nobody there is nobody to do it to
        let _ = self.shared.orders.send(order);
    }
}

impl Drop for SignalProxy {
    fn drop(&mut self) {
        self.cut();
        self.serving.abort();
    }
}

impl fmt::Debug for SignalProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalProxy").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A participant knocks.
async fn enter(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    let visit = Visit { at: Instant::now(), resume: uri.query().is_some_and(|query| query.contains("reconnect=1")) };
    lock(&shared.visits).push(visit);
    let door = lock(&shared.door)(&visit);
    match door {
        Door::Open => {}
        Door::Refuse(status) => return refusal(status),
        Door::Slow(wait) => tokio::time::sleep(wait).await,
        Door::Silent => {
            let orders = shared.orders.subscribe();
            return upgrade.on_upgrade(move |near| silence(near, orders));
        }
    }
    // listened to from here on, so that an order does not fall between the server's yes and the first word
    let orders = shared.orders.subscribe();
    match connect(&shared.server, &uri, &headers).await {
        Ok(far) => upgrade.on_upgrade(move |near| carry(near, far, orders, shared)),
        Err(WsError::Http(refused)) => refused.status().into_response(),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

/// A participant who was refused asks why.
async fn validate(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let visit = Visit { at: Instant::now(), resume: false };
    let door = lock(&shared.door)(&visit);
    if let Door::Refuse(status) = door {
        return refusal(status);
    }
    let server = shared.server.replacen("ws", "http", 1);
    let mut asked = reqwest::Client::new().get(format!("{server}{}", request.uri()));
    if let Some(token) = request.headers().get(header::AUTHORIZATION) {
        asked = asked.header(header::AUTHORIZATION, token);
    }
    match asked.send().await {
        Ok(answer) => (answer.status(), answer.text().await.unwrap_or_default()).into_response(),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

fn refusal(status: u16) -> Response {
    (StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT), [(header::RETRY_AFTER, "1")]).into_response()
}

type Far = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(server: &str, uri: &Uri, headers: &HeaderMap) -> Result<Far, WsError> {
    let mut request = format!("{server}{uri}").into_client_request()?;
    if let Some(token) = headers.get(header::AUTHORIZATION) {
        request.headers_mut().insert(header::AUTHORIZATION, token.clone());
    }
    Ok(tokio_tungstenite::connect_async(request).await?.0)
}

/// Carries both ways until one side ends, or an order cuts: then the socket is dropped as it is.
async fn carry(mut near: WebSocket, mut far: Far, mut orders: broadcast::Receiver<Order>, shared: Arc<Shared>) {
    loop {
        let carried = tokio::select! {
            said = near.recv() => match said {
                Some(Ok(Message::Binary(bytes))) => {
                    shared.note(&bytes);
                    far.send(tungstenite::Message::Binary(bytes)).await.is_ok()
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => {
                    let _ = far.close(None).await;
                    return;
                }
                Some(Ok(_)) => true,
            },
            said = far.next() => match said {
                Some(Ok(tungstenite::Message::Binary(bytes))) => match shared.altered(bytes) {
                    Some(bytes) => near.send(Message::Binary(bytes)).await.is_ok(),
                    None => true,
                },
                Some(Ok(tungstenite::Message::Close(_)) | Err(_)) | None => {
                    let _ = near.send(Message::Close(None)).await;
                    return;
                }
                Some(Ok(_)) => true,
            },
            order = orders.recv() => match order {
                Ok(Order::ToParticipants(bytes)) => near.send(Message::Binary(bytes)).await.is_ok(),
                Ok(Order::ToServer(bytes)) => far.send(tungstenite::Message::Binary(bytes)).await.is_ok(),
                Ok(Order::Cut) | Err(_) => false,
            },
        };
        if !carried {
            return;
        }
    }
}

/// Takes in what is said, and says nothing.
async fn silence(mut near: WebSocket, mut orders: broadcast::Receiver<Order>) {
    let ends = async {
        loop {
            tokio::select! {
                said = near.recv() => if !matches!(said, Some(Ok(_))) { return },
                order = orders.recv() => if !matches!(order, Ok(Order::ToParticipants(_) | Order::ToServer(_))) { return },
            }
        }
    };
    let _ = tokio::time::timeout(SILENCE_MAX, ends).await;
}

impl Shared {
    fn note(&self, bytes: &[u8]) {
        if let Ok(SignalRequest { message: Some(message) }) = SignalRequest::decode(bytes) {
            keep(&self.from_participants, message);
        }
    }

    fn altered(&self, bytes: Bytes) -> Option<Bytes> {
        let Ok(SignalResponse { message: Some(message) }) = SignalResponse::decode(&*bytes) else { return Some(bytes) };
        let alter = lock(&self.alter).clone();
        let message = alter.map_or(Some(message.clone()), |alter| alter(message))?;
        keep(&self.from_server, message.clone());
        Some(SignalResponse { message: Some(message) }.encode_to_vec().into())
    }
}

fn keep<T>(kept: &Mutex<Vec<T>>, message: T) {
    let mut kept = lock(kept);
    if kept.len() < SIGNALS_MAX {
        kept.push(message);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
