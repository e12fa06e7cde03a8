//! What the daemon decides for this transport.

use url::Url;
use voiced_secret::Secret;

/// Settings of the Twilio transport.
#[derive(Clone, Debug)]
pub struct TwilioSettings {
    /// The account's primary auth token, with which Twilio signs, and from which stream tokens are made: the nodes of a fleet share it. With
    /// none, nothing that must be signed with it is accepted.
    pub auth_token: Option<Secret>,
    /// Only calls of this account are taken, where given.
    pub account_sid: Option<String>,
    /// Secret of a webhook `SharedKey`, for requests that say they are signed with one.
    pub shared_key: Option<Secret>,
    /// Public base as Twilio sees it, e.g. `https://voice.example.com`; a path in it is kept.
    pub webhook_url: Url,
    /// How long a stream token is good for, in s: Twilio dials within a second or two of the TwiML.
    pub token_ttl_s: u64,
    /// A stream's `start` must arrive this soon after the upgrade, in s.
    pub start_timeout_s: u64,
    /// A stream that says nothing for this long is lost, in s (Twilio sends silence as sound, every 20 ms).
    pub idle_timeout_s: u64,
    /// No stream lives longer than this, in s, whatever else fails to end it.
    pub max_duration_s: u64,
    /// Longest message taken, in bytes; a longer one ends the stream.
    pub message_bytes_max: usize,
    /// Bad messages ignored per stream before the client is cut off.
    pub bad_messages_max: u32,
    /// Messages a second of one stream, 5 s of them at once; beyond it the client is cut off.
    pub messages_per_s_max: u32,
    /// How long a webhook's body may take to arrive, in s.
    pub body_timeout_s: u64,
    /// Check `X-Twilio-Signature`; off only for a demo on loopback.
    pub verify_signatures: bool,
}

impl TwilioSettings {
    /// The defaults at this public base, signatures on.
    pub fn new(webhook_url: Url) -> Self {
        Self {
            auth_token: None,
            account_sid: None,
            shared_key: None,
            webhook_url,
            token_ttl_s: 60,
            start_timeout_s: 5,
            idle_timeout_s: 10,
            max_duration_s: 4 * 3_600,
            message_bytes_max: 64 * 1_024,
            bad_messages_max: 20,
            messages_per_s_max: 200,
            body_timeout_s: 10,
            verify_signatures: true,
        }
    }

    /// The public URL of a path with its query, as Twilio requested and signed it.
    pub(crate) fn public_url(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.webhook_url.as_str().trim_end_matches('/'))
    }

    /// The public URL of a call's stream: `wss` for `https`.
    pub(crate) fn stream_url(&self, call_sid: &str) -> String {
        self.public_url(&format!("/twilio/stream/{call_sid}")).replacen("http", "ws", 1)
    }
}
