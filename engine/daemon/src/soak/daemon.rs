//! The daemon under test: a process of this very program, on a state folder that outlives it.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use voiced_events::outbox::Store;
use voiced_lab::ema::EmaReceiver;
use voiced_lab::phone::{Phone, PhoneSettings};
use voiced_lab::providers::FakeProviders;

use super::account::Sample;

const AUTH_TOKEN: &str = "0123456789abcdef0123456789abcdef";
const PUBLIC: &str = "https://voice.example.test";
/// A daemon that does not listen by then never does.
const START: Duration = Duration::from_mins(1);
/// Patience with an answer of it.
const ANSWER: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

pub struct Daemon {
    state: PathBuf,
    environment: Vec<(&'static str, String)>,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    child: Option<Child>,
    address: String,
    starts: u32,
}

impl Daemon {
    pub fn new(state: &Path, fakes: &FakeProviders, ema: &EmaReceiver) -> Result<Self> {
        std::fs::create_dir_all(state)?;
        let text = |text: &str| text.to_owned();
        let environment = vec![
            ("STATE_DIRECTORY", state.display().to_string()),
            ("PORT", text("0")),
            // phones and fakes share the machine: their load is not the daemon's
            ("VOICED_ENGINE__HEADROOM_PERCENT", text("0")),
            ("VOICED_SERVER__BIND", text("127.0.0.1")),
            ("WEBHOOK_URL", text(PUBLIC)),
            ("TWILIO_AUTH_TOKEN", text(AUTH_TOKEN)),
            ("EMA_API_URL", ema.url()),
            ("EMA_WEBHOOK_SECRET", text("soak")),
            ("DEEPGRAM_API_KEY", text("lab")),
            ("DEEPGRAM_BASE_URL", fakes.deepgram.base_url.clone()),
            ("OPENAI_API_KEY", text("lab")),
            ("OPENAI_BASE_URL", fakes.openai_chat.base_url.clone()),
            ("CARTESIA_API_KEY", text("lab")),
            ("CARTESIA_BASE_URL", fakes.cartesia.base_url.clone()),
            // the second of each is at the same fake: it meets a fault's later requests
            ("VOICED_AGENT__STT", text("deepgram/nova-3:en, deepgram/nova-2:en")),
            ("VOICED_AGENT__LLM", text("openai/gpt-4o-mini, openai/gpt-4o")),
            ("VOICED_AGENT__TTS", text("cartesia/sonic-3:lab, openai/gpt-4o-mini-tts")),
            ("VOICED_AGENT__GREETING", text("Hello.")),
        ];
        Ok(Self { state: state.to_owned(), environment, running: Mutex::default() })
    }

    /// Starts it and waits until it listens.
    pub async fn start(&self) -> Result<()> {
        let log = {
            let mut running = self.running();
            running.starts += 1;
            let log = self.state.join(format!("voiced-{}.log", running.starts));
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("serve").envs(self.environment.iter().map(|(name, value)| (*name, value.as_str())));
            running.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?).spawn()?);
            log
        };
        let begun = Instant::now();
        loop {
            let mut text = String::new();
            let _ = File::open(&log)?.read_to_string(&mut text);
            if let Some(address) = text.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()) {
                address.clone_into(&mut self.running().address);
                return Ok(());
            }
            ensure!(begun.elapsed() < START, "the daemon does not listen: see {}", log.display());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// kill -9.
    pub fn kill(&self) {
        if let Some(mut child) = self.running().child.take() {
            let _ = child.kill(); // it may be gone already
            let _ = child.wait();
        }
    }

    /// Stops it for so long, as a host that swaps or a debugger would.
    pub async fn suspend(&self, time: Duration) {
        let Some(pid) = self.pid() else { return };
        let signal = |name: &str| Command::new("sh").args(["-c", &format!("kill -{name} {pid} 2>/dev/null")]).status();
        let _ = signal("STOP");
        tokio::time::sleep(time).await;
        let _ = signal("CONT"); // killed meanwhile is as well
    }

    pub fn phone(&self) -> Phone {
        let parse = |url: &str| url.parse().unwrap_or_else(|_| unreachable!("an address that a daemon told: {url}"));
        Phone::new(PhoneSettings {
            base_url: parse(&format!("http://{}", self.address())),
            auth_token: AUTH_TOKEN.into(),
            account_sid: format!("AC{:032x}", 1),
            from: "+15550100".into(),
            to: "+15550199".into(),
            public_url: parse(PUBLIC),
        })
    }

    pub fn sample(&self) -> Option<Sample> {
        Sample::of(self.pid()?)
    }

    pub fn store(&self) -> PathBuf {
        self.state.join("events.db")
    }

    /// Waits until no call is left and nothing is owed.
    pub async fn settle(&self, patience: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            let store = Store::open(&self.store(), &["ema"]);
            let owed = store.and_then(|store| Ok(store.owed(1)? + store.processes()?.iter().map(|process| process.calls.len()).sum::<usize>()));
            if matches!(owed, Ok(0)) {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await; // sockets that were told to close do
    }

    /// The bucket of the slowest tick since the last start, µs; `None` beyond all of them.
    pub async fn worst_tick_us(&self) -> Option<u64> {
        let metrics = self.get("/metrics").await.unwrap_or_default();
        let mut buckets = metrics.lines().filter_map(|line| {
            let (le, count) = line.strip_prefix("voiced_tick_us_bucket{")?.split_once("le=\"")?.1.split_once("\"} ")?;
            Some((le.parse().ok(), count.parse::<u64>().ok()?))
        });
        let buckets: Vec<(Option<u64>, u64)> = buckets.by_ref().collect();
        let all = buckets.last()?.1;
        buckets.iter().find(|(_, count)| *count == all)?.0
    }

    /// Sends bytes that are nothing, and reads what comes.
    pub async fn send(&self, bytes: &[u8]) -> Result<String> {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address()).await?;
            stream.write_all(bytes).await?;
            let mut answer = Vec::new();
            stream.take(4 << 20).read_to_end(&mut answer).await?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        tokio::time::timeout(ANSWER, exchange).await.context("no answer")?
    }

    async fn get(&self, path: &str) -> Result<String> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).await
    }

    fn address(&self) -> String {
        self.running().address.clone()
    }

    fn pid(&self) -> Option<u32> {
        self.running().child.as_ref().map(Child::id)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
