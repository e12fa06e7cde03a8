//! The sockets of one peer connection: UDP, and TCP where UDP does not get through.

use super::ice_servers::{TurnServer, TurnTransport};
use super::tcp::{Arrived, Streams};
use super::thread::SocketIds;
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use str0m::net::{Protocol, Transmit};

/// The port that stands for "any" in the candidate of a side that opens connections.
const ACTIVE_PORT: u16 = 9;

/// One or more bound sockets, each with the address by which ICE knows it, and the connections.
pub(super) struct Sockets {
    bound: Vec<Bound>,
    streams: Streams,
    registry: Arc<Registry>,
}

struct Bound {
    socket: UdpSocket,
    token: Token,
    /// What the server is told: the bound address, or this host's address on the way to the server.
    known_as: SocketAddr,
}

impl Sockets {
    /// Binds to `bind`, or to all addresses at once where that is empty; `route` is the address to be known by then.
    pub fn bind(bind: &[IpAddr], route: IpAddr, ids: &mut SocketIds, registry: &Arc<Registry>) -> io::Result<Self> {
        let any = if route.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        let wanted = if bind.is_empty() { &[any][..] } else { bind };
        let mut bound = Vec::with_capacity(wanted.len());
        for &address in wanted {
            let mut socket = UdpSocket::bind(SocketAddr::new(address, 0))?;
            let known = if address.is_unspecified() { route } else { address };
            let known_as = SocketAddr::new(known, socket.local_addr()?.port());
            let token = ids.next();
            registry.register(&mut socket, token, Interest::READABLE)?;
            bound.push(Bound { socket, token, known_as });
        }
        Ok(Self { bound, streams: Streams::new(std::array::from_fn(|_| ids.next())), registry: registry.clone() })
    }

    /// The addresses to offer.
    pub fn known_as(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.bound.iter().map(|bound| bound.known_as)
    }

    /// The address that stands for connections of ours.
    pub fn known_as_active(&self) -> Option<SocketAddr> {
        self.known_as().next().map(|known_as| SocketAddr::new(known_as.ip(), ACTIVE_PORT))
    }

    /// What the poll knows the sockets by.
    pub fn tokens(&self) -> impl Iterator<Item = Token> + '_ {
        self.bound.iter().map(|bound| bound.token).chain(self.streams.tokens())
    }

    /// A datagram of a UDP socket, who sent it, and to which of our addresses. `WouldBlock` when there is none.
    pub fn receive(&self, token: Token, datagram: &mut [u8]) -> io::Result<(usize, SocketAddr, SocketAddr)> {
        let bound = self.bound.iter().find(|bound| bound.token == token).ok_or(ErrorKind::WouldBlock)?;
        bound.socket.recv_from(datagram).map(|(len, source)| (len, source, bound.known_as))
    }

    /// Whether a token is that of a connection.
    pub fn is_stream(&self, token: Token) -> bool {
        self.streams.tokens().any(|stream| stream == token)
    }

    /// What came over a connection.
    pub fn receive_stream(&mut self, token: Token) -> Option<Arrived> {
        self.streams.ready(token, &self.registry)
    }

    /// The address from which a relay is spoken to, over a new connection where it is one.
    pub fn open_relay(&mut self, relay: &TurnServer) -> io::Result<SocketAddr> {
        match relay.transport {
            TurnTransport::Udp => self.towards(relay.address).map(|bound| bound.known_as).ok_or_else(|| ErrorKind::AddrNotAvailable.into()),
            TurnTransport::Tcp => self.streams.open_relay(relay.address, relay.tls.as_ref(), &self.registry),
        }
    }

    /// Sends bytes to a relay.
    pub fn send_to_relay(&mut self, relay: &TurnServer, bytes: &[u8]) -> io::Result<()> {
        match relay.transport {
            TurnTransport::Udp => self.towards(relay.address).ok_or(ErrorKind::AddrNotAvailable)?.socket.send_to(bytes, relay.address).map(|_| ()),
            TurnTransport::Tcp => self.streams.send_to_relay(relay.address, bytes, &self.registry),
        }
    }

    /// Ends the connection to a relay, where there is one.
    pub fn close_relay(&mut self, relay: &TurnServer) {
        if relay.transport == TurnTransport::Tcp {
            self.streams.close_relay(relay.address, &self.registry);
        }
    }

    /// The first socket that has addresses of the same kind.
    fn towards(&self, address: SocketAddr) -> Option<&Bound> {
        self.bound.iter().find(|bound| bound.known_as.is_ipv4() == address.is_ipv4())
    }

    /// Sends from the socket that ICE has chosen.
    pub fn send(&mut self, datagram: &Transmit) -> io::Result<()> {
        if datagram.proto == Protocol::Tcp {
            return self.streams.send(datagram.destination, &datagram.contents, &self.registry);
        }
        let bound = self.bound.iter().find(|bound| bound.known_as == datagram.source).or(self.bound.first()).ok_or(ErrorKind::NotFound)?;
        bound.socket.send_to(&datagram.contents, datagram.destination).map(|_| ())
    }

    /// Leaves the poll.
    pub fn close(&mut self) {
        self.streams.close_all(&self.registry);
        for bound in &mut self.bound {
            // the socket closes with its drop in any case
            let _ = self.registry.deregister(&mut bound.socket);
        }
    }
}
