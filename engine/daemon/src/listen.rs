//! The socket that calls come in by: our own, or one that systemd holds (`voiced.socket`). A socket of systemd's outlives
//! us: while one process drains, its successor takes the calls. So the one that drains stops taking connections at once
//! and closes those that are idle; what came in between waits in the kernel for the successor. On a socket of our own
//! nobody else would answer: there the drain goes on answering, with an apology. `/metrics` may have a socket of its own.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use listenfd::ListenFd;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use voiced_config::Server;

use crate::http::{self, Gate};

/// How long the process before us may take to leave the address of `/metrics`, which no systemd holds for us.
const METRICS_FREE_WITHIN: Duration = Duration::from_secs(5);
/// Pause between two looks for it.
const LOOK: Duration = Duration::from_millis(100);

/// Open sockets.
pub struct Front {
    listener: TcpListener,
    /// It is systemd's.
    handed: bool,
    metrics: Option<TcpListener>,
}

/// HTTP being answered.
pub struct Answering {
    leave: watch::Sender<bool>,
    handed: bool,
    tasks: Vec<JoinHandle<()>>,
}

impl Front {
    /// Takes systemd's socket, or opens one.
    pub async fn open(settings: &Server) -> Result<Self> {
        let metrics = metrics(&settings.metrics_bind).await?;
        if let Some(listener) = ListenFd::from_env().take_tcp_listener(0).context("the socket handed over (LISTEN_FDS)")? {
            listener.set_nonblocking(true)?;
            return Ok(Self { listener: TcpListener::from_std(listener)?, handed: true, metrics });
        }
        let listener = TcpListener::bind((settings.bind.as_str(), settings.port))
            .await
            .with_context(|| format!("cannot listen on {}:{} (server.bind, PORT)", settings.bind, settings.port))?;
        Ok(Self { listener, handed: false, metrics })
    }

    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Answers until told to stop: everything, and `/metrics` where it has an address of its own.
    pub fn answer(self, (router, gate): (Router, Arc<Gate>), (metrics_router, metrics_gate): (Router, Arc<Gate>)) -> Answering {
        let (leave, left) = watch::channel(false);
        let mut tasks = vec![tokio::spawn(http::serve(self.listener, router, gate, left.clone()))];
        tasks.extend(self.metrics.map(|listener| tokio::spawn(http::serve(listener, metrics_router, metrics_gate, left))));
        Answering { leave, handed: self.handed, tasks }
    }
}

async fn metrics(bind: &str) -> Result<Option<TcpListener>> {
    if bind.is_empty() {
        return Ok(None);
    }
    let until = Instant::now() + METRICS_FREE_WITHIN;
    loop {
        match TcpListener::bind(bind).await {
            Ok(listener) => {
                tracing::info!(metrics_at = %listener.local_addr()?, "serving /metrics");
                return Ok(Some(listener));
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => sleep(LOOK).await,
            Err(error) => return Err(error).with_context(|| format!("cannot listen on {bind} (server.metrics_bind)")),
        }
    }
}

impl Answering {
    /// Leaves new connections to the successor, where there is one. Media streams that run go on.
    pub fn drain(&self) {
        if self.handed {
            self.leave.send_replace(true);
        }
    }

    /// Stops at once.
    pub fn stop(self) {
        for task in self.tasks {
            task.abort();
        }
    }
}
