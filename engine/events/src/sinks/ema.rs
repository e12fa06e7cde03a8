//! The EMA API: a webhook for each event, its body and path a contract.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;
use voiced_core::event::{CallEvent, CallEventKind};
use voiced_secret::Secret;

use super::Outcome;

/// A webhook answers within this or is tried again.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read to look for `"success": false` and for a reason; a JSON answer beyond it counts as none.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Characters of an answer that go into a reason.
const REASON_CHARS_MAX: usize = 200;

/// The EMA webhooks of one base URL.
pub struct Ema {
    client: Client,
    base_url: String,
    secret: Secret,
}

impl Ema {
    /// `base_url` is `EMA_API_URL`, `secret` goes into `X-Webhook-Secret`.
    pub fn new(base_url: &str, secret: impl Into<Secret>) -> Result<Self, reqwest::Error> {
        let client = Client::builder().timeout(ANSWER_WITHIN).redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { client, base_url: base_url.trim_end_matches('/').to_owned(), secret: secret.into() })
    }

    /// One try.
    pub async fn deliver(&self, event: &CallEvent) -> Outcome {
        let (path, body) = webhook(event);
        let request = self
            .client
            .post(format!("{}/webhooks/livekit/{path}", self.base_url))
            .header("X-Webhook-Secret", self.secret.expose())
            .header("Idempotency-Key", idempotency_key(event))
            .json(&body);
        match request.send().await {
            // without_url: the address may carry credentials
            Err(error) => Outcome::Later(format!("no answer: {}", error.without_url())),
            Ok(response) => {
                let status = response.status();
                match read(response).await {
                    Ok(answer) => judge(status, &self.secret.redact(&answer)),
                    Err(error) => Outcome::Later(format!("HTTP {status}, and its answer broke off: {}", error.without_url())),
                }
            }
        }
    }
}

/// The same for every try of one event, different for any two events.
pub fn idempotency_key(event: &CallEvent) -> String {
    format!("{}-{}", event.session_id, event.sequence)
}

/// The last part of the path, and the body.
pub fn webhook(event: &CallEvent) -> (&'static str, Value) {
    let (path, event_type, data) = match &event.kind {
        CallEventKind::CallInitiated { metadata, started_at_unix_ms } => {
            ("call-initiated", "call_initiated", json!({ "metadata": metadata, "started_at": iso(*started_at_unix_ms) }))
        }
        CallEventKind::Utterance { speaker, text, turn_index, stage } => {
            ("utterance", "utterance", json!({ "speaker": speaker, "text": text, "turn_index": turn_index, "stage": stage }))
        }
        CallEventKind::CallEnded { duration_seconds, total_turns, final_stage, .. } => {
            ("call-ended", "call_ended", json!({ "duration_seconds": duration_seconds, "total_turns": total_turns, "final_stage": final_stage }))
        }
    };
    let mut body = json!({ "event_type": event_type, "session_id": event.session_id, "timestamp": iso(event.at_unix_ms), "data": data });
    if let Some(call_sid) = &event.call_sid {
        body["call_sid"] = json!(call_sid);
    }
    (path, body)
}

fn judge(status: StatusCode, answer: &str) -> Outcome {
    let said = answer.chars().take(REASON_CHARS_MAX).collect::<String>();
    if status.is_success() {
        return match serde_json::from_str::<Value>(answer) {
            Ok(answer) if answer.get("success") == Some(&Value::Bool(false)) => Outcome::Later(format!("HTTP {status} with success false: {said}")),
            // whether it says success is in what is missing
            Err(error) if error.is_eof() && !said.trim().is_empty() => Outcome::Later(format!("HTTP {status} with an answer that breaks off: {said}")),
            _ => Outcome::Sent, // the contract asks for no JSON
        };
    }
    if status.is_redirection() {
        // not followed: the secret is for the configured address only
        return Outcome::Later(format!("HTTP {status}: set EMA_API_URL to the address that it redirects to"));
    }
    let passing = status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
    // a wrong secret is the operator's to mend, and mending it must not need a retry by hand of every event since
    let mendable = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND);
    if passing || mendable { Outcome::Later(format!("HTTP {status}: {said}")) } else { Outcome::Refused(format!("HTTP {status}: {said}")) }
}

async fn read(mut response: reqwest::Response) -> Result<String, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() >= ANSWER_BYTES_MAX {
            body.truncate(ANSWER_BYTES_MAX);
            break;
        }
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// ISO 8601 with ms and Z.
pub fn iso(unix_ms: u64) -> String {
    let at = OffsetDateTime::UNIX_EPOCH + Duration::from_millis(unix_ms);
    at.format(format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z")).unwrap_or_default()
}
