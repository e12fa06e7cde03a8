//! Requests to a provider whose answer is a stream: who we are, what a status means, how long to wait.

use crate::account::{Account, Scheme, SettingsError, Vendor};
use crate::failure::{Again, Failure, words};
use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Client, Response, StatusCode, redirect};
use serde_json::Value;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

/// An unused connection is kept for so long: over a caller's turn, below any server's own limit.
const POOL_IDLE: Duration = Duration::from_secs(55);
/// Longest wait for the text of an error answer; its status alone says enough.
const ERROR_TEXT_WAIT: Duration = Duration::from_millis(500);
/// Longest error text that is read, in bytes.
const ERROR_TEXT_MAX: usize = 8 * 1024;

/// One path of one vendor.
#[derive(Debug)]
pub(crate) struct Http {
    client: Client,
    vendor: Vendor,
    account: Account,
    url: Url,
    /// When a connection was last used.
    used_at: Mutex<Option<Instant>>,
}

impl Http {
    /// Checks the account; connects only with the first request.
    pub fn new(vendor: Vendor, account: &Account, path: &str) -> Result<Self, SettingsError> {
        let url = account.url(vendor, Scheme::Http, path)?;
        let client = Client::builder()
            .connect_timeout(Duration::from_millis(account.timeouts.connect_ms))
            .pool_idle_timeout(POOL_IDLE)
            .redirect(redirect::Policy::none()) // a key goes to the address it was given for, and nowhere else
            .user_agent(concat!("voiced/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| SettingsError::Unusable { provider: vendor.name, setting: "TLS", problem: "without any root certificate on this machine" })?;
        Ok(Self { client, vendor, account: account.clone(), url, used_at: Mutex::default() })
    }

    /// Posts `body` and waits for the answer's head.
    pub async fn post(&self, body: &Value) -> Result<Body<'_>, Failure> {
        let now = Instant::now();
        *self.used_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        let first_by = now + Duration::from_millis(self.account.timeouts.first_byte_ms);
        let mut request = self.client.post(self.url.clone()).json(body);
        if !self.account.api_key.is_empty() {
            request = request.bearer_auth(self.account.api_key.expose());
        }
        let response = timeout_at(first_by, request.send()).await.map_err(|_| self.late())?;
        let response = response.map_err(|error| self.broken(&error))?;
        if response.status().is_success() {
            return Ok(Body { http: self, response, first_by: Some(first_by) });
        }
        Err(self.refused(response).await)
    }

    /// Opens a connection for a request that comes soon, unless one is there: asks for nothing, and any answer will do.
    pub fn warm(&self) {
        let mut used_at = self.used_at.lock().unwrap_or_else(PoisonError::into_inner);
        if used_at.is_some_and(|at| at.elapsed() < POOL_IDLE) {
            return;
        }
        *used_at = Some(Instant::now());
        let asked = self.client.head(self.url.clone()).timeout(Duration::from_millis(self.account.timeouts.connect_ms)).send();
        tokio::spawn(async move {
            let _ = asked.await; // the request that needs it will say what is wrong
        });
    }

    fn late(&self) -> Failure {
        self.account.late(self.vendor.name, format!("no answer within {} ms", self.account.timeouts.first_byte_ms))
    }

    fn broken(&self, error: &reqwest::Error) -> Failure {
        let what = if error.is_connect() { "could not connect" } else { "the connection broke" };
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper; // the innermost cause says it shortest, and holds no URL
        }
        let cause = if std::ptr::addr_eq(cause, error) { String::new() } else { format!(" ({})", words(&cause.to_string())) };
        Failure::passing(self.vendor.name, format!("{what}{cause}"))
    }

    async fn refused(&self, mut response: Response) -> Failure {
        let (status, headers) = (response.status(), response.headers().clone());
        let mut text = Vec::new();
        let _ = timeout(ERROR_TEXT_WAIT, async {
            while let Ok(Some(bytes)) = response.chunk().await
                && text.len() < ERROR_TEXT_MAX
            {
                text.extend_from_slice(&bytes);
            }
        })
        .await;
        refusal(self.vendor, status, &headers, &self.account.api_key.redact(&String::from_utf8_lossy(&text)))
    }
}

/// The body of an answer, read piece by piece.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    http: &'a Http,
    response: Response,
    first_by: Option<Instant>,
}

impl Body<'_> {
    /// The next bytes, `None` at the end. Until [`Self::answered`] the first-byte limit of the request holds, then the
    /// idle limit, counted from this call: a slow listener is not the provider's fault.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let idle_ms = self.http.account.timeouts.idle_ms;
        let until = self.first_by.unwrap_or_else(|| Instant::now() + Duration::from_millis(idle_ms));
        match timeout_at(until, self.response.chunk()).await {
            Ok(bytes) => bytes.map_err(|error| self.http.broken(&error)),
            Err(_) if self.first_by.is_some() => Err(self.http.late()),
            Err(_) => Err(Failure::passing(self.http.vendor.name, format!("the answer stopped for {idle_ms} ms"))),
        }
    }

    /// A failure that the answer itself tells of, without the key, should it be repeated there.
    pub fn redacted(&self, mut failure: Failure) -> Failure {
        failure.what = self.http.account.api_key.redact(&failure.what);
        failure
    }

    /// The first useful piece has come.
    pub fn answered(&mut self) {
        self.first_by = None;
    }

    /// The kind of content, without parameters, in lower case; empty when not told.
    pub fn content_type(&self) -> String {
        let value = self.response.headers().get(reqwest::header::CONTENT_TYPE);
        let text = value.and_then(|value| value.to_str().ok()).unwrap_or_default();
        text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}

/// What an answer that is no success means; also for a refused WebSocket upgrade.
pub(crate) fn refusal(vendor: Vendor, status: StatusCode, headers: &HeaderMap, text: &str) -> Failure {
    let provider = vendor.name;
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        // providers repeat parts of the key in this text
        return Failure::lasting(provider, format!("HTTP {}: the key was refused ({})", status.as_u16(), vendor.key_variable));
    }
    let detail = error_message(text);
    let again = match status.as_u16() {
        429 if text.contains("insufficient_quota") => Again::Never,
        429 | 408 | 500..=599 => retry_after(headers).map_or(Again::Soon, Again::After),
        _ => Again::Never,
    };
    let colon = if detail.is_empty() { "" } else { ": " };
    Failure { provider, what: format!("HTTP {}{colon}{detail}", status.as_u16()), again }
}

/// The sentence inside a vendor's error object, or the text itself.
pub(crate) fn error_message(text: &str) -> String {
    let object = serde_json::from_str::<Value>(text).unwrap_or_default();
    let sentence = [&object["error"]["message"], &object["err_msg"], &object["message"], &object["error"]].into_iter().find_map(Value::as_str);
    words(sentence.unwrap_or(text))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = number("retry-after-ms").map(|ms| ms / 1_000.0).or_else(|| number("retry-after"))?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::OPENAI;

    fn refuse(status: u16, header: Option<(&'static str, &str)>, text: &str) -> Failure {
        let headers = header.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).into_iter().collect();
        refusal(OPENAI, StatusCode::from_u16(status).unwrap(), &headers, text)
    }

    #[test]
    fn a_status_decides_whether_to_try_again() {
        assert_eq!(refuse(500, None, "").again, Again::Soon);
        assert_eq!(refuse(429, Some(("retry-after", "1.5")), "").again, Again::After(Duration::from_millis(1_500)));
        assert_eq!(refuse(429, Some(("retry-after-ms", "20")), "").again, Again::After(Duration::from_millis(20)));
        assert_eq!(refuse(429, Some(("retry-after", "Mon, 1 Jan")), "").again, Again::Soon);
        assert_eq!(refuse(429, None, r#"{"error":{"code":"insufficient_quota"}}"#).again, Again::Never);
        assert_eq!(refuse(400, None, "").again, Again::Never);
    }

    #[test]
    fn an_error_text_is_one_short_line_that_never_repeats_the_key() {
        let refused = refuse(401, None, r#"{"error":{"message":"Incorrect API key provided: sk-ab***yz"}}"#);
        assert_eq!(refused.to_string(), "openai: HTTP 401: the key was refused (OPENAI_API_KEY)");
        let wrong = refuse(404, None, r#"{"error":{"message":"The model\n does not exist"}}"#);
        assert_eq!(wrong.to_string(), "openai: HTTP 404: The model does not exist");
        assert!(refuse(502, None, &"<html>".repeat(900)).to_string().len() < 300);
    }
}
