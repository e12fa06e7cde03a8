//! One host: the daemon as a process of its own, what it talks to, and a state folder that outlives it.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;
use voiced_events::outbox::{Entry, Store};
use voiced_lab::ema::{Behaviour, EmaReceiver};
use voiced_lab::phone::{Phone, PhoneSettings};
use voiced_lab::providers::{FakeProviders, Latency, Script};

use crate::{LOOK, PATIENCE, until};

/// What Twilio calls; nothing listens there, signatures are made over it.
pub const PUBLIC: &str = "voice.example.test";
pub const AUTH_TOKEN: &str = "0123456789abcdef0123456789abcdef";
pub const EMA_SECRET: &str = "s3cret";
/// Variables of the user's own that say where weights and programs are.
const FROM_USER: [&str; 4] = ["HOME", "PATH", "XDG_CACHE_HOME", "CACHE_DIRECTORY"];

/// Quick providers: what is tested here is not their delay.
const QUICK: Latency = Latency { stt_interim_ms: 60, stt_final_ms: 20, llm_first_ms: 30, llm_word_ms: 2, tts_first_ms: 20 };

pub struct Host {
    pub fakes: FakeProviders,
    pub ema: EmaReceiver,
    state: TempDir,
    environment: Vec<(String, String)>,
    daemon: Option<Child>,
    address: String,
    /// Times that a daemon was started here; each has a log of its own.
    starts: u32,
    /// What systemd would hold.
    socket: Option<TcpListener>,
}

/// A daemon that is no longer the host's own, but lives; it ends with this.
pub struct Former {
    daemon: Child,
    log: PathBuf,
}

impl Former {
    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// True while a process of its group lives.
    pub fn lives(&mut self) -> bool {
        let _ = self.daemon.try_wait(); // else the main process would count, dead as it is
        signal("0", &format!("-{}", self.daemon.id()))
    }
}

impl Drop for Former {
    fn drop(&mut self) {
        end(&mut self.daemon);
    }
}

impl Host {
    /// A host with remote providers, whose daemon is up. `settings` come last and win.
    pub async fn start(script: Script, settings: &[(&str, &str)]) -> Self {
        Self::start_on(None, script, settings).await
    }

    /// The same under a stand-in for systemd: it holds the socket and hands it to each daemon, whose calls linger.
    pub async fn start_lingering(script: Script, settings: &[(&str, &str)]) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        Self::start_on(Some(socket), script, settings).await
    }

    /// A host whose daemon somebody else starts, at this address, with [`Self::environment`].
    pub async fn elsewhere(address: &str, script: Script, settings: &[(&str, &str)]) -> Self {
        let mut host = Self::without_daemon(None, script, settings).await;
        address.clone_into(&mut host.address);
        host
    }

    async fn start_on(socket: Option<TcpListener>, script: Script, settings: &[(&str, &str)]) -> Self {
        let mut host = Self::without_daemon(socket, script, settings).await;
        host.restart().await;
        host
    }

    async fn without_daemon(socket: Option<TcpListener>, script: Script, settings: &[(&str, &str)]) -> Self {
        let fakes = FakeProviders::start(QUICK, script).await.expect("ports");
        let ema = EmaReceiver::start(None).await.expect("a port");
        let state = TempDir::new().expect("a folder");
        let mut environment: Vec<(String, String)> = FROM_USER.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
        let webhook_url = format!("https://{PUBLIC}");
        let own = [
            ("STATE_DIRECTORY", state.path().to_str().expect("a path in UTF-8")),
            ("PORT", "0"),
            // how busy the machine of the tests is decides nothing
            ("VOICED_ENGINE__HEADROOM_PERCENT", "0"),
            ("VOICED_SERVER__BIND", "127.0.0.1"),
            ("WEBHOOK_URL", &webhook_url),
            ("TWILIO_AUTH_TOKEN", AUTH_TOKEN),
            ("EMA_API_URL", &ema.url()),
            ("EMA_WEBHOOK_SECRET", EMA_SECRET),
            ("DEEPGRAM_API_KEY", "lab"),
            ("DEEPGRAM_BASE_URL", &fakes.deepgram.base_url),
            ("OPENAI_API_KEY", "lab"),
            ("OPENAI_BASE_URL", &fakes.openai_chat.base_url),
            ("CARTESIA_API_KEY", "lab"),
            ("CARTESIA_BASE_URL", &fakes.cartesia.base_url),
            ("VOICED_AGENT__STT", "deepgram/nova-3:en"),
            ("VOICED_AGENT__LLM", "openai/gpt-4o-mini"),
            ("VOICED_AGENT__TTS", "cartesia/sonic-3:lab"),
            ("VOICED_AGENT__GREETING", "Hello."),
        ];
        environment.extend(own.iter().chain(settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Self { fakes, ema, state, environment, daemon: None, address: String::new(), starts: 0, socket }
    }

    /// What the daemon is started with.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// Starts a daemon on the same state; the one before is gone.
    pub async fn restart(&mut self) {
        assert!(self.daemon.is_none(), "a daemon is running");
        self.starts += 1;
        let log = File::create(self.log_file()).expect("a log");
        let mut command = self.socket.as_ref().map_or_else(|| self.command(&["serve"]), |socket| self.handed(socket));
        // a group of its own, so that a child that lingers can be found
        let printed = File::create(self.state.path().join(format!("voiced-{}.out", self.starts))).expect("a file");
        let daemon = command.stdout(printed).stderr(log).process_group(0).spawn().expect("the daemon starts");
        self.daemon = Some(daemon);
        until("the daemon says where it listens", async || {
            let exited = self.daemon.as_mut().and_then(|daemon| daemon.try_wait().ok().flatten());
            assert!(exited.is_none(), "the daemon ended at once: {exited:?}");
            let log = self.log();
            let told = log.split_once("address=").or_else(|| log.split_once("\"address\":\""));
            let address = told.and_then(|(_, rest)| rest.split([' ', '"', '\n']).next());
            address.map(|address| address.clone_into(&mut self.address)).is_some()
        })
        .await;
        until("the daemon is healthy", async || self.get("/health").await.0 == 200).await;
    }

    /// Changes the environment of what is started from now on.
    pub fn set(&mut self, settings: &[(&str, &str)]) {
        self.environment.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    }

    /// Runs `voiced` to its end, with the daemon's settings.
    pub fn voiced(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("voiced runs")
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            end(&mut daemon);
        }
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Any signal, to the process that was started here.
    pub fn signal(&self, name: &str) {
        assert!(signal(name, &self.pid().to_string()), "no SIG{name} was sent");
    }

    /// Of the daemon.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("a daemon").id()
    }

    /// The daemon goes on beside the next one that is started here.
    pub fn stand_by(&mut self) -> Former {
        Former { daemon: self.daemon.take().expect("a daemon"), log: self.log_file() }
    }

    /// How the daemon ends by itself.
    pub async fn exit(&mut self) -> ExitStatus {
        let mut daemon = self.daemon.take().expect("a daemon");
        let begun = Instant::now();
        loop {
            if let Some(status) = daemon.try_wait().expect("a child") {
                return status;
            }
            if begun.elapsed() > PATIENCE {
                self.daemon = Some(daemon);
                panic!("the daemon does not end");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A telephone that calls this host.
    pub fn phone(&self) -> Phone {
        self.phone_signing_with(AUTH_TOKEN)
    }

    /// The same, signing with an auth token that may be wrong.
    pub fn phone_signing_with(&self, auth_token: &str) -> Phone {
        Phone::new(PhoneSettings {
            base_url: self.url("").parse().expect("a URL"),
            auth_token: auth_token.to_owned(),
            account_sid: "AC22222222222222222222222222222222".to_owned(),
            from: "+15550001111".to_owned(),
            to: "+15552223333".to_owned(),
            public_url: format!("https://{PUBLIC}").parse().expect("a URL"),
        })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Status and body; 0 when nobody answers.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let Ok(response) = reqwest::get(self.url(path)).await else { return (0, String::new()) };
        let status = response.status().as_u16();
        (status, response.text().await.unwrap_or_default())
    }

    /// A line of `/metrics`, by its name with labels; 0 when it is not there.
    pub async fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.get("/metrics").await;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().expect("a number"))
    }

    /// The `CallSid`s of the calls now.
    pub async fn calls(&self) -> Vec<String> {
        let (_, body) = self.get("/sessions").await;
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        let id = |session: &Value| session["sessionId"].as_str().and_then(|id| id.strip_prefix("phone-")).map(str::to_owned);
        body["sessions"].as_array().into_iter().flatten().filter_map(id).collect()
    }

    /// The receiver answers nothing but 500 until told otherwise.
    pub fn receiver_fails(&self, fails: bool) {
        self.ema.behave(fails.then_some(Behaviour::Fails { times: u32::MAX }));
    }

    /// What is on disk now.
    pub fn stored(&self) -> Vec<Entry> {
        let store = Store::open(&self.state.path().join("events.db"), &[]).expect("a store");
        store.list(false, 10_000).expect("entries")
    }

    /// Where the record of a call is.
    pub fn record_of(&self, call_sid: &str) -> PathBuf {
        let calls = std::fs::read_dir(self.state.path().join("calls")).expect("records");
        let files: Vec<_> = calls.map(|entry| entry.expect("an entry").path()).collect();
        files.into_iter().find(|file| file.to_string_lossy().contains(call_sid)).expect("a record")
    }

    /// Writes nonsense over the store of a host whose daemon is gone.
    pub fn damage_store(&self) {
        for part in ["events.db", "events.db-wal"] {
            let path = self.state.path().join(part);
            if let Ok(metadata) = std::fs::metadata(&path) {
                std::fs::write(path, vec![0xA5; metadata.len() as usize]).expect("a file");
            }
        }
    }

    /// Puts a folder where the store's file was, and takes it away again: meanwhile nobody can open the store.
    pub fn bar_store(&self, barred: bool) {
        let (file, aside) = (self.state.path().join("events.db"), self.state.path().join("events.db.aside"));
        if barred {
            std::fs::rename(&file, &aside).and_then(|()| std::fs::create_dir(&file)).expect("a folder");
        } else {
            std::fs::remove_dir(&file).and_then(|()| std::fs::rename(&aside, &file)).expect("a file");
        }
    }

    /// Every file of the daemon: its state, and what all of its starts printed and logged.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut folders = vec![self.state.path().to_owned()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push((path.clone(), std::fs::read(path).expect("a file")));
                }
            }
        }
        files
    }

    /// Where `/metrics` is served alone.
    pub fn metrics_address(&self) -> String {
        self.log().split("metrics_at=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("an address for metrics").to_owned()
    }

    /// What the daemon has logged since its start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.state.path().join(format!("voiced-{}.log", self.starts))
    }

    /// The daemon as systemd starts it: the socket is its fourth file.
    fn handed(&self, socket: &TcpListener) -> Command {
        let mut command = Command::new("sh");
        let script = r#"exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$0" serve --linger"#;
        command.args(["-c", script, env!("CARGO_BIN_EXE_voiced")]).env_clear().envs(self.environment.iter().cloned());
        command.stdin(Stdio::from(OwnedFd::from(socket.try_clone().expect("a socket"))));
        command
    }

    /// Files that may not grow fail, as on a full disk, instead of ending the process.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#, env!("CARGO_BIN_EXE_voiced")]);
        command.args(arguments).env_clear().envs(self.environment.iter().cloned());
        command
    }
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port()
}

/// The shell has a kill of its own, so that no package is needed for it.
fn signal(name: &str, pid: &str) -> bool {
    Command::new("sh").args(["-c", &format!("kill -{name} {pid} 2>/dev/null")]).status().is_ok_and(|status| status.success())
}

/// kill -9, of a child that lingers too.
fn end(daemon: &mut Child) {
    signal("KILL", &format!("-{}", daemon.id())); // it may be gone already
    let _ = daemon.wait();
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
    }
}
