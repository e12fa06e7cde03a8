//! Connections to one vendor that wait to be used: a new TLS connection costs two or three round trips.

use crate::ws::Socket;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Connections that are kept; a host that needs more at once makes new ones.
const SOCKETS_MAX: usize = 64;
/// Oldest connection that is used: below any limit of routers and of Cartesia, which closes after 5 min.
const AGE_MAX: Duration = Duration::from_mins(1);

/// Unused connections, newest last.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    sockets: Mutex<Vec<(Instant, Socket)>>,
}

impl Pool {
    /// A connection that was used lately.
    pub fn take(&self) -> Option<Socket> {
        let mut sockets = self.sockets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sockets.retain(|(since, _)| since.elapsed() < AGE_MAX);
        sockets.pop().map(|(_, socket)| socket)
    }

    /// A connection waits here.
    pub fn has_one(&self) -> bool {
        let sockets = self.sockets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sockets.iter().any(|(since, _)| since.elapsed() < AGE_MAX)
    }

    /// Keeps a connection on which nothing is going on.
    pub fn keep(&self, socket: Socket) {
        let mut sockets = self.sockets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sockets.retain(|(since, _)| since.elapsed() < AGE_MAX);
        if sockets.len() < SOCKETS_MAX {
            sockets.push((Instant::now(), socket));
        }
    }
}
