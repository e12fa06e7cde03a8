//! Tools of the operator's own for language models: an HTTP address each, posted to when a model calls it.
//!
//! A call has effects, so it is made once: no second try, no redirect, and nobody who stops waiting takes it back. Whatever
//! goes wrong becomes words for the model, which is the one to tell the caller.

mod arguments;

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, redirect};
use serde_json::{Value, json};
use tokio::time::timeout;
use url::Url;
use voiced_core::id::TurnId;
use voiced_core::model::{ToolCall, ToolOutcome};

use crate::account::SettingsError;
use crate::failure::words;
use crate::llm::ToolDefinition;
use crate::secret::Secret;

/// Longest answer of a tool, in bytes: some 4,000 tokens, which a model reads in a moment.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// One try to connect, in ms; a tool that is there needs some 200.
const CONNECT_MS: u64 = 3_000;
/// Shortest part of a header's value that is taken for a key and hidden in answers, in bytes; `Bearer` is none.
const KEY_BYTES_MIN: usize = 8;

/// One tool.
#[derive(Clone, Debug)]
pub struct ToolSettings {
    /// What the model is told of it.
    pub definition: ToolDefinition,
    /// Where its calls go.
    pub url: String,
    /// From the call to the whole answer.
    pub timeout_ms: u64,
    /// Sent with each call; keys, most likely.
    pub headers: Vec<(String, Secret)>,
}

/// Whose call it is.
#[derive(Clone, Debug)]
pub struct ToolContext {
    /// The session.
    pub session_id: String,
    /// Twilio's name of the call, where it has one.
    pub call_sid: Option<String>,
    /// The turn that the answer belongs to.
    pub turn: TurnId,
    /// The same for the same call and for no other.
    pub idempotency_key: String,
}

/// What came of a call.
#[derive(Clone, Debug)]
pub struct ToolReport {
    /// For the model.
    pub outcome: ToolOutcome,
    /// One word for `/metrics`: `ok`, or what went wrong.
    pub label: &'static str,
}

impl ToolReport {
    /// A call that came to nothing.
    pub fn failed(label: &'static str, reason: impl Into<String>) -> Self {
        Self { outcome: ToolOutcome::Failed(reason.into()), label }
    }
}

/// All tools of an agent.
#[derive(Debug)]
pub struct Tools {
    client: Client,
    tools: Vec<Tool>,
}

#[derive(Debug)]
struct Tool {
    settings: ToolSettings,
    url: Url,
    headers: HeaderMap,
}

impl Tools {
    /// Checks the settings; connects only with a call.
    pub fn new(settings: Vec<ToolSettings>) -> Result<Self, SettingsError> {
        let client = Client::builder()
            .connect_timeout(Duration::from_millis(CONNECT_MS))
            .redirect(redirect::Policy::none()) // a key goes to the address it was given for, and nowhere else
            .user_agent(concat!("voiced/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| unusable("TLS", "without any root certificate on this machine"))?;
        Ok(Self { client, tools: settings.into_iter().map(Tool::new).collect::<Result<_, _>>()? })
    }

    /// What models are told of them.
    pub fn definitions(&self) -> Vec<ToolDefinition> {
        self.tools.iter().map(|tool| tool.settings.definition.clone()).collect()
    }

    /// Makes a call, with arguments that the tool asks for, and waits for its whole answer.
    pub async fn call(&self, call: &ToolCall, context: &ToolContext) -> ToolReport {
        let Some(tool) = self.tools.iter().find(|tool| tool.settings.definition.name == call.name) else {
            return ToolReport::failed("unknown", "there is no such tool");
        };
        let arguments = match arguments::read(&tool.settings.definition.parameters, &call.arguments) {
            Ok(arguments) => arguments,
            Err(reason) => return ToolReport::failed("bad_arguments", format!("the arguments do not fit: {reason}")),
        };
        let limit_ms = tool.settings.timeout_ms;
        match timeout(Duration::from_millis(limit_ms), tool.post(&self.client, arguments, context)).await {
            Ok(Ok(text)) => ToolReport { outcome: ToolOutcome::Answered(tool.redact(&text)), label: "ok" },
            Ok(Err((label, reason))) => ToolReport::failed(label, tool.redact(&reason)),
            Err(_) => ToolReport::failed("timeout", format!("no answer within {limit_ms} ms; it may still be done")),
        }
    }
}

/// A label for `/metrics` and words for the model.
type Trouble = (&'static str, String);

impl Tool {
    fn new(settings: ToolSettings) -> Result<Self, SettingsError> {
        let url = Url::parse(&settings.url).map_err(|_| unusable("url", "no address"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            let name = HeaderName::try_from(name.as_str()).map_err(|_| unusable("headers", "with a name that HTTP does not know"))?;
            let mut value = HeaderValue::try_from(value.expose()).map_err(|_| unusable("headers", "with characters that HTTP cannot carry"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(Self { settings, url, headers })
    }

    async fn post(&self, client: &Client, arguments: Value, context: &ToolContext) -> Result<String, Trouble> {
        let body = json!({
            "name": self.settings.definition.name,
            "arguments": arguments,
            "session_id": context.session_id,
            "call_sid": context.call_sid,
            "turn": context.turn.0,
        });
        let request = client.post(self.url.clone()).headers(self.headers.clone()).header("Idempotency-Key", &context.idempotency_key).json(&body);
        // the error's own text holds the address, which may hold a key
        let mut response = request
            .send()
            .await
            .map_err(|error| ("unreachable", if error.is_connect() { "it cannot be reached" } else { "the connection broke" }.to_owned()))?;
        let bytes = read(&mut response).await?;
        let text = String::from_utf8(bytes);
        let status = response.status();
        if !status.is_success() {
            let told = words(&text.unwrap_or_default());
            let colon = if told.is_empty() { "" } else { ": " };
            return Err(("refused", format!("HTTP {}{colon}{told}", status.as_u16())));
        }
        let text = text.map_err(|_| ("wrong_content", "the answer is no text".to_owned()))?;
        accepted(&content_type(&response), text)
    }

    /// `text` without the keys, should the tool repeat them.
    fn redact(&self, text: &str) -> String {
        let parts = self.settings.headers.iter().flat_map(|(_, value)| value.expose().split_whitespace()).filter(|part| part.len() >= KEY_BYTES_MIN);
        parts.fold(text.to_owned(), |text, key| Secret::new(key).redact(&text))
    }
}

async fn read(response: &mut Response) -> Result<Vec<u8>, Trouble> {
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|_| ("unreachable", "the answer broke off".to_owned()))? {
        if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(("too_big", format!("the answer is longer than {ANSWER_BYTES_MAX} bytes")));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// The answer as the model is to read it. A page for people is most likely a proxy's error.
fn accepted(content_type: &str, text: String) -> Result<String, Trouble> {
    let is_json = content_type == "application/json" || content_type.ends_with("+json");
    if is_json && !text.trim().is_empty() && serde_json::from_str::<Value>(&text).is_err() {
        return Err(("wrong_content", "the answer is not the JSON that it claims to be".into()));
    }
    if !is_json && !matches!(content_type, "" | "text/plain") {
        return Err(("wrong_content", format!("the answer is neither JSON nor text but {}", words(content_type))));
    }
    Ok(if text.trim().is_empty() { "done".into() } else { text })
}

fn content_type(response: &Response) -> String {
    let value = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn unusable(setting: &'static str, problem: &'static str) -> SettingsError {
    SettingsError::Unusable { provider: "tool", setting, problem }
}
