//! A real livekit-server on free ports of this machine.
//!
//! Its configuration goes through the environment, so neither a file nor a command line holds the secret. Media needs a
//! network card: `LiveKit`'s WebRTC passes over loopback.

use super::process::Process;
use super::tools::{self, Missing};
use livekit_token::{AccessToken, VideoGrants};
use serde_json::json;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use url::Url;

/// From start to the first `OK`. It takes a tenth of a second; the rest is for a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// Between two questions whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How long one question may take.
const ASKS_FOR_MAX: Duration = Duration::from_secs(1);
/// Sets of ports tried: another process may take one between our look and the server's.
const PORT_TRIES: u32 = 3;

/// A running server; killed when dropped.
pub struct Server {
    binary: PathBuf,
    settings: ServerSettings,
    place: Place,
    api_secret: String,
    process: Process,
}

/// What a server is to do beside the usual.
#[derive(Clone, Debug, Default)]
pub struct ServerSettings {
    /// Where it posts its webhooks.
    pub webhook: Option<Url>,
    /// Takes media over TCP only.
    pub force_tcp: bool,
    /// Relays media: over UDP on [`Server::turn_udp`], which it tells participants of, and over TCP on
    /// [`Server::turn_tcp`], which it does not.
    pub turn: bool,
    /// Agrees to Opus alone, without RED beside it.
    pub without_red: bool,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    node_ip: Ipv4Addr,
    http_port: u16,
    tcp_port: u16,
    udp_port: u16,
    turn_udp_port: u16,
    turn_tcp_port: u16,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// WebRTC's media passes over loopback, and there is nothing else.
    #[error("this machine has no IPv4 address but loopback, which LiveKit's media does not use: give it a network card")]
    NoAddress,
    /// No port, or no process.
    #[error("livekit-server does not start: {0}")]
    Io(#[from] io::Error),
    /// It ended by itself.
    #[error("livekit-server ended ({status}):{log}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// Its last words.
        log: String,
    },
    /// It runs, and does not answer.
    #[error("livekit-server is not ready after {} s:{log}", READY_WITHIN.as_secs())]
    NotReady {
        /// Its last words.
        log: String,
    },
}

impl Server {
    /// The binary: `VOICED_LIVEKIT_SERVER`, else what `make tools` built.
    pub fn find() -> Result<PathBuf, Missing> {
        tools::find("livekit-server", "tools", "VOICED_LIVEKIT_SERVER", "livekit-server")
    }

    /// Starts a server on free ports and waits until it answers. It posts its webhooks to `webhook`.
    pub async fn start(binary: &Path, webhook: Option<Url>) -> Result<Self, ServerError> {
        Self::start_with(binary, ServerSettings { webhook, ..ServerSettings::default() }).await
    }

    /// As [`Self::start`], with more settings.
    pub async fn start_with(binary: &Path, settings: ServerSettings) -> Result<Self, ServerError> {
        let node_ip = node_ip().ok_or(ServerError::NoAddress)?;
        let api_secret = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let mut tries = 1;
        let (place, process) = loop {
            let place = Place::free(node_ip)?;
            match launch(binary, place, &api_secret, &settings).await {
                Ok(process) => break (place, process),
                Err(ServerError::Ended { .. }) if tries < PORT_TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        };
        Ok(Self { binary: binary.to_owned(), settings, place, api_secret, process })
    }

    /// Kills the server as a crash would: no goodbye. Nothing when it is dead already.
    pub fn kill(&mut self) -> Result<(), ServerError> {
        Ok(self.process.kill()?)
    }

    /// Kills the server and starts it again on the same ports; its rooms are gone.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        self.kill()?;
        self.process = launch(&self.binary, self.place, &self.api_secret, &self.settings).await?;
        Ok(())
    }

    /// Where participants and workers connect.
    pub fn url(&self) -> String {
        format!("ws://{}", self.place.http())
    }

    /// Where its API is.
    pub fn http_url(&self) -> String {
        format!("http://{}", self.place.http())
    }

    /// Where it relays media over UDP, where it does.
    pub fn turn_udp(&self) -> SocketAddr {
        (self.place.node_ip, self.place.turn_udp_port).into()
    }

    /// Where it relays media over TCP, where it does.
    pub fn turn_tcp(&self) -> SocketAddr {
        (self.place.node_ip, self.place.turn_tcp_port).into()
    }

    /// Where it listens: for signalling, and for media.
    pub(super) fn doors(&self) -> (SocketAddr, SocketAddr) {
        (self.place.http(), SocketAddr::from((self.place.node_ip, self.place.udp_port)))
    }

    /// The key that tokens are issued by.
    pub fn api_key(&self) -> &'static str {
        API_KEY
    }

    /// What tokens are signed with.
    pub fn api_secret(&self) -> &str {
        &self.api_secret
    }

    /// A token that lets `identity` into `room`, to speak, hear and change its own attributes; add what else it needs.
    pub fn token(&self, room: &str, identity: &str) -> AccessToken {
        let grants = VideoGrants { room_join: true, room: room.to_owned(), can_update_own_metadata: Some(true), ..VideoGrants::default() };
        AccessToken::with_api_key(API_KEY, &self.api_secret).with_identity(identity).with_grants(grants)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("place", &self.place).finish_non_exhaustive()
    }
}

const API_KEY: &str = "voiced-lab";

async fn launch(binary: &Path, place: Place, api_secret: &str, settings: &ServerSettings) -> Result<Process, ServerError> {
    let mut command = Command::new(binary);
    // of our own environment nothing: a LIVEKIT_KEYS or a proxy would change what is tested
    command.env_clear().env("LIVEKIT_CONFIG", config(place, api_secret, settings));
    let mut server = Process::spawn(&mut command)?;
    if let Some(stdout) = server.child.stdout.take() {
        server.follow(stdout)?;
    }
    let http = reqwest::Client::builder().no_proxy().timeout(ASKS_FOR_MAX).build().map_err(io::Error::other)?;
    let deadline = Instant::now() + READY_WITHIN;
    while Instant::now() < deadline {
        if let Some(status) = server.ended()? {
            return Err(ServerError::Ended { status, log: server.log.to_string() });
        }
        if is_ready(&http, place).await {
            return Ok(server);
        }
        sleep(ASK_EVERY).await;
    }
    Err(ServerError::NotReady { log: server.log.to_string() })
}

async fn is_ready(http: &reqwest::Client, place: Place) -> bool {
    match http.get(format!("http://{}/", place.http())).send().await {
        Ok(answer) => answer.text().await.is_ok_and(|body| body == "OK"),
        Err(_) => false,
    }
}

/// YAML is what the server reads, and JSON is YAML.
fn config(place: Place, api_secret: &str, settings: &ServerSettings) -> String {
    let mut config = json!({
        "port": place.http_port,
        "bind_addresses": ["127.0.0.1", place.node_ip],
        "rtc": {
            "tcp_port": place.tcp_port,
            "udp_port": place.udp_port,
            "node_ip": place.node_ip,
            "use_external_ip": false,
            "force_tcp": settings.force_tcp,
        },
        "keys": { API_KEY: api_secret },
    });
    if settings.turn {
        config["turn"] = json!({
            "enabled": true,
            "domain": "turn.example.org",
            "udp_port": place.turn_udp_port,
            // plain TCP, as if a load balancer took the TLS off
            "tls_port": place.turn_tcp_port,
            "external_tls": true,
            "bind_addresses": [place.node_ip],
            // this machine's address may be a private one, which is not relayed to otherwise
            "allow_restricted_peer_cidrs": [format!("{}/32", place.node_ip)],
        });
    }
    if settings.without_red {
        config["room"] = json!({ "enabled_codecs": [{ "mime": "audio/opus" }] });
    }
    if let Some(webhook) = &settings.webhook {
        config["webhook"] = json!({ "api_key": API_KEY, "urls": [webhook.as_str()] });
    }
    config.to_string()
}

impl Place {
    /// Ports that are free now; all are held until the last is found, so that no two are the same.
    fn free(node_ip: Ipv4Addr) -> io::Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let tcp = [TcpListener::bind(any)?, TcpListener::bind(any)?, TcpListener::bind(any)?];
        let udp = [UdpSocket::bind(any)?, UdpSocket::bind(any)?];
        Ok(Self {
            node_ip,
            http_port: tcp[0].local_addr()?.port(),
            tcp_port: tcp[1].local_addr()?.port(),
            turn_tcp_port: tcp[2].local_addr()?.port(),
            udp_port: udp[0].local_addr()?.port(),
            turn_udp_port: udp[1].local_addr()?.port(),
        })
    }

    fn http(self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.http_port))
    }
}

/// An IPv4 address of this machine that is not loopback: the one that the route outwards has, else any.
fn node_ip() -> Option<Ipv4Addr> {
    routed_ip().or_else(|| first_ip(&std::fs::read_to_string("/proc/net/fib_trie").ok()?))
}

fn routed_ip() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // connecting a datagram socket asks for a route and sends nothing; the address is one kept for documentation
    socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(ip) if !ip.is_loopback() && !ip.is_unspecified() => Some(ip),
        _ => None,
    }
}

/// The kernel's table names an address on one line, and on the next that it is this host's.
fn first_ip(fib_trie: &str) -> Option<Ipv4Addr> {
    let lines = fib_trie.lines().map(str::trim);
    lines.clone().zip(lines.skip(1)).filter(|(_, kind)| *kind == "/32 host LOCAL").find_map(|(address, _)| {
        let ip: Ipv4Addr = address.strip_prefix("|-- ")?.parse().ok()?;
        (!ip.is_loopback()).then_some(ip)
    })
}
