//! A real LiveKit server, and people on the official SDK in its rooms.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use voiced_core::resample::Resampler;
use voiced_lab::livekit::{AccessToken, Command, Peer, PeerEvent, PeerSettings, Server, or_skip};
use voiced_lab::providers::Script;

use crate::caller::spoken;
use crate::host::Host;

/// Key of the HTTP API.
pub const API_KEY: &str = "key-of-the-frontend";
/// No peer of these tests stays longer.
const SECONDS_MAX: u32 = 90;

pub struct Venue {
    pub server: Server,
    python: PathBuf,
    files: TempDir,
}

impl Venue {
    /// None, with a word why, where the tools are missing.
    pub async fn open() -> Option<Self> {
        Self::telling(None).await
    }

    /// The same, whose webhooks go to this port.
    pub async fn telling(port: Option<u16>) -> Option<Self> {
        let (binary, python) = (or_skip(Server::find())?, or_skip(Peer::find())?);
        let webhook = port.map(|port| format!("http://127.0.0.1:{port}/telephony/livekit-webhook").parse().expect("a URL"));
        let server = Server::start(&binary, webhook).await.expect("livekit-server");
        Some(Self { server, python, files: TempDir::new().expect("a folder") })
    }

    /// A daemon that works in this venue and is registered there.
    pub async fn host(&self, script: Script, settings: &[(&str, &str)]) -> Host {
        let (url, secret) = (self.server.url(), self.server.api_secret().to_owned());
        let own = [
            ("LIVEKIT_URL", url.as_str()),
            ("LIVEKIT_API_KEY", self.server.api_key()),
            ("LIVEKIT_API_SECRET", &secret),
            ("AGENT_NAME", "repairs"),
            ("VOICED_HTTP__API_KEYS", API_KEY),
        ];
        let all: Vec<_> = own.into_iter().chain(settings.iter().copied()).collect();
        let host = Host::start(script, &all).await;
        crate::until("the worker is registered", async || host.log().contains("registered with LiveKit")).await;
        host
    }

    /// Someone joins with this token.
    pub async fn joins(&self, token: String) -> Peer {
        let record = Some(self.files.path().to_owned());
        let settings = PeerSettings { program: self.python.clone(), url: self.server.url(), token, record, seconds_max: SECONDS_MAX, arguments: Vec::new() };
        Peer::join(settings).await.expect("a peer")
    }

    /// Someone joins a room by the server's own key.
    pub async fn enters(&self, token: AccessToken) -> Peer {
        self.joins(token.to_jwt().expect("a token")).await
    }

    /// What drives a browser; none, with a word why, where it is missing.
    pub fn browser() -> Option<PathBuf> {
        or_skip(Peer::find_browser())
    }

    /// Someone joins by a browser whose microphone hears this file.
    pub async fn browses(&self, node: PathBuf, token: String, microphone: &Path) -> Peer {
        let arguments = vec![microphone.display().to_string()];
        let settings = PeerSettings { program: node, url: self.server.url(), token, record: None, seconds_max: SECONDS_MAX, arguments };
        Peer::browse(settings).await.expect("a browser")
    }

    /// A line spoken by the offline voice as a browser's microphone takes it, with silence around it, in s.
    pub fn microphone(&self, text: &'static str, before_s: usize, after_s: usize) -> PathBuf {
        let mut sound = vec![0; before_s * 48_000];
        Resampler::new(8_000, 48_000).process_i16(&spoken(text), &mut sound);
        sound.resize(sound.len() + after_s * 48_000, 0);
        let path = self.files.path().join("microphone.wav");
        write(&path, 48_000, &sound);
        path
    }

    /// A line spoken by the offline voice, as a file.
    pub fn line(&self, text: &'static str) -> Command {
        let path = self.files.path().join(format!("{}.wav", text.replace(|letter: char| !letter.is_alphanumeric(), "_")));
        if !path.exists() {
            write(&path, 8_000, &spoken(text));
        }
        Command::Play(path)
    }
}

fn write(path: &Path, hz: u32, sound: &[i16]) {
    let spec = hound::WavSpec { channels: 1, sample_rate: hz, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut file = hound::WavWriter::create(path, spec).expect("a file");
    for &sample in sound {
        file.write_sample(sample).expect("room on disk");
    }
    file.finalize().expect("room on disk");
}

/// Status and JSON of a POST with the API key.
pub async fn post(host: &Host, path: &str, body: Value) -> (u16, Value) {
    let request = reqwest::Client::new().post(host.url(path)).bearer_auth(API_KEY).json(&body);
    let response = request.send().await.expect("the daemon answers");
    (response.status().as_u16(), response.json().await.unwrap_or_default())
}

/// A session for this user: its room and token.
pub async fn session(host: &Host, user: &str, agent: Value) -> (String, String) {
    let (status, body) = post(host, "/session", json!({ "userIdentity": user, "agentConfig": agent })).await;
    assert_eq!((status, body["agentDispatched"].as_bool()), (200, Some(true)), "{body}");
    let text = |field: &str| body[field].as_str().expect("a text").to_owned();
    (text("roomName"), text("userToken"))
}

/// Waits for the agent's sound to begin or end.
pub async fn agent_sounds(peer: &mut Peer, on: bool) -> PeerEvent {
    peer.wait_for("sound", |event| event.text("identity").starts_with("agent") && event.is("on") == on).await.expect("the agent's sound")
}

/// Waits until the agent can be written to.
pub async fn agent_is_ready(peer: &mut Peer) {
    let ready = |event: &PeerEvent| event.attribute("lk.agent.state").is_some_and(|state| state != "initializing");
    let joined = peer.wait_for("participant_joined", |event| event.text("identity").starts_with("agent")).await.expect("the agent is there");
    if !ready(&joined) {
        peer.wait_for("attributes", ready).await.expect("the agent is ready");
    }
}

/// Waits for a final transcript that contains this.
pub async fn reads(peer: &mut Peer, words: &str) -> PeerEvent {
    let fits = |event: &PeerEvent| event.text("topic") == "lk.transcription" && event.is("final") && event.text("text").contains(words);
    peer.wait_for("text", fits).await.unwrap_or_else(|error| panic!("a transcript with {words:?}: {error}"))
}
