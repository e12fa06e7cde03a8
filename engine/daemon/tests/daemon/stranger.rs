//! Someone who knows Twilio's protocol and does not keep to it: requests and streams made by hand.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::HeaderMap;
use serde_json::{Map, Value, json};
use sha1::Sha1;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use url::form_urlencoded;

use crate::PATIENCE;
use crate::host::{AUTH_TOKEN, Host, PUBLIC};

const STREAM_SID: &str = "MZ33333333333333333333333333333333";

/// A request with a form, signed with this auth token: status and body.
pub async fn post(host: &Host, path: &str, form: &[(&str, &str)], auth_token: &str) -> (u16, String) {
    post_with(host, path, form, auth_token, HeaderMap::new()).await
}

/// The same with further headers.
pub async fn post_with(host: &Host, path: &str, form: &[(&str, &str)], auth_token: &str, headers: HeaderMap) -> (u16, String) {
    let mut sorted = form.to_vec();
    sorted.sort_unstable();
    let fields: String = sorted.iter().flat_map(|(name, value)| [*name, *value]).collect();
    let signature = sign(&format!("https://{PUBLIC}{path}{fields}"), auth_token);
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let request = reqwest::Client::new().post(host.url(path)).header("content-type", "application/x-www-form-urlencoded");
    let response = request.header("X-Twilio-Signature", signature).headers(headers).body(body).send().await.expect("an answer");
    (response.status().as_u16(), response.text().await.expect("a body"))
}

/// The stream's parameters that the voice webhook gives to a call, the token among them.
pub async fn parameters(host: &Host, call_sid: &str) -> Map<String, Value> {
    let (status, twiml) = post(host, "/twilio/voice", &[("CallSid", call_sid), ("From", "+15550001111")], AUTH_TOKEN).await;
    assert_eq!(status, 200, "{twiml}");
    let quoted = |element: &str| {
        let mut quoted = element.split('"');
        Some((quoted.nth(1)?.to_owned(), json!(quoted.nth(1)?)))
    };
    twiml.split("<Parameter ").skip(1).filter_map(quoted).collect()
}

/// A stream made by hand.
pub struct Stream {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Stream {
    /// Dials with the upgrade signed with this auth token; else the status that refused it.
    pub async fn dial(host: &Host, call_sid: &str, auth_token: &str) -> Result<Self, u16> {
        let path = format!("/twilio/stream/{call_sid}");
        let mut request = format!("ws://{}{path}", host.address()).into_client_request().expect("a request");
        let signature = sign(&format!("wss://{PUBLIC}{path}"), auth_token);
        request.headers_mut().insert("X-Twilio-Signature", signature.parse().expect("a header"));
        match tokio_tungstenite::connect_async(request).await {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Dials properly and starts the call with these parameters.
    pub async fn start(host: &Host, call_sid: &str, parameters: &Map<String, Value>) -> Self {
        let mut stream = Self::dial(host, call_sid, AUTH_TOKEN).await.expect("an upgrade");
        stream.send(&json!({"event": "connected", "protocol": "Call", "version": "1.0.0"})).await;
        let start = json!({"event": "start", "sequenceNumber": "1", "streamSid": STREAM_SID, "start": {
            "streamSid": STREAM_SID, "accountSid": "AC1", "callSid": call_sid, "tracks": ["inbound"], "customParameters": parameters,
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}}});
        stream.send(&start).await;
        stream
    }

    pub async fn send(&mut self, message: &Value) {
        self.send_text(message.to_string()).await;
    }

    /// Sends any text; a daemon that has hung up already does not hear it.
    pub async fn send_text(&mut self, text: String) {
        let _ = self.socket.send(Message::text(text)).await;
    }

    /// Presses a key and `#`: words of the caller that need no sound.
    pub async fn press(&mut self, key: &str) {
        for digit in [key, "#"] {
            self.send(&json!({"event": "dtmf", "streamSid": STREAM_SID, "dtmf": {"track": "inbound_track", "digit": digit}})).await;
        }
    }

    /// Waits for sound of the agent; false when the stream is closed instead.
    pub async fn hears(&mut self) -> bool {
        self.next_is(|message| matches!(message, Message::Text(text) if text.contains("\"media\""))).await
    }

    /// Waits for the stream's end, whatever comes before it.
    pub async fn ends(mut self) -> bool {
        !self.next_is(|_| false).await
    }

    /// Waits for such a message; false when the stream is closed instead.
    async fn next_is(&mut self, wanted: impl Fn(&Message) -> bool) -> bool {
        let search = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return false,
                    Some(Ok(message)) if wanted(&message) => return true,
                    Some(Ok(_)) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("the stream neither ends nor says what is waited for")
    }
}

fn sign(text: &str, auth_token: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(auth_token.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}
