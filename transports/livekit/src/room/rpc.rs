//! Questions between participants, and their answers.
//!
//! The caller sends a request; the other side acknowledges it at once and answers later. A question that is not answered
//! in time ends with the caller's own clock.

use livekit_protocol as proto;
use proto::data_packet::Value;
use proto::rpc_response::Value as Answer;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Longest payload either way, in bytes: LiveKit's own limit.
pub(super) const PAYLOAD_BYTES_MAX: usize = 15 * 1_024;
/// Questions of ours that wait for an answer at the same time.
const PENDING_MAX: usize = 64;
/// The version of the protocol without data streams.
const VERSION: u32 = 1;

/// A question that someone asks us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcRequest {
    /// Names the question.
    pub id: String,
    /// Who asks.
    pub from: String,
    /// What is asked for.
    pub method: String,
    /// With what.
    pub payload: String,
    /// When the asker stops waiting.
    pub deadline: Instant,
}

/// Why a question has no answer: LiveKit's code, a sentence, and data of the one who was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rpc failed with {code}: {message}")]
pub struct RpcError {
    /// LiveKit's code: 1400 to 1599, or the application's own.
    pub code: u32,
    /// For people to read.
    pub message: String,
    /// More, for the application.
    pub data: String,
}

impl RpcError {
    /// The method is not known here.
    pub fn unsupported_method() -> Self {
        Self::new(1400, "Method not supported at destination")
    }

    /// The method failed.
    pub fn application(message: impl Into<String>) -> Self {
        Self::new(1500, message)
    }

    pub(super) fn payload_too_large() -> Self {
        Self::new(1402, "Request payload too large")
    }

    pub(super) fn timed_out() -> Self {
        Self::new(1502, "Response timeout")
    }

    pub(super) fn recipient_left() -> Self {
        Self::new(1503, "Recipient disconnected")
    }

    pub(super) fn not_sent() -> Self {
        Self::new(1505, "Failed to send")
    }

    fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: String::new() }
    }
}

/// A question of ours on its way.
#[derive(Debug)]
pub(crate) struct Question {
    pub to: String,
    pub method: String,
    pub payload: String,
    pub timeout: Duration,
    pub answer: oneshot::Sender<Result<String, RpcError>>,
}

/// Questions of ours that wait for an answer.
#[derive(Debug, Default)]
pub(super) struct Questions {
    pending: HashMap<String, (String, oneshot::Sender<Result<String, RpcError>>)>,
}

impl Questions {
    /// The packet to send, and to whom; the question waits under `id`.
    pub fn ask(&mut self, id: String, question: Question) -> Option<(String, Value)> {
        // who gave up waiting has dropped the other end
        self.pending.retain(|_, (_, answer)| !answer.is_closed());
        let Question { to, method, payload, timeout, answer } = question;
        if self.pending.len() >= PENDING_MAX {
            let _ = answer.send(Err(RpcError::not_sent()));
            return None;
        }
        let response_timeout_ms = timeout.as_millis().min(u128::from(u32::MAX)) as u32;
        let request = proto::RpcRequest { id: id.clone(), method, payload, response_timeout_ms, version: VERSION, ..Default::default() };
        self.pending.insert(id, (to.clone(), answer));
        Some((to, Value::RpcRequest(request)))
    }

    /// An answer came.
    pub fn answer(&mut self, response: proto::RpcResponse) {
        if let Some((_, answer)) = self.pending.remove(&response.request_id) {
            let result = match response.value {
                Some(Answer::Payload(payload)) => Ok(payload),
                Some(Answer::Error(proto::RpcError { code, message, data })) => Err(RpcError { code, message, data }),
                _ => Err(RpcError::application("the answer is in a form that is not understood")),
            };
            let _ = answer.send(result);
        }
    }

    /// Someone left, with all that was asked of them.
    pub fn forget(&mut self, identity: &str) {
        let left: Vec<String> = self.pending.iter().filter(|(_, (to, _))| to == identity).map(|(id, _)| id.clone()).collect();
        for (_, answer) in left.iter().filter_map(|id| self.pending.remove(id)) {
            let _ = answer.send(Err(RpcError::recipient_left()));
        }
    }
}

/// The question of a packet, to be acknowledged and handed on.
pub(super) fn request(from: &str, request: proto::RpcRequest, now: Instant) -> RpcRequest {
    let deadline = now + Duration::from_millis(u64::from(request.response_timeout_ms));
    RpcRequest { id: request.id, from: from.to_owned(), method: request.method, payload: request.payload, deadline }
}

/// The packet that says a question has arrived.
pub(super) fn acknowledgement(id: &str) -> Value {
    Value::RpcAck(proto::RpcAck { request_id: id.to_owned() })
}

/// The packet that answers a question.
pub(super) fn response(id: &str, result: Result<String, RpcError>) -> Value {
    let result =
        result.and_then(|payload| if payload.len() > PAYLOAD_BYTES_MAX { Err(RpcError::new(1504, "Response payload too large")) } else { Ok(payload) });
    let value = match result {
        Ok(payload) => Answer::Payload(payload),
        Err(RpcError { code, message, data }) => Answer::Error(proto::RpcError { code, message, data }),
    };
    Value::RpcResponse(proto::RpcResponse { request_id: id.to_owned(), value: Some(value) })
}
