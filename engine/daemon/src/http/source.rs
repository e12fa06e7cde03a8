//! Who asks. A request's source is its peer, or, where the peer is a proxy that is trusted, whom that proxy names: loopback
//! is, and what `server.trusted_proxies` lists. Headers of anybody else are not read. The networks of IPv6 customers are /64:
//! such a one is one source.
//!
//! What is open on loopback is open to this machine alone: not to whom a proxy on it forwards, and not to a web page whose
//! name was made to point here, which the `Host` tells.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use axum::http::{HeaderMap, header};

/// Who asks, as limits count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    address: IpAddr,
    is_local: bool,
}

/// Headers by which a proxy says that it forwards.
const FORWARDED: [&str; 5] = ["x-forwarded-for", "forwarded", "x-real-ip", "x-forwarded-host", "via"];
/// The bits of an IPv6 address that name a customer's network.
const NETWORK: u128 = !0 << 64;

impl Source {
    /// Of a request with these headers from `peer`.
    pub fn of(peer: IpAddr, headers: &HeaderMap, proxies: &BTreeSet<IpAddr>) -> Self {
        let peer = peer.to_canonical();
        let trusted = |address: &IpAddr| address.is_loopback() || proxies.contains(address);
        let is_local = peer.is_loopback() && !FORWARDED.iter().any(|name| headers.contains_key(*name)) && names_this_machine(headers);
        let named = || {
            // each proxy adds its peer at the end: the last one that is no proxy of ours is who asked the first of ours
            let lists = headers.get_all("x-forwarded-for").iter().rev().filter_map(|value| value.to_str().ok());
            let mut addresses =
                lists.flat_map(|list| list.rsplit(',')).map_while(|text| text.trim().parse().ok()).map(|address: IpAddr| address.to_canonical());
            addresses.find(|address| !trusted(address))
        };
        let address = if trusted(&peer) { named().unwrap_or(peer) } else { peer };
        Self { address: network(address), is_local }
    }

    /// Of a connection, before anything was said on it; none for proxies, which many share.
    pub fn of_connection(peer: IpAddr, proxies: &BTreeSet<IpAddr>) -> Option<Self> {
        let peer = peer.to_canonical();
        (!peer.is_loopback() && !proxies.contains(&peer)).then(|| Self { address: network(peer), is_local: false })
    }

    /// True for a program on this machine that asks for itself.
    pub fn is_local(&self) -> bool {
        self.is_local
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & NETWORK)),
    }
}

/// True when `Host` is an address of loopback, or its name: of a page whose name points here it would be that name.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let authority = host.to_str().ok().and_then(|host| host.parse::<axum::http::uri::Authority>().ok());
    authority.is_some_and(|authority| {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback() || address.is_unspecified())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(peer: &str, headers: &[(&'static str, &str)]) -> Source {
        let headers = headers.iter().map(|(name, value)| (axum::http::HeaderName::from_static(name), value.parse().unwrap())).collect();
        Source::of(peer.parse().unwrap(), &headers, &BTreeSet::from(["10.0.0.1".parse().unwrap()]))
    }

    #[test]
    fn only_a_trusted_proxy_says_who_asked() {
        let named = ("x-forwarded-for", "203.0.113.5, 198.51.100.7, 10.0.0.1");
        let address = |peer, headers: &[_]| source(peer, headers).address.to_string();
        assert_eq!(address("127.0.0.1", &[named]), "198.51.100.7");
        assert_eq!(address("::ffff:10.0.0.1", &[named]), "198.51.100.7");
        assert_eq!(address("192.0.2.9", &[named]), "192.0.2.9");
        assert_eq!(address("127.0.0.1", &[("x-forwarded-for", "203.0.113.5, unknown")]), "127.0.0.1");
        assert_eq!(address("2001:db8:1:2:3:4:5:6", &[]), "2001:db8:1:2::");
    }

    #[test]
    fn what_is_forwarded_or_asked_by_another_name_is_not_local() {
        for host in ["127.0.0.1:8080", "localhost", "[::1]:8080"] {
            assert!(source("127.0.0.1", &[("host", host)]).is_local(), "{host}");
        }
        assert!(!source("192.0.2.9", &[("host", "127.0.0.1")]).is_local());
        assert!(!source("127.0.0.1", &[("host", "127.0.0.1"), ("x-forwarded-for", "127.0.0.1")]).is_local());
        assert!(!source("127.0.0.1", &[("host", "rebound.example.test")]).is_local());
    }
}
