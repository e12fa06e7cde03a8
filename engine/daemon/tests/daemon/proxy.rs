//! A proxy before a provider: it may go away in the middle of everything and come back at the same address, and it may
//! speak TLS with a certificate of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use url::Url;

/// Connections that wait to be taken.
const BACKLOG: u32 = 64;

pub struct Proxy {
    url: Url,
    up: watch::Sender<bool>,
}

/// A certificate that nobody has heard of.
pub struct Certificate {
    /// As a file that a program may be told to trust.
    pub pem: String,
    acceptor: TlsAcceptor,
}

impl Certificate {
    pub fn new() -> Self {
        let certified = rcgen::generate_simple_self_signed([Ipv4Addr::LOCALHOST.to_string()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let accepting = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        let accepting = accepting.with_single_cert(vec![certified.cert.der().clone()], key).expect("a certificate");
        let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(certified.cert.der()));
        Self { pem, acceptor: TlsAcceptor::from(Arc::new(accepting)) }
    }
}

impl Proxy {
    /// Before a provider with this address, with TLS where there is a certificate.
    pub fn before(base_url: &str, certificate: Option<&Certificate>) -> Self {
        let mut url: Url = base_url.parse().expect("a URL");
        let far = url.socket_addrs(|| None).expect("an address")[0];
        let socket = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let near = socket.local_addr().expect("bound");
        url.set_port(Some(near.port())).expect("a port");
        if certificate.is_some() {
            url.set_scheme("https").expect("a scheme");
        }
        let (up, is_up) = watch::channel(true);
        tokio::spawn(run(socket, far, certificate.map(|certificate| certificate.acceptor.clone()), is_up));
        Self { url, up }
    }

    /// What the provider's `base_url` setting has to be.
    pub fn url(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// Not up, every connection is broken and none is made.
    pub fn set_up(&self, up: bool) {
        self.up.send_replace(up);
    }
}

async fn run(mut socket: TcpSocket, far: SocketAddr, acceptor: Option<TlsAcceptor>, mut up: watch::Receiver<bool>) {
    loop {
        let near = socket.local_addr().expect("bound");
        let listener = socket.listen(BACKLOG).expect("a port");
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                Ok((stream, _)) = listener.accept() => {
                    let acceptor = acceptor.clone();
                    connections.spawn(async move {
                        match acceptor {
                            None => carry(stream, far).await,
                            Some(acceptor) => if let Ok(stream) = acceptor.accept(stream).await {
                                carry(stream, far).await;
                            },
                        }
                    });
                }
                Some(_) = connections.join_next() => {}
                gone = up.wait_for(|up| !up) => {
                    if gone.is_err() {
                        return;
                    }
                    break;
                }
            }
        }
        drop(listener);
        connections.shutdown().await;
        socket = bound(near); // nobody else gets the port meanwhile
        if up.wait_for(|up| *up).await.is_err() {
            return;
        }
    }
}

async fn carry(mut near: impl AsyncRead + AsyncWrite + Unpin, far: SocketAddr) {
    if let Ok(mut far) = TcpStream::connect(far).await {
        let _ = copy_bidirectional(&mut near, &mut far).await; // either side may break it
    }
}

fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("a socket");
    socket.bind(address).expect("a port");
    socket
}
