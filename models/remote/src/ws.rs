//! Sockets to providers: connect, send and receive within limits of time and size.

use crate::account::{Account, Vendor};
use crate::failure::Failure;
use crate::http::refusal;
use crate::secret::Secret;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};
use url::Url;

/// Longest message of a provider, in bytes: a chunk of speech is below 100 KiB, so more is no message for us.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Read at once from a socket. The default of 128 KiB is cleared at each read and held by each session.
const READ_BUFFER_BYTES: usize = 8_192;
/// Longest wait for the socket to take what we send: the kernel's buffer holds seconds of sound, so the other side has
/// stopped reading.
const SEND_WAIT: Duration = Duration::from_millis(2_500);
/// Longest wait for a close frame to leave.
const CLOSE_WAIT: Duration = Duration::from_millis(500);

/// A connection to one vendor.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    vendor: Vendor,
    key: Secret,
}

/// What a provider sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Text(Utf8Bytes),
    Binary(Bytes),
}

impl Socket {
    /// Connects and upgrades; the key travels in a header, never in the URL.
    pub async fn connect(vendor: Vendor, account: &Account, url: &Url, headers: &[(&'static str, String)]) -> Result<Self, Failure> {
        let limit_ms = account.timeouts.connect_ms;
        let mut request = url.as_str().into_client_request().map_err(|_| Failure::lasting(vendor.name, "the address is unusable"))?;
        for (name, value) in headers {
            let mut value = HeaderValue::from_str(value).map_err(|_| Failure::lasting(vendor.name, format!("the {name} header is unusable")))?;
            value.set_sensitive(true);
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        let config =
            WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
        // boxed: its 20 kB, mostly TLS, would otherwise be part of each session for the whole call
        let connecting = Box::pin(connect_async_with_config(request, Some(config), true));
        match timeout(Duration::from_millis(limit_ms), connecting).await {
            Ok(Ok((stream, _))) => Ok(Self { stream, vendor, key: account.api_key.clone() }),
            Ok(Err(Error::Http(answer))) => {
                let text = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned();
                Err(refusal(vendor, answer.status(), answer.headers(), &account.api_key.redact(&text)))
            }
            Ok(Err(error)) => Err(Failure::passing(vendor.name, format!("could not connect ({})", reason(&error)))),
            Err(_) => Err(account.late(vendor.name, format!("no connection within {limit_ms} ms"))),
        }
    }

    /// The next message; pings answer themselves. Cancel safe.
    pub async fn next(&mut self) -> Result<Incoming, Failure> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Ok(Incoming::Text(text)),
                Some(Ok(Message::Binary(bytes))) => return Ok(Incoming::Binary(bytes)),
                Some(Ok(Message::Close(Some(frame)))) => {
                    let why = crate::failure::words(&self.key.redact(&format!("{} {}", u16::from(frame.code), frame.reason)));
                    return Err(Failure::passing(self.vendor.name, format!("closed the connection ({why})")));
                }
                Some(Ok(Message::Close(None))) | None => {
                    return Err(Failure::passing(self.vendor.name, "closed the connection"));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    return Err(Failure::passing(self.vendor.name, format!("the connection broke ({})", reason(&error))));
                }
            }
        }
    }

    /// Sends text.
    pub async fn send_text(&mut self, text: String) -> Result<(), Failure> {
        self.send(Message::text(text)).await
    }

    /// Sends bytes.
    pub async fn send_binary(&mut self, bytes: Bytes) -> Result<(), Failure> {
        self.send(Message::Binary(bytes)).await
    }

    /// Says goodbye and hangs up.
    pub async fn close(mut self) {
        let _ = timeout(CLOSE_WAIT, self.stream.close(None)).await;
    }

    async fn send(&mut self, message: Message) -> Result<(), Failure> {
        match timeout(SEND_WAIT, self.stream.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::passing(self.vendor.name, format!("the connection broke ({})", reason(&error)))),
            Err(_) => Err(Failure::passing(self.vendor.name, "stopped reading")),
        }
    }
}

/// An error in a few words; never a URL or a header.
fn reason(error: &Error) -> String {
    match error {
        Error::Io(error) => error.to_string(),
        Error::ConnectionClosed | Error::AlreadyClosed => "closed".to_owned(),
        Error::Capacity(_) => "a message was too long".to_owned(),
        Error::Protocol(error) => error.to_string(),
        Error::Tls(error) => error.to_string(),
        Error::Utf8(_) => "a text was not UTF-8".to_owned(),
        _ => "the upgrade failed".to_owned(),
    }
}
