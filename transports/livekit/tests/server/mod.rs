//! A real livekit-server for the tests, where there is one: named by `VOICED_LIVEKIT_SERVER` or built into
//! `target/tools/livekit-server`.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use url::Url;
use voiced_livekit::api::ServerApi;
use voiced_livekit::token::Keys;

pub const API_KEY: &str = "devkey";
pub const API_SECRET: &str = "made-up-secret-that-is-32-bytes-long!!";

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server, killed with its value.
pub struct Server {
    program: PathBuf,
    directory: TempDir,
    port: u16,
    child: Child,
}

impl Server {
    /// A server of our own, or `None` with a word when there is no program for it.
    pub async fn start(webhook: Option<&str>) -> Option<Self> {
        let Some(program) = program() else {
            assert!(std::env::var_os("CI").is_none(), "no livekit-server: run `make tools`");
            println!("skipped: no livekit-server");
            return None;
        };
        let directory = tempfile::tempdir().expect("a directory");
        let [port, tcp_port] = free_ports();
        let udp_port = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let webhook = webhook.map(|url| format!("webhook: {{api_key: {API_KEY}, urls: [\"{url}\"]}}\n")).unwrap_or_default();
        let config = format!(
            "port: {port}\nbind_addresses: [127.0.0.1]\n\
             rtc: {{tcp_port: {tcp_port}, udp_port: {udp_port}, node_ip: 127.0.0.1, use_external_ip: false}}\n\
             keys: {{{API_KEY}: \"{API_SECRET}\"}}\n{webhook}"
        );
        std::fs::write(directory.path().join("livekit.yaml"), config).expect("a config");
        let child = spawn(&program, &directory);
        let server = Self { program, directory, port, child };
        server.ready().await;
        Some(server)
    }

    /// Kills it without a goodbye.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same port; it remembers nothing.
    pub async fn start_again(&mut self) {
        self.child = spawn(&self.program, &self.directory);
        self.ready().await;
    }

    pub fn url(&self) -> Url {
        format!("ws://127.0.0.1:{}", self.port).parse().expect("a URL")
    }

    pub fn api(&self) -> ServerApi {
        ServerApi::new(&self.url(), &keys())
    }

    async fn ready(&self) {
        let health = format!("http://127.0.0.1:{}/", self.port);
        until("the server to be ready", async || {
            TcpStream::connect(("127.0.0.1", self.port)).is_ok() && reqwest::get(&health).await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            println!("{}", std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default());
        }
    }
}

pub fn keys() -> Keys {
    Keys::new(API_KEY, API_SECRET)
}

/// Polls until it is so; panics with what was waited for when it takes too long.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn program() -> Option<PathBuf> {
    let built = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools/livekit-server"));
    let named = std::env::var_os("VOICED_LIVEKIT_SERVER").filter(|name| !name.is_empty()).map(PathBuf::from);
    named.or(Some(built)).filter(|program| program.is_file())
}

fn spawn(program: &PathBuf, directory: &TempDir) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(directory.path().join("log")).expect("a log");
    let mut command = Command::new(program);
    command.arg("--config").arg(directory.path().join("livekit.yaml"));
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("the server starts")
}

/// Ports that were free a moment ago, held together so that they differ.
fn free_ports() -> [u16; 2] {
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    held.map(|listener| listener.local_addr().expect("an address").port())
}
