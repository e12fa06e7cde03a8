//! A real livekit-server, and a way to it that can be cut.

use livekit_token::{AccessToken, VideoGrants};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;

const KEY: &str = "testkey";
const SECRET: &str = "a secret that is longer than thirty-two bytes";
/// A loaded machine may take its time to start a server.
const START_MAX: Duration = Duration::from_secs(30);

pub struct Server {
    binary: PathBuf,
    config: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Server {
    /// Starts a server, or says in one line why there is none.
    pub async fn start() -> Option<Self> {
        Self::start_with("").await
    }

    /// Starts a server with more settings of its `rtc` section.
    pub async fn start_with(rtc: &str) -> Option<Self> {
        let Some(binary) = binary() else {
            assert!(std::env::var_os("CI").is_none(), "no livekit-server: run `make tools`");
            println!("skipped: no livekit-server (VOICED_LIVEKIT_SERVER or target/tools/livekit-server)");
            return None;
        };
        let config = tempfile::tempdir().expect("a directory for the server's settings");
        let [port, tcp_port] = free_tcp_ports();
        let udp_port = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
        let settings = format!(
            "port: {port}\nbind_addresses: [127.0.0.1]\nkeys: {{{KEY}: {SECRET}}}\nlogging: {{level: warn}}\n\
             rtc: {{tcp_port: {tcp_port}, udp_port: {udp_port}, node_ip: 127.0.0.1, use_external_ip: false, enable_loopback_candidate: true{rtc}}}\n"
        );
        std::fs::write(config.path().join("livekit.yaml"), settings).expect("settings written");
        let child = spawn(&binary, &config);
        let server = Self { binary, config, port, child };
        server.ready().await;
        Some(server)
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address())
    }

    /// Ends the server as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().expect("the server can be killed");
        self.child.wait().expect("the server ends");
    }

    /// Starts it once more, with the memory of nobody.
    pub async fn start_again(&mut self) {
        self.child = spawn(&self.binary, &self.config);
        self.ready().await;
    }

    async fn ready(&self) {
        let deadline = Instant::now() + START_MAX;
        while reqwest::get(format!("http://{}/", self.address())).await.is_err() {
            assert!(Instant::now() < deadline, "the server does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A token that lets `identity` into `room`, as an agent where asked.
pub fn token(room: &str, identity: &str) -> String {
    let grants = VideoGrants { room_join: true, room: room.to_owned(), can_update_own_metadata: Some(true), ..VideoGrants::default() };
    AccessToken::with_api_key(KEY, SECRET).with_identity(identity).with_name(identity).with_grants(grants).to_jwt().expect("a token")
}

fn binary() -> Option<PathBuf> {
    let named = std::env::var_os("VOICED_LIVEKIT_SERVER").map(PathBuf::from);
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/livekit-server");
    named.into_iter().chain([built]).find(|path| path.is_file())
}

fn spawn(binary: &PathBuf, config: &tempfile::TempDir) -> Child {
    let log = std::fs::File::create(config.path().join("server.log")).expect("a log");
    let mut command = Command::new(binary);
    command.arg("--config").arg(config.path().join("livekit.yaml")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("the server starts")
}

fn free_tcp_ports() -> [u16; 2] {
    // both are held until both are known
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("bound").port())
}

/// Carries TCP to the server until it is cut.
pub struct Cable {
    address: SocketAddr,
    carrying: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Cable {
    pub async fn to(server: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let carrying: Arc<Mutex<Vec<AbortHandle>>> = Arc::default();
        let carried = carrying.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let task = tokio::spawn(async move {
                    if let Ok(mut far) = tokio::net::TcpStream::connect(server).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
                carried.lock().expect("not poisoned").push(task.abort_handle());
            }
        });
        Self { address, carrying }
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Breaks every connection; the next one is carried again.
    pub fn cut(&self) {
        self.carrying.lock().expect("not poisoned").drain(..).for_each(|task| task.abort());
    }
}
