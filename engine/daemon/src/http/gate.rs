//! How many connections are open, in total and from one source. A connection has its place from the moment it is accepted
//! until its socket is closed, upgraded or not; one that finds no place is closed at once, unread.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use voiced_config::Server;

use super::source::Source;

/// What one listener lets in.
pub struct Gate {
    pub limits: Limits,
    open: Mutex<Open>,
    refused: AtomicU64,
    refused_of_source: AtomicU64,
    slow: AtomicU64,
}

/// What a connection must keep to; numbers and reasons in `default.toml`.
pub struct Limits {
    connections_max: usize,
    per_source_max: usize,
    pub trusted_proxies: BTreeSet<IpAddr>,
    pub header_within: Duration,
    pub keep_alive: Duration,
    pub header_bytes_max: usize,
    pub body_within: Duration,
}

#[derive(Default)]
struct Open {
    total: usize,
    /// Only sources that have a connection: never more than connections.
    by_source: HashMap<Source, usize>,
}

impl Gate {
    /// As configured, nobody in yet.
    pub fn new(server: &Server) -> Arc<Self> {
        let limits = Limits {
            connections_max: server.connections_max,
            per_source_max: server.connections_per_source_max,
            trusted_proxies: server.trusted_proxies.iter().filter_map(|address| address.parse().ok()).collect(),
            header_within: Duration::from_secs(server.header_timeout_s),
            keep_alive: Duration::from_secs(server.keep_alive_s),
            header_bytes_max: server.header_bytes_max,
            body_within: Duration::from_secs(server.body_timeout_s),
        };
        Arc::new(Self { limits, open: Mutex::default(), refused: AtomicU64::new(0), refused_of_source: AtomicU64::new(0), slow: AtomicU64::new(0) })
    }

    /// A place for a connection of this peer, if there is one.
    pub fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let source = Source::of_connection(peer, &self.limits.trusted_proxies);
        let mut open = self.open();
        if open.total >= self.limits.connections_max {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if let Some(source) = source {
            let count = open.by_source.entry(source).or_default();
            if *count >= self.limits.per_source_max {
                self.refused_of_source.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            *count += 1;
        }
        open.total += 1;
        Some(Place { gate: Arc::clone(self), source })
    }

    /// Counts one that did not say what it wants in time.
    pub fn count_slow(&self) {
        self.slow.fetch_add(1, Ordering::Relaxed);
    }

    /// For `/metrics`.
    pub fn render(&self) -> String {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        format!(
            "# TYPE voiced_connections gauge\nvoiced_connections {}\n# TYPE voiced_connections_refused_total counter\n\
             voiced_connections_refused_total{{why=\"total\"}} {}\nvoiced_connections_refused_total{{why=\"source\"}} {}\nvoiced_connections_refused_total{{why=\"slow\"}} {}\n",
            self.open().total,
            read(&self.refused),
            read(&self.refused_of_source),
            read(&self.slow)
        )
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place, given back on drop.
pub struct Place {
    gate: Arc<Gate>,
    source: Option<Source>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.gate.open();
        open.total -= 1;
        if let Some(source) = self.source
            && let Some(count) = open.by_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                open.by_source.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_cannot_take_every_place_and_proxies_are_no_source() {
        let mut settings = voiced_config::load(None, []).unwrap();
        (settings.server.connections_max, settings.server.connections_per_source_max) = (4, 2);
        let gate = Gate::new(&settings.server);
        let enter = |peer: &str| gate.enter(peer.parse().unwrap());
        let (first, _second) = (enter("192.0.2.1"), enter("192.0.2.1"));
        assert!(first.is_some() && enter("192.0.2.1").is_none());
        let _proxied = [enter("127.0.0.1").unwrap(), enter("127.0.0.1").unwrap()];
        assert!(enter("192.0.2.2").is_none(), "the total");
        drop(first);
        assert!(enter("192.0.2.1").is_some(), "a place that was given back");
        assert!(gate.render().contains("{why=\"source\"} 1\n") && gate.render().contains("{why=\"total\"} 1\n"), "{}", gate.render());
        assert_eq!(gate.open().by_source.len(), 1, "who has gone is forgotten");
    }
}
