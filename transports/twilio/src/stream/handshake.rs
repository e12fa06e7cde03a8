//! The request that asks for a WebSocket, and its answer. No extension and no subprotocol is agreed upon, whatever is
//! offered.

use axum::body::Body;
use axum::http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, request::Parts};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// Why there is no WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoUpgrade {
    #[error("not a GET of HTTP/1.1 that asks for an upgrade to websocket")]
    NotAsked,
    #[error("Sec-WebSocket-Version is not 13")]
    Version,
    #[error("Sec-WebSocket-Key is missing or not of 16 bytes")]
    Key,
}

/// The answer that turns the connection into a WebSocket.
pub(super) fn accept(request: &Parts) -> Result<Response<Body>, NoUpgrade> {
    let headers = &request.headers;
    if request.method != Method::GET || request.version != Version::HTTP_11 || !names(headers, &CONNECTION, "upgrade") || !names(headers, &UPGRADE, "websocket")
    {
        return Err(NoUpgrade::NotAsked);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(NoUpgrade::Version);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(NoUpgrade::Key)?.as_bytes();
    if STANDARD.decode(key).map_or(0, |nonce| nonce.len()) != KEY_BYTES {
        return Err(NoUpgrade::Key);
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = HeaderValue::from_str(&sign(key)).map_err(|_| NoUpgrade::Key)?;
    response.headers_mut().extend([
        (CONNECTION, HeaderValue::from_static("upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, accept),
    ]);
    Ok(response)
}

/// Bytes of a key; the RFC's.
const KEY_BYTES: usize = 16;

/// Proves that the key was read by one who speaks WebSocket: the constant is the RFC's.
fn sign(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize())
}

/// True when the list in this header, over however many lines, names `word`.
fn names(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|named| named.trim().eq_ignore_ascii_case(word))
}
