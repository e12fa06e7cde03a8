//! The socket that calls come in by: our own, or one that systemd holds (`voiced.socket`). A socket of systemd's outlives
//! us: while one process drains, its successor takes the calls. So the one that drains stops taking connections at once
//! and closes those that are idle; what came in between waits in the kernel for the successor. On a socket of our own
//! nobody else would answer: there the drain goes on answering, with an apology.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::Router;
use listenfd::ListenFd;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use voiced_config::Server;

/// An open socket.
pub struct Front {
    listener: TcpListener,
    /// It is systemd's.
    handed: bool,
}

/// HTTP being answered.
pub struct Answering {
    leave: watch::Sender<bool>,
    handed: bool,
    task: JoinHandle<std::io::Result<()>>,
}

impl Front {
    /// Takes systemd's socket, or opens one.
    pub async fn open(settings: &Server) -> Result<Self> {
        if let Some(listener) = ListenFd::from_env().take_tcp_listener(0).context("the socket handed over (LISTEN_FDS)")? {
            listener.set_nonblocking(true)?;
            return Ok(Self { listener: TcpListener::from_std(listener)?, handed: true });
        }
        let listener = TcpListener::bind((settings.bind.as_str(), settings.port))
            .await
            .with_context(|| format!("cannot listen on {}:{} (server.bind, PORT)", settings.bind, settings.port))?;
        Ok(Self { listener, handed: false })
    }

    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Answers until told to stop.
    pub fn answer(self, router: Router) -> Answering {
        let Self { listener, handed } = self;
        let (leave, mut left) = watch::channel(false);
        let told = async move {
            let _ = left.wait_for(|left| *left).await; // whoever could tell is gone: the same
        };
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let task = tokio::spawn(async move { axum::serve(listener, service).with_graceful_shutdown(told).await });
        Answering { leave, handed, task }
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
        self.task.abort();
    }
}
