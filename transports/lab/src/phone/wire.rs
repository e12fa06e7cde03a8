//! Twilio's requests: signed webhooks, the dialled stream, and its messages.

use super::answer::{self, Answer};
use super::{CallError, PhoneSettings};
use crate::READ_BUFFER_BYTES;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha1::Sha1;
use socket2::SockRef;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_with_config, connect_async_with_config};
use url::{Url, form_urlencoded};

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Twilio waits no longer for a webhook.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(15);
/// Patience with the stream's handshake.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Buffered on the way to a phone that is to be deaf, in bytes: some ms.
const FEW_BYTES: u32 = 4_096;
/// Longest segment to such a phone, in bytes: by it the other side sizes its own buffer, which on loopback holds minutes else.
const SHORT_SEGMENT_BYTES: u32 = 536;

/// Asks the voice webhook what to do with a call.
pub(super) async fn ask(http: &reqwest::Client, settings: &PhoneSettings, call_sid: &str) -> Result<Answer, CallError> {
    let response = post(http, settings, "/twilio/voice", form(settings, call_sid, "ringing")).await?;
    if !response.status().is_success() {
        return Err(CallError::Refused(response.status().as_u16()));
    }
    answer::parse(&response.text().await?)
}

/// The status callback at a call's end. Its answer is of no interest, as with Twilio.
pub(super) async fn tell_completed(http: &reqwest::Client, settings: &PhoneSettings, call_sid: &str, duration_ms: u64) {
    let mut form = form(settings, call_sid, "completed");
    form.push(("CallDuration", (duration_ms / 1_000).to_string()));
    form.push(("Duration", duration_ms.div_ceil(60_000).to_string()));
    form.push(("CallbackSource", "call-progress-events".to_owned()));
    form.push(("SequenceNumber", "0".to_owned()));
    if let Err(error) = post(http, settings, "/twilio/status", form).await {
        tracing::warn!(call_sid, %error, "the status callback was not delivered");
    }
}

/// Dials the stream: query dropped, signed over the public `wss` form, connected to where the daemon listens.
pub(super) async fn dial(settings: &PhoneSettings, url: &str, buffers_little: bool) -> Result<Socket, CallError> {
    let bad = |reason: &str| CallError::StreamUrl(format!("{reason}: {url}"));
    let mut public = Url::parse(url).map_err(|error| bad(&error.to_string()))?;
    public.set_query(None);
    let scheme = if settings.public_url.scheme() == "https" { "wss" } else { "ws" };
    if public.scheme() != scheme {
        return Err(bad("the scheme is not that of a secure WebSocket (31922)"));
    }
    if public.host_str() != settings.public_url.host_str() {
        return Err(bad("the host is not the public one"));
    }
    let mut direct = settings.base_url.clone();
    direct.set_path(public.path());
    let direct = direct.as_str().replacen("http", "ws", 1);
    let mut request = direct.into_client_request().map_err(|error| bad(&error.to_string()))?;
    let signature = sign(settings, public.as_str(), &[]).parse().map_err(|_| bad("no signature"))?;
    request.headers_mut().insert("x-twilio-signature", signature);
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    let connect = async {
        if !buffers_little {
            return connect_async_with_config(request, Some(config), true).await;
        }
        let stream = connect_with_few_buffers(&settings.base_url).await?;
        client_async_with_config(request, MaybeTlsStream::Plain(stream), Some(config)).await
    };
    match tokio::time::timeout(DIAL_TIMEOUT, connect).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(error)) => Err(CallError::Handshake(error.to_string())),
        Err(_) => Err(CallError::Handshake("no answer in time (31901)".to_owned())),
    }
}

async fn connect_with_few_buffers(base: &Url) -> io::Result<TcpStream> {
    let address = base.socket_addrs(|| None)?.into_iter().next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_recv_buffer_size(FEW_BYTES)?;
    SockRef::from(&socket).set_tcp_mss(SHORT_SEGMENT_BYTES)?;
    socket.connect(address).await
}

async fn post(http: &reqwest::Client, settings: &PhoneSettings, path: &str, form: Vec<(&'static str, String)>) -> Result<reqwest::Response, reqwest::Error> {
    let signature = sign(settings, &at(&settings.public_url, path), &form);
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(&form).finish();
    http.post(at(&settings.base_url, path))
        .timeout(WEBHOOK_TIMEOUT)
        .header("content-type", "application/x-www-form-urlencoded; charset=UTF-8")
        .header("user-agent", "TwilioProxy/1.1")
        .header("x-twilio-signature", signature)
        .header("i-twilio-idempotency-token", format!("{:032x}", rand::random::<u128>()))
        .body(body)
        .send()
        .await
}

fn at(base: &Url, path: &str) -> String {
    format!("{}{path}", base.as_str().trim_end_matches('/'))
}

/// The fields of every call, with the geographical and legacy ones, which are signed like the others.
fn form(settings: &PhoneSettings, call_sid: &str, status: &str) -> Vec<(&'static str, String)> {
    let mut form = vec![
        ("CallSid", call_sid.to_owned()),
        ("AccountSid", settings.account_sid.clone()),
        ("CallStatus", status.to_owned()),
        ("ApiVersion", "2010-04-01".to_owned()),
        ("Direction", "inbound".to_owned()),
    ];
    form.extend(["From", "Caller"].map(|name| (name, settings.from.clone())));
    form.extend(["To", "Called"].map(|name| (name, settings.to.clone())));
    let places = ["FromCity", "FromState", "FromZip", "ToCity", "ToState", "ToZip"];
    let legacy = ["CallerCity", "CallerState", "CallerZip", "CalledCity", "CalledState", "CalledZip"];
    form.extend(places.into_iter().chain(legacy).map(|name| (name, String::new())));
    form.extend(["FromCountry", "ToCountry", "CallerCountry", "CalledCountry"].map(|name| (name, "US".to_owned())));
    form
}

fn sign(settings: &PhoneSettings, url: &str, form: &[(&'static str, String)]) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(settings.auth_token.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(url.as_bytes());
    let sorted: BTreeMap<_, _> = form.iter().map(|(name, value)| (*name, value)).collect();
    for (name, value) in sorted {
        mac.update(name.as_bytes());
        mac.update(value.as_bytes());
    }
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Who is talking, for the messages.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) stream_sid: &'a str,
    pub(super) call_sid: &'a str,
    pub(super) settings: &'a PhoneSettings,
}

pub(super) const CONNECTED: &str = r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#;

impl Names<'_> {
    pub(super) fn start(&self, parameters: &BTreeMap<String, String>) -> String {
        serde_json::json!({"event": "start", "sequenceNumber": "1", "streamSid": self.stream_sid, "start": {
            "streamSid": self.stream_sid, "accountSid": self.settings.account_sid, "callSid": self.call_sid,
            "tracks": ["inbound"], "customParameters": parameters,
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}}})
        .to_string()
    }

    pub(super) fn media(&self, sequence: u64, chunk: u64, timestamp_ms: u64, sound: &[u8]) -> String {
        let mut text = String::with_capacity(400);
        let _ = write!(
            text,
            r#"{{"event":"media","sequenceNumber":"{sequence}","streamSid":"{}","media":{{"track":"inbound","chunk":"{chunk}","timestamp":"{timestamp_ms}","payload":""#,
            self.stream_sid
        );
        STANDARD.encode_string(sound, &mut text);
        text.push_str(r#""}}"#);
        text
    }

    pub(super) fn dtmf(&self, sequence: u64, key: char) -> String {
        let dtmf = serde_json::json!({"track": "inbound_track", "digit": key.to_string()});
        self.message("dtmf", sequence, dtmf)
    }

    pub(super) fn mark(&self, sequence: u64, name: &str) -> String {
        self.message("mark", sequence, serde_json::json!({ "name": name }))
    }

    pub(super) fn stop(&self, sequence: u64) -> String {
        let stop = serde_json::json!({"accountSid": self.settings.account_sid, "callSid": self.call_sid});
        self.message("stop", sequence, stop)
    }

    fn message(&self, event: &str, sequence: u64, fields: serde_json::Value) -> String {
        let mut message = serde_json::json!({"event": event, "sequenceNumber": sequence.to_string(), "streamSid": self.stream_sid});
        message[event] = fields;
        message.to_string()
    }

    /// Reads what the agent's side says, as strictly as Twilio: `None` is worth warning 31951.
    pub(super) fn read(&self, text: &str, sound: &mut Vec<u8>) -> Option<Said> {
        match serde_json::from_str(text).ok()? {
            Wire::Media { stream_sid, media } if stream_sid == self.stream_sid => {
                sound.clear();
                STANDARD.decode_vec(media.payload.as_bytes(), sound).ok().map(|()| Said::Media)
            }
            Wire::Mark { stream_sid, mark } if stream_sid == self.stream_sid => Some(Said::Mark(mark.name)),
            Wire::Clear { stream_sid } if stream_sid == self.stream_sid => Some(Said::Clear),
            _ => None,
        }
    }
}

/// From the agent's side.
pub(super) enum Said {
    Media,
    Mark(String),
    Clear,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase", deny_unknown_fields)]
enum Wire<'a> {
    Media {
        #[serde(borrow, rename = "streamSid")]
        stream_sid: Cow<'a, str>,
        #[serde(borrow)]
        media: WireMedia<'a>,
    },
    Mark {
        #[serde(borrow, rename = "streamSid")]
        stream_sid: Cow<'a, str>,
        mark: WireMark,
    },
    Clear {
        #[serde(borrow, rename = "streamSid")]
        stream_sid: Cow<'a, str>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireMedia<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireMark {
    name: String,
}
