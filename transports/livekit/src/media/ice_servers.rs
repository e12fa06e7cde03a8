//! The TURN servers that a LiveKit server names, as URLs of RFC 7065 with credentials.

use crate::token::Secret;
use livekit_protocol as proto;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

/// Servers kept: one or two, over UDP, TCP and TLS.
const SERVERS_MAX: usize = 6;
/// Longest name and password, in bytes: those of STUN's attributes.
const CREDENTIAL_BYTES_MAX: usize = 508;
/// How long a name may take to be looked up.
const LOOKUP_MAX: Duration = Duration::from_secs(5);

/// A TURN server and how to sign in there.
#[derive(Clone, Debug)]
pub(crate) struct TurnServer {
    pub address: SocketAddr,
    pub transport: TurnTransport,
    /// How the connection is kept secret, where it is.
    pub tls: Option<Tls>,
    pub username: String,
    pub credential: Secret,
}

/// What a TURN server is spoken to over. Relayed is UDP in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TurnTransport {
    Udp,
    Tcp,
}

/// Whom TLS trusts, and who the server has to be.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
}

/// The TURN servers among `servers`, those over UDP first; names are looked up.
///
/// `trusted` is whom TLS trusts, in place of those whom this host trusts.
pub(crate) async fn turn_servers(servers: Vec<proto::IceServer>, trusted: Option<&Arc<ClientConfig>>) -> Vec<TurnServer> {
    let mut found = Vec::new();
    for proto::IceServer { urls, username, credential } in servers {
        if username.len() > CREDENTIAL_BYTES_MAX || credential.len() > CREDENTIAL_BYTES_MAX {
            continue;
        }
        for TurnUrl { host, port, transport, secure } in urls.iter().filter_map(|url| turn_url(url)) {
            let looked_up = tokio::time::timeout(LOOKUP_MAX, tokio::net::lookup_host((host, port))).await;
            let Some(address) = looked_up.ok().and_then(Result::ok).and_then(|mut addresses| addresses.next()) else {
                tracing::debug!(host, "TURN server's name is not known");
                continue;
            };
            let tls = if secure { tls(host, trusted).await } else { None };
            if found.len() < SERVERS_MAX && secure == tls.is_some() {
                found.push(TurnServer { address, transport, tls, username: username.clone(), credential: Secret::new(&credential) });
            }
        }
    }
    found.sort_by_key(|server| (server.transport, server.tls.is_some()));
    found
}

async fn tls(host: &str, trusted: Option<&Arc<ClientConfig>>) -> Option<Tls> {
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let config = match trusted {
        Some(config) => config.clone(),
        None => trusted_by_host().await?,
    };
    Some(Tls { config, name })
}

/// TLS with the certificates that this host trusts, read once.
async fn trusted_by_host() -> Option<Arc<ClientConfig>> {
    static CONFIG: OnceCell<Option<Arc<ClientConfig>>> = OnceCell::const_new();
    let read = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
        Some(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
    };
    // files are read
    CONFIG.get_or_init(|| async { tokio::task::spawn_blocking(read).await.ok().flatten() }).await.clone()
}

/// A `turn:` or `turns:` URL.
#[derive(Debug, PartialEq, Eq)]
struct TurnUrl<'a> {
    host: &'a str,
    port: u16,
    transport: TurnTransport,
    secure: bool,
}

fn turn_url(url: &str) -> Option<TurnUrl<'_>> {
    let (scheme, rest) = url.split_once(':')?;
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (transport, secure, port_default) = match (scheme, query) {
        ("turn", "" | "transport=udp") => (TurnTransport::Udp, false, 3478),
        ("turn", "transport=tcp") => (TurnTransport::Tcp, false, 3478),
        ("turns", "" | "transport=tcp") => (TurnTransport::Tcp, true, 5349),
        _ => return None,
    };
    let (host, port) = match authority.rsplit_once(':') {
        // the colons of an IPv6 address stand in brackets
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, port_default),
    };
    let host = host.trim_matches(['[', ']']);
    (!host.is_empty()).then_some(TurnUrl { host, port, transport, secure })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_url_names_host_port_and_transport() {
        use TurnTransport::{Tcp, Udp};
        let named = |host, port, transport, secure| Some(TurnUrl { host, port, transport, secure });
        for (url, expected) in [
            ("turn:192.0.2.1:3000?transport=udp", named("192.0.2.1", 3000, Udp, false)),
            ("turn:relay.example.org?transport=tcp", named("relay.example.org", 3478, Tcp, false)),
            ("turn:[2001:db8::1]:99", named("2001:db8::1", 99, Udp, false)),
            ("turn:[2001:db8::1]", named("2001:db8::1", 3478, Udp, false)),
            ("turns:relay.example.org:443?transport=tcp", named("relay.example.org", 443, Tcp, true)),
            ("turns:relay.example.org", named("relay.example.org", 5349, Tcp, true)),
            ("turns:relay.example.org?transport=udp", None),
            ("turn:host?transport=sctp", None),
            ("turn:host:port", None),
            ("turn:", None),
            ("stun:192.0.2.1:3478", None),
            ("", None),
        ] {
            assert_eq!(turn_url(url), expected, "{url}");
        }
    }

    #[tokio::test]
    async fn udp_is_tried_first_and_what_is_too_long_never() {
        let server = |urls: &[&str], username: &str| proto::IceServer {
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            username: username.to_owned(),
            credential: "word".to_owned(),
        };
        let long = "x".repeat(CREDENTIAL_BYTES_MAX + 1);
        let servers = vec![
            server(&["turns:192.0.2.1:0", "turn:192.0.2.1:1?transport=tcp", "stun:192.0.2.1:2", "turn:192.0.2.1:3"], "ann"),
            server(&["turn:192.0.2.1:4"], &long),
        ];
        let found = turn_servers(servers, None).await;
        assert_eq!(found.iter().map(|server| server.address.port()).collect::<Vec<_>>(), [3, 1, 0]);
        assert!(!format!("{found:?}").contains("word"));
    }
}
