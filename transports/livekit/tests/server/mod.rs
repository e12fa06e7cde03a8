//! A real livekit-server of the lab's, as this crate's clients see it.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::time::{Duration, Instant};
use url::Url;
use voiced_lab::livekit::{self as lab, ServerSettings, or_skip};
use voiced_livekit::api::ServerApi;
use voiced_livekit::token::Keys;

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server, killed with its value.
pub struct Server(pub lab::Server);

impl Server {
    /// A server of our own, or `None` with a word when there is no program for it.
    pub async fn start(webhook: Option<&str>) -> Option<Self> {
        let webhook = webhook.map(|url| url.parse().expect("a URL"));
        Self::start_with(ServerSettings { webhook, ..ServerSettings::default() }).await
    }

    /// As [`Self::start`], with more settings.
    pub async fn start_with(settings: ServerSettings) -> Option<Self> {
        let binary = or_skip(lab::Server::find())?;
        Some(Self(lab::Server::start_with(&binary, settings).await.expect("the server starts")))
    }

    /// Kills it without a goodbye.
    pub fn kill(&mut self) {
        self.0.kill().expect("the server can be killed");
    }

    /// Starts it again on the same ports; it remembers nothing.
    pub async fn start_again(&mut self) {
        self.0.restart().await.expect("the server starts again");
    }

    pub fn url(&self) -> Url {
        self.0.url().parse().expect("a URL")
    }

    pub fn keys(&self) -> Keys {
        Keys::new(self.0.api_key(), self.0.api_secret())
    }

    pub fn api(&self) -> ServerApi {
        ServerApi::new(&self.url(), &self.keys())
    }

    /// Lets `identity` into `room`.
    pub fn token(&self, room: &str, identity: &str) -> String {
        self.0.token(room, identity).with_name(identity).to_jwt().expect("a token")
    }
}

/// Keys that no server knows.
pub fn made_up_keys() -> Keys {
    Keys::new("devkey", "made-up-secret-that-is-32-bytes-long!!")
}

/// Polls until it is so; panics with what was waited for when it takes too long.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
