//! `voiced serve` as a process of its own, with fake providers in this one.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use voiced_lab::phone::{Phone, PhoneSettings};
use voiced_lab::providers::{Answer, FakeProviders, Latency, Script};
use voiced_lab::room::Invitation;

use crate::{Stage, process};

/// From the start until the daemon is registered with LiveKit; weights load in a second or two.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at its log.
const LOOK: Duration = Duration::from_millis(50);
/// Signs the phone's requests.
const AUTH_TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// What Twilio would call; nothing listens there, signatures are made over it.
const PUBLIC: &str = "https://voice.example.test";
/// Variables of the user's own that say where weights and programs are.
const FROM_USER: [&str; 4] = ["HOME", "PATH", "XDG_CACHE_HOME", "CACHE_DIRECTORY"];
/// What the fake language model says, in turns.
const REPLIES: [&str; 4] = [
    "Thank you, I have written that down. Is there anything else that I should know about it?",
    "I see. Let me look that up for you, it only takes a moment.",
    "All right, that helps a lot. Could you tell me when it started?",
    "Of course. I can send somebody tomorrow morning, or would the afternoon be better for you?",
];

pub struct Host {
    daemon: Child,
    address: String,
    http: reqwest::Client,
    state: TempDir,
    _fakes: FakeProviders,
}

impl Host {
    /// Starts a daemon that works on the stage's server; `settings` come last and win.
    pub async fn start(stage: &Stage, settings: &[(&str, &str)]) -> Result<Self> {
        let fakes = FakeProviders::start(Latency::default(), script()).await?;
        let state = TempDir::new()?;
        let mut command = Command::new(process::voiced()?);
        command.arg("serve").env_clear().envs(FROM_USER.iter().filter_map(|name| Some((name, std::env::var(name).ok()?))));
        command.envs([
            ("PORT", "0"),
            ("VOICED_SERVER__BIND", "127.0.0.1"),
            ("WEBHOOK_URL", PUBLIC),
            ("TWILIO_AUTH_TOKEN", AUTH_TOKEN),
            ("LIVEKIT_URL", &stage.server.url()),
            ("LIVEKIT_API_KEY", stage.server.api_key()),
            ("LIVEKIT_API_SECRET", stage.server.api_secret()),
            ("DEEPGRAM_API_KEY", "lab"),
            ("DEEPGRAM_BASE_URL", &fakes.deepgram.base_url),
            ("OPENAI_API_KEY", "lab"),
            ("OPENAI_BASE_URL", &fakes.openai_chat.base_url),
            ("CARTESIA_API_KEY", "lab"),
            ("CARTESIA_BASE_URL", &fakes.cartesia.base_url),
            ("VOICED_AGENT__STT", "deepgram/nova-3:en"),
            ("VOICED_AGENT__LLM", "openai/gpt-4o-mini"),
            ("VOICED_AGENT__TTS", "cartesia/sonic-3:lab"),
        ]);
        command.env("STATE_DIRECTORY", state.path()).envs(settings.iter().copied());
        let log = File::create(log_file(&state))?;
        let daemon = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let mut host = Self { daemon, address: String::new(), http: reqwest::Client::new(), state, _fakes: fakes };
        host.ready().await?;
        Ok(host)
    }

    /// The daemon's process.
    pub fn id(&self) -> u32 {
        self.daemon.id()
    }

    /// A session for this user: how to get into its room.
    pub async fn session(&self, user: &str) -> Result<Invitation> {
        let request = self.http.post(self.url("/session")).json(&json!({ "userIdentity": user }));
        let body: Value = request.send().await?.error_for_status()?.json().await?;
        let text = |field: &str| body[field].as_str().map(str::to_owned).with_context(|| format!("no {field} in {body}"));
        Ok(Invitation { url: text("livekitUrl")?, token: text("userToken")? })
    }

    /// The `CallSid` of the one call there is, once it is there.
    pub async fn call(&self) -> Result<String> {
        let deadline = Instant::now() + READY_WITHIN;
        while Instant::now() < deadline {
            let body: Value = self.http.get(self.url("/sessions")).send().await?.json().await?;
            let id = body["sessions"][0]["sessionId"].as_str().and_then(|id| id.strip_prefix("phone-"));
            if let Some(id) = id {
                return Ok(id.to_owned());
            }
            sleep(LOOK).await;
        }
        bail!("no call came up")
    }

    /// A telephone that calls this host.
    pub fn phone(&self) -> Result<Phone> {
        Ok(Phone::new(PhoneSettings {
            base_url: self.url("").parse()?,
            auth_token: AUTH_TOKEN.to_owned(),
            account_sid: format!("AC{:032x}", 1),
            from: "+15550001111".to_owned(),
            to: "+15552223333".to_owned(),
            public_url: PUBLIC.parse()?,
        }))
    }

    async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        while Instant::now() < deadline {
            let log = std::fs::read_to_string(log_file(&self.state)).unwrap_or_default();
            if let Some(status) = self.daemon.try_wait()? {
                bail!("voiced ended ({status}):\n{log}");
            }
            let address = log.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
            if let Some(address) = address.filter(|_| log.contains("registered with LiveKit")) {
                address.clone_into(&mut self.address);
                return Ok(());
            }
            sleep(LOOK).await;
        }
        bail!("voiced is not ready after {} s", READY_WITHIN.as_secs())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // one that is gone already need not be ended
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn log_file(state: &TempDir) -> PathBuf {
    state.path().join("voiced.log")
}

/// More words than any recording has time for: how long the caller speaks decides how many are heard.
fn script() -> Script {
    let caller = |_: usize, utterance: usize| (0..400).map(|word| format!("word{utterance}x{word}")).collect::<Vec<_>>().join(" ");
    let agent = |request: &Value| {
        let turns = request["messages"].as_array().map_or(0, Vec::len);
        Answer::text(REPLIES[turns % REPLIES.len()])
    };
    Script { caller: Arc::new(caller), agent: Arc::new(agent), ..Script::default() }
}
