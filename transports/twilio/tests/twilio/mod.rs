//! Twilio's side of the wire, as little of it as the tests need.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Context;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use url::form_urlencoded;
use voiced_core::line::{FromLine, Said, ToLine};
use voiced_twilio::{Accepted, IncomingCall, Refused, Secret, Switchboard, TwilioCounters, TwilioSettings, router};

pub const CALL_SID: &str = "CA11111111111111111111111111111111";
pub const ACCOUNT_SID: &str = "AC22222222222222222222222222222222";
pub const STREAM_SID: &str = "MZ33333333333333333333333333333333";
const AUTH_TOKEN: &str = "0123456789abcdef0123456789abcdef";
const PUBLIC: &str = "voice.example.test";

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The router behind a real socket, with a switchboard that takes every call.
pub struct Host {
    address: String,
    counters: Arc<TwilioCounters>,
    board: Arc<Board>,
    calls: mpsc::UnboundedReceiver<(IncomingCall, LineIo)>,
}

/// A call's ends of its line.
pub struct LineIo {
    pub from: mpsc::Receiver<FromLine>,
    pub to: mpsc::Sender<ToLine>,
}

impl LineIo {
    /// With what the stream is given of it. Dropping `to` hangs up.
    fn open(from: mpsc::Receiver<FromLine>) -> (Self, Accepted) {
        let (to, mut said) = mpsc::channel(256);
        let source = move |context: &mut Context<'_>| {
            said.poll_recv(context).map(|said| Said { what: said.unwrap_or(ToLine::HangUp), said_at: Instant::now(), due_at: None })
        };
        (Self { from, to }, Accepted { packets: None, to: Box::new(source) })
    }
}

struct Board {
    places: AtomicUsize,
    calls: mpsc::UnboundedSender<(IncomingCall, LineIo)>,
    statuses: Mutex<Vec<(String, String)>>,
}

impl Switchboard for Board {
    fn may_admit(&self, promised: usize) -> bool {
        promised < self.places.load(Ordering::Relaxed)
    }

    fn connected(&self, call: IncomingCall, from: mpsc::Receiver<FromLine>) -> Result<Accepted, Refused> {
        let (line, accepted) = LineIo::open(from);
        self.calls.send((call, line)).map(|()| accepted).map_err(|_| Refused)
    }

    fn status(&self, call_sid: &str, status: &str) {
        self.statuses.lock().expect("no panic").push((call_sid.to_owned(), status.to_owned()));
    }
}

impl Host {
    pub async fn start(change: impl FnOnce(&mut TwilioSettings)) -> Self {
        let mut settings = TwilioSettings::new(format!("https://{PUBLIC}").parse().expect("a URL"));
        settings.auth_token = Some(Secret::new(AUTH_TOKEN));
        change(&mut settings);
        let (sender, calls) = mpsc::unbounded_channel();
        let board = Arc::new(Board { places: AtomicUsize::new(usize::MAX), calls: sender, statuses: Mutex::default() });
        let counters = Arc::new(TwilioCounters::default());
        let routes = router(settings, board.clone(), counters.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { address, counters, board, calls }
    }

    pub fn counter(&self, name: &str) -> u64 {
        self.counters.read().iter().find(|(key, _)| *key == name).expect("a counter").1
    }

    pub fn has_places(&self, places: usize) {
        self.board.places.store(places, Ordering::Relaxed);
    }

    pub fn statuses(&self) -> Vec<(String, String)> {
        self.board.statuses.lock().expect("no panic").clone()
    }

    pub async fn post(&self, path: &str, form: &[(&str, &str)], signature: Option<&str>) -> (u16, String) {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let mut request =
            reqwest::Client::new().post(format!("http://{}{path}", self.address)).header("content-type", "application/x-www-form-urlencoded").body(body);
        if let Some(signature) = signature {
            request = request.header("X-Twilio-Signature", signature);
        }
        let response = request.send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("a body"))
    }

    pub async fn post_signed(&self, path: &str, form: &[(&str, &str)]) -> (u16, String) {
        let mut sorted = form.to_vec();
        sorted.sort_unstable();
        let text: String = sorted.iter().flat_map(|(name, value)| [*name, *value]).collect();
        self.post(path, form, Some(&sign(&format!("https://{PUBLIC}{path}{text}")))).await
    }

    /// A body of JSON, whose hash Twilio puts into the URL that it signs; then another body may be sent.
    pub async fn post_json(&self, path: &str, signed: &Value, sent: &Value) -> (u16, String) {
        let digest = Sha256::digest(signed.to_string());
        let hash = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from_digit(digit.into(), 16).expect("a digit"));
        let hash: String = hash.collect();
        let path = format!("{path}?bodySHA256={hash}");
        let request = reqwest::Client::new().post(format!("http://{}{path}", self.address)).header("content-type", "application/json");
        let request = request.header("X-Twilio-Signature", sign(&format!("https://{PUBLIC}{path}"))).body(sent.to_string());
        let response = request.send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("a body"))
    }

    /// The voice webhook of the tests' call.
    pub async fn voice(&self) -> (u16, String) {
        let form = [
            ("CallSid", CALL_SID),
            ("AccountSid", ACCOUNT_SID),
            ("From", "+5511999990000"),
            ("To", "+551130000000"),
            ("Direction", "inbound"),
            ("FromCity", ""),
        ];
        self.post_signed("/twilio/voice?tenant=acme", &form).await
    }

    /// Asks the voice webhook and makes the `start` that Twilio would send.
    pub async fn start_message(&self) -> Value {
        let (status, body) = self.voice().await;
        assert_eq!(status, 200);
        json!({"event": "start", "sequenceNumber": "1", "streamSid": STREAM_SID, "start": {
            "streamSid": STREAM_SID, "accountSid": ACCOUNT_SID, "callSid": CALL_SID, "tracks": ["inbound"],
            "customParameters": parameters(&body),
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}}})
    }

    pub async fn dial(&self, signature: Option<&str>) -> Result<Socket, u16> {
        let url = format!("ws://{}/twilio/stream/{CALL_SID}", self.address);
        let mut request = url.into_client_request().expect("a request");
        if let Some(signature) = signature {
            request.headers_mut().insert("X-Twilio-Signature", signature.parse().expect("a header"));
        }
        match tokio_tungstenite::connect_async(request).await {
            Ok((socket, _)) => Ok(socket),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn dial_signed(&self) -> Socket {
        let signature = sign(&format!("wss://{PUBLIC}/twilio/stream/{CALL_SID}"));
        self.dial(Some(&signature)).await.expect("an upgrade")
    }

    /// Asks for the stream with these headers and a signature; the head of the answer.
    pub async fn ask_stream(&self, headers: &str) -> String {
        let signature = sign(&format!("wss://{PUBLIC}/twilio/stream/{CALL_SID}"));
        let request = format!("GET /twilio/stream/{CALL_SID} HTTP/1.1\r\nHost: {PUBLIC}\r\nX-Twilio-Signature: {signature}\r\n{headers}\r\n");
        let mut stream = TcpStream::connect(&self.address).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("an answer"));
        }
        String::from_utf8(head).expect("text")
    }

    /// Dials, says connected and start, and waits for the switchboard to be given the line.
    pub async fn call(&mut self, start: Value) -> (Socket, IncomingCall, LineIo) {
        let mut socket = self.dial_signed().await;
        send(&mut socket, json!({"event": "connected", "protocol": "Call", "version": "1.0.0"})).await;
        send(&mut socket, start).await;
        let (call, line) = self.calls.recv().await.expect("a call");
        (socket, call, line)
    }

    pub async fn is_refused(&self, start: Value) -> bool {
        let mut socket = self.dial_signed().await;
        send(&mut socket, json!({"event": "connected", "protocol": "Call", "version": "1.0.0"})).await;
        send(&mut socket, start).await;
        is_closed(&mut socket).await
    }
}

/// The server closes without a word.
pub async fn is_closed(socket: &mut Socket) -> bool {
    matches!(socket.next().await, Some(Ok(Message::Close(_)) | Err(_)) | None)
}

pub async fn send(socket: &mut Socket, message: Value) {
    socket.send(Message::text(message.to_string())).await.expect("sent");
}

pub async fn receive(socket: &mut Socket) -> Value {
    let message = socket.next().await.expect("a message").expect("a message");
    serde_json::from_str(message.to_text().expect("text")).expect("JSON")
}

pub fn media(chunk: u32, timestamp_ms: u32, len: usize) -> Value {
    let payload = STANDARD.encode(vec![0x7F; len]);
    json!({"event": "media", "streamSid": STREAM_SID, "media": {"track": "inbound", "chunk": chunk.to_string(),
        "timestamp": timestamp_ms.to_string(), "payload": payload}})
}

/// The `<Parameter>`s of a TwiML document.
pub fn parameters(twiml: &str) -> Value {
    let mut parameters = Map::new();
    for element in twiml.split("<Parameter ").skip(1) {
        let mut quoted = element.split('"');
        let (name, value) = (quoted.nth(1).expect("a name"), quoted.nth(1).expect("a value"));
        parameters.insert(name.to_owned(), json!(value));
    }
    Value::Object(parameters)
}

fn sign(text: &str) -> String {
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(AUTH_TOKEN.as_bytes()).expect("a key");
    mac.update(text.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}
