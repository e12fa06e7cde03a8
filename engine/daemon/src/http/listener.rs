//! A listening socket and what is spoken on it: HTTP/1.1 and the sockets that it is upgraded to, behind a `Gate`. Written
//! on hyper's own server because axum's gives no limit of time or size for a request's head.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};
use tower::ServiceExt;

use super::body::Arrival;
use super::gate::{Gate, Place};
use super::source::Source;

/// Pause after a failed accept (mostly: no file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Least buffer that hyper works with, in bytes.
const BUFFER_BYTES_MIN: usize = 8_192;

/// Answers until told to leave: then idle connections are closed and the others answered to their end, upgraded ones as
/// long as they want. Connections go on when this is dropped.
pub async fn serve(listener: TcpListener, router: Router, gate: Arc<Gate>, mut leave: watch::Receiver<bool>) {
    let left = leave.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Ok(_) = leave.wait_for(|leave| *leave) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                // who finds no place is closed; /metrics counts them, as a flood is no log
                if let Some(place) = gate.enter(peer.ip()) {
                    tokio::spawn(converse(Placed::new(stream, place, gate.limits.body_within), peer, router.clone(), Arc::clone(&gate), left.clone()));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, until it is closed or upgraded.
async fn converse(stream: Placed, peer: SocketAddr, router: Router, gate: Arc<Gate>, mut leave: watch::Receiver<bool>) {
    let _ = stream.stream.set_nodelay(true); // speech is sent in small messages that must not wait for each other
    let (asked, limits) = (Arc::new(AtomicBool::new(false)), Arc::clone(&gate));
    let service = {
        let asked = Arc::clone(&asked);
        service_fn(move |mut request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            let source = Source::of(peer.ip(), request.headers(), &limits.limits.trusted_proxies);
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(source);
            request.extensions_mut().insert(Arrival(limits.limits.body_within));
            router.clone().oneshot(request.map(Body::new))
        })
    };
    let limits = &gate.limits;
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            // of a later request, its wait included; the first one has less, below
            .header_read_timeout(limits.keep_alive)
            .max_header_size(limits.header_bytes_max)
            .max_buf_size(limits.header_bytes_max.max(BUFFER_BYTES_MIN))
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let mut first_head_due = std::pin::pin!(sleep(limits.header_within));
    let (mut is_due, mut leaves) = (false, false);
    loop {
        tokio::select! {
            // an error is a client that left or spoke no HTTP: nobody to tell
            _ = connection.as_mut() => return,
            () = first_head_due.as_mut(), if !is_due => {
                is_due = true;
                if !asked.load(Ordering::Relaxed) {
                    return gate.count_slow();
                }
            }
            Ok(_) = leave.wait_for(|leave| *leave), if !leaves => {
                leaves = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// A socket that holds its place as long as it is open, whoever owns it after an upgrade.
struct Placed {
    stream: TcpStream,
    _place: Place,
    /// How long an answer may wait for a client that takes nothing of it.
    patience: Duration,
    /// Runs while it waits.
    unread: Option<Pin<Box<Sleep>>>,
}

impl Placed {
    fn new(stream: TcpStream, place: Place, patience: Duration) -> Self {
        Self { stream, _place: place, patience, unread: None }
    }

    /// Fails a write that has waited for too long; anything taken begins the wait anew.
    fn impatient(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.unread = None;
            return written;
        }
        let patience = self.patience;
        let unread = self.unread.get_or_insert_with(|| Box::pin(sleep(patience)));
        unread.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Placed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.impatient(cx, written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.impatient(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
