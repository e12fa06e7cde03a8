//! ICE over TCP, for networks where UDP does not get through.
//!
//! We are the active side: for each address that a check is sent to a connection is opened. A datagram travels as two bytes
//! of length and its content (RFC 4571). A connection that breaks is forgotten; the next check opens it again. A connection
//! to a relay carries bytes as they are, within TLS where the relay asks for it, and is opened once.

use super::ice_servers::Tls;
use super::peer::DATAGRAM_BYTES_MAX;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::ClientConnection;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

/// Connections per peer: a server has one or two addresses.
pub(super) const STREAMS_MAX: usize = 4;
/// Bytes waiting for a socket, 2 s of a track: what is older is of no use to a listener.
const WAITING_BYTES_MAX: usize = 32 * 1_024;

/// Bytes read at a time: seconds of a track. Who sends more than is read has something else in mind.
const INWARD_BYTES_MAX: usize = 1024 * 1_024;

/// The connections of one peer, each with a token kept for it.
pub(super) struct Streams {
    free: Vec<Token>,
    open: Vec<Stream>,
}

/// What came over a connection.
pub(super) enum Arrived {
    /// Datagrams of a peer.
    Datagrams(SocketAddr, Vec<Vec<u8>>),
    /// Bytes of a relay, and whether more may come.
    Relay { from: SocketAddr, bytes: Vec<u8>, open: bool },
}

struct Stream {
    token: Token,
    peer: SocketAddr,
    /// Bytes as they are, no datagrams.
    relay: bool,
    tls: Option<Box<ClientConnection>>,
    socket: TcpStream,
    out: VecDeque<u8>,
    inward: Vec<u8>,
}

impl Streams {
    pub fn new(tokens: [Token; STREAMS_MAX]) -> Self {
        Self { free: tokens.into(), open: Vec::new() }
    }

    /// What the poll knows the connections by, open or not.
    pub fn tokens(&self) -> impl Iterator<Item = Token> + '_ {
        self.free.iter().copied().chain(self.open.iter().map(|stream| stream.token))
    }

    /// Sends a datagram, over a new connection where there is none.
    pub fn send(&mut self, to: SocketAddr, datagram: &[u8], registry: &Registry) -> io::Result<()> {
        let index = match self.open.iter().position(|stream| stream.peer == to && !stream.relay) {
            Some(index) => index,
            None => self.connect(to, false, registry)?,
        };
        let length = (datagram.len() as u16).to_be_bytes();
        self.write(index, [&length, datagram], registry)
    }

    /// Opens a connection to a relay; our end of it.
    pub fn open_relay(&mut self, to: SocketAddr, tls: Option<&Tls>, registry: &Registry) -> io::Result<SocketAddr> {
        let tls = tls.map(|Tls { config, name }| ClientConnection::new(config.clone(), name.clone())).transpose().map_err(io::Error::other)?;
        let index = self.connect(to, true, registry)?;
        self.open[index].tls = tls.map(Box::new);
        self.open[index].socket.local_addr()
    }

    /// Sends bytes to a relay.
    pub fn send_to_relay(&mut self, to: SocketAddr, bytes: &[u8], registry: &Registry) -> io::Result<()> {
        let index = self.open.iter().position(|stream| stream.peer == to && stream.relay).ok_or(ErrorKind::NotConnected)?;
        self.write(index, [&[], bytes], registry)
    }

    /// Ends the connection to a relay.
    pub fn close_relay(&mut self, to: SocketAddr, registry: &Registry) {
        if let Some(index) = self.open.iter().position(|stream| stream.peer == to && stream.relay) {
            self.close(index, registry);
        }
    }

    /// Reads and writes what a connection is ready for.
    pub fn ready(&mut self, token: Token, registry: &Registry) -> Option<Arrived> {
        let index = self.open.iter().position(|stream| stream.token == token)?;
        let stream = &mut self.open[index];
        let (from, relay) = (stream.peer, stream.relay);
        let open = stream.flush().and_then(|()| stream.read()).is_ok();
        let arrived =
            if relay { Arrived::Relay { from, bytes: std::mem::take(&mut stream.inward), open } } else { Arrived::Datagrams(from, stream.datagrams()) };
        if !open {
            self.close(index, registry);
        }
        Some(arrived)
    }

    pub fn close_all(&mut self, registry: &Registry) {
        while !self.open.is_empty() {
            self.close(0, registry);
        }
    }

    fn write(&mut self, index: usize, parts: [&[u8]; 2], registry: &Registry) -> io::Result<()> {
        let result = self.open[index].send(parts);
        if result.as_ref().is_err_and(|error| error.kind() != ErrorKind::WouldBlock) {
            self.close(index, registry);
        }
        result
    }

    fn connect(&mut self, to: SocketAddr, relay: bool, registry: &Registry) -> io::Result<usize> {
        let token = self.free.pop().ok_or(ErrorKind::QuotaExceeded)?;
        let registered = TcpStream::connect(to).and_then(|mut socket| {
            registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(socket)
        });
        let socket = registered.inspect_err(|_| self.free.push(token))?;
        self.open.push(Stream { token, peer: to, relay, tls: None, socket, out: VecDeque::new(), inward: Vec::new() });
        Ok(self.open.len() - 1)
    }

    fn close(&mut self, index: usize, registry: &Registry) {
        let mut stream = self.open.swap_remove(index);
        // the socket closes with its drop in any case
        let _ = registry.deregister(&mut stream.socket);
        self.free.push(stream.token);
    }
}

impl Stream {
    /// Sends all of the parts or nothing.
    fn send(&mut self, parts: [&[u8]; 2]) -> io::Result<()> {
        if self.out.len() + parts[0].len() + parts[1].len() > WAITING_BYTES_MAX {
            return Err(ErrorKind::WouldBlock.into());
        }
        for part in parts {
            match &mut self.tls {
                Some(tls) => tls.writer().write_all(part)?,
                None => self.out.extend(part),
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut self.out)?;
            }
        }
        while !self.out.is_empty() {
            match self.socket.write(self.out.as_slices().0) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads until there is no more: the poll tells of new bytes only.
    fn read(&mut self) -> io::Result<()> {
        let mut bytes = [0; 4 * DATAGRAM_BYTES_MAX];
        while self.inward.len() < INWARD_BYTES_MAX {
            match self.socket.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.take_in(&bytes[..len])?,
                // TLS may have to answer
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return self.flush(),
                Err(error) => return Err(error),
            }
        }
        Err(ErrorKind::QuotaExceeded.into())
    }

    fn take_in(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            self.inward.extend_from_slice(bytes);
            return Ok(());
        };
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes)?;
            let held = tls.process_new_packets().map_err(io::Error::other)?.plaintext_bytes_to_read();
            let before = self.inward.len();
            self.inward.resize(before + held, 0);
            tls.reader().read_exact(&mut self.inward[before..])?;
        }
        Ok(())
    }

    /// The whole datagrams of what was read.
    fn datagrams(&mut self) -> Vec<Vec<u8>> {
        let (mut datagrams, mut taken) = (Vec::new(), 0);
        while let Some(datagram) = framed(&self.inward[taken..]) {
            datagrams.push(datagram.to_vec());
            taken += 2 + datagram.len();
        }
        self.inward.drain(..taken);
        datagrams
    }
}

/// The first whole datagram of a stream's bytes.
fn framed(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.get(..usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_cut_out_of_the_stream_whole() {
        let bytes = [0, 2, b'h', b'i', 0, 0, 0, 3, b'y', b'o'];
        assert_eq!(framed(&bytes), Some(&b"hi"[..]));
        assert_eq!(framed(&bytes[4..]), Some(&b""[..]));
        assert_eq!(framed(&bytes[6..]), None, "its last byte is still to come");
        assert_eq!(framed(&[]), None);
    }
}
