//! Access to one vendor: where it is, the key, how long to wait for it.

use crate::failure::Failure;
use crate::secret::Secret;
use serde::Deserialize;
use thiserror::Error;
use url::Url;

/// Deepgram's own address.
pub const DEEPGRAM_BASE_URL: &str = "https://api.deepgram.com";
/// `OpenAI`'s own address; compatible servers have another.
pub const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";
/// Cartesia's own address.
pub const CARTESIA_BASE_URL: &str = "https://api.cartesia.ai";

/// Access to one vendor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `http(s)://` or `ws(s)://`, with the path that all of the vendor's paths share.
    pub base_url: String,
    /// The key. May be empty where `base_url` is not the vendor's own.
    pub api_key: Secret,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

impl Account {
    /// The vendor's own address with the usual timeouts.
    pub fn new(base_url: impl Into<String>, api_key: Secret) -> Self {
        Self { base_url: base_url.into(), api_key, timeouts: Timeouts::default() }
    }

    /// The failure of one who did not answer in time.
    pub(crate) fn late(&self, provider: &'static str, what: String) -> Failure {
        if self.timeouts.may_wait_again { Failure::passing(provider, what) } else { Failure::lasting(provider, what) }
    }
}

/// How long to wait for a provider, in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(clippy::struct_field_names, reason = "the unit stands last in a name")]
pub struct Timeouts {
    /// One try to connect, TLS and upgrade included. A healthy vendor needs some 200.
    pub connect_ms: u64,
    /// From a request to the first token or sound. A caller hangs up on a longer silence.
    pub first_byte_ms: u64,
    /// Between two pieces of one answer.
    pub idle_ms: u64,
    /// Speech to text: sound sent for so long without a word back means that nobody listens (half-open socket).
    pub half_open_ms: u64,
    /// Speech to text: an unanswered finalise with nothing unsettled known counts as answered after this.
    pub finalize_ms: u64,
    /// Who did not answer in time may be asked again, and who asks for a pause may have it. Not where another provider can take over.
    pub may_wait_again: bool,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect_ms: 3_000, first_byte_ms: 5_000, idle_ms: 5_000, half_open_ms: 2_000, finalize_ms: 700, may_wait_again: true }
    }
}

/// What is wrong with settings.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// The vendor's own address wants a key.
    #[error("{provider}: no key is set; set {variable}")]
    KeyMissing {
        /// Which vendor.
        provider: &'static str,
        /// The environment variable that holds its key.
        variable: &'static str,
    },
    /// The key cannot be sent.
    #[error("{provider}: the key has characters that an HTTP header cannot carry")]
    KeyUnusable {
        /// Which vendor.
        provider: &'static str,
    },
    /// The address is not one.
    #[error("{provider}: base_url {base_url:?} is no http(s) or ws(s) address")]
    BaseUrl {
        /// Which vendor.
        provider: &'static str,
        /// What was given.
        base_url: String,
    },
    /// A setting has no usable value.
    #[error("{provider}: {setting} is {problem}")]
    Unusable {
        /// Which vendor.
        provider: &'static str,
        /// Which setting.
        setting: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// A vendor's name and the facts that settings are checked against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vendor {
    /// As in descriptors and error texts.
    pub name: &'static str,
    /// The environment variable of its key.
    pub key_variable: &'static str,
    /// Its own address.
    pub base_url: &'static str,
}

pub(crate) const DEEPGRAM: Vendor = Vendor { name: "deepgram", key_variable: "DEEPGRAM_API_KEY", base_url: DEEPGRAM_BASE_URL };
pub(crate) const OPENAI: Vendor = Vendor { name: "openai", key_variable: "OPENAI_API_KEY", base_url: OPENAI_BASE_URL };
pub(crate) const CARTESIA: Vendor = Vendor { name: "cartesia", key_variable: "CARTESIA_API_KEY", base_url: CARTESIA_BASE_URL };

/// Which scheme a URL is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Requests.
    Http,
    /// Sockets.
    WebSocket,
}

impl Account {
    /// The full URL of `path` at this account; checks the key on the way.
    pub(crate) fn url(&self, vendor: Vendor, scheme: Scheme, path: &str) -> Result<Url, SettingsError> {
        self.check_key(vendor)?;
        let wrong = || SettingsError::BaseUrl { provider: vendor.name, base_url: self.base_url.clone() };
        let (given, rest) = self.base_url.trim().trim_end_matches('/').split_once("://").ok_or_else(wrong)?;
        let secure = match given {
            "https" | "wss" => true,
            "http" | "ws" => false,
            _ => return Err(wrong()),
        };
        let scheme = match (scheme, secure) {
            (Scheme::Http, true) => "https",
            (Scheme::Http, false) => "http",
            (Scheme::WebSocket, true) => "wss",
            (Scheme::WebSocket, false) => "ws",
        };
        Url::parse(&format!("{scheme}://{rest}{path}")).map_err(|_| wrong())
    }

    fn check_key(&self, vendor: Vendor) -> Result<(), SettingsError> {
        if self.api_key.is_empty() && self.base_url.trim().trim_end_matches('/') == vendor.base_url {
            return Err(SettingsError::KeyMissing { provider: vendor.name, variable: vendor.key_variable });
        }
        if !self.api_key.expose().bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
            return Err(SettingsError::KeyUnusable { provider: vendor.name });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_of_either_scheme_serves_requests_and_sockets() {
        let account = Account::new("wss://proxy.example/deep/", Secret::new("k"));
        let url = |scheme| account.url(DEEPGRAM, scheme, "/v1/listen").unwrap().to_string();
        assert_eq!(url(Scheme::Http), "https://proxy.example/deep/v1/listen");
        assert_eq!(url(Scheme::WebSocket), "wss://proxy.example/deep/v1/listen");
        assert!(Account::new("ftp://x", Secret::new("k")).url(DEEPGRAM, Scheme::Http, "/").is_err());
    }

    #[test]
    fn only_a_server_of_our_own_may_go_without_a_key() {
        let missing = Account::new(OPENAI_BASE_URL, Secret::default()).url(OPENAI, Scheme::Http, "/x");
        assert_eq!(missing.unwrap_err().to_string(), "openai: no key is set; set OPENAI_API_KEY");
        assert!(Account::new("http://127.0.0.1:9/v1", Secret::default()).url(OPENAI, Scheme::Http, "/x").is_ok());
    }

    #[test]
    fn no_printed_form_of_an_account_shows_the_key() {
        let account = Account::new(OPENAI_BASE_URL, Secret::new("sk-very-secret\n"));
        assert!(!format!("{account:?} {}", account.api_key).contains("very-secret"));
        assert_eq!(account.api_key.redact("key sk-very-secret refused"), "key (hidden) refused");
    }
}
