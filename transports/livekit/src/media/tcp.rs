//! ICE over TCP, for networks where UDP does not get through.
//!
//! We are the active side: for each address that a check is sent to a connection is opened. A datagram travels as two bytes
//! of length and its content (RFC 4571). A connection that breaks is forgotten; the next check opens it again.

use super::peer::DATAGRAM_BYTES_MAX;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

/// Connections per peer: a server has one or two addresses.
pub(super) const STREAMS_MAX: usize = 4;
/// Bytes waiting for a socket, 2 s of a track: what is older is of no use to a listener.
const WAITING_BYTES_MAX: usize = 32 * 1_024;

/// The connections of one peer, each with a token kept for it.
pub(super) struct Streams {
    free: Vec<Token>,
    open: Vec<Stream>,
}

struct Stream {
    token: Token,
    peer: SocketAddr,
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
        let index = match self.open.iter().position(|stream| stream.peer == to) {
            Some(index) => index,
            None => self.connect(to, registry)?,
        };
        let result = self.open[index].send(datagram);
        if result.as_ref().is_err_and(|error| error.kind() != ErrorKind::WouldBlock) {
            self.close(index, registry);
        }
        result
    }

    /// Reads and writes what a connection is ready for; `received` takes each datagram and who sent it.
    pub fn ready(&mut self, token: Token, registry: &Registry, mut received: impl FnMut(SocketAddr, &[u8])) {
        let Some(index) = self.open.iter().position(|stream| stream.token == token) else { return };
        let stream = &mut self.open[index];
        if stream.flush().and_then(|()| stream.read(&mut received)).is_err() {
            self.close(index, registry);
        }
    }

    pub fn close_all(&mut self, registry: &Registry) {
        while !self.open.is_empty() {
            self.close(0, registry);
        }
    }

    fn connect(&mut self, to: SocketAddr, registry: &Registry) -> io::Result<usize> {
        let token = self.free.pop().ok_or(ErrorKind::QuotaExceeded)?;
        let registered = TcpStream::connect(to).and_then(|mut socket| {
            registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(socket)
        });
        let socket = registered.inspect_err(|_| self.free.push(token))?;
        self.open.push(Stream { token, peer: to, socket, out: VecDeque::new(), inward: Vec::new() });
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
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        if self.out.len() + 2 + datagram.len() > WAITING_BYTES_MAX {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.out.extend((datagram.len() as u16).to_be_bytes());
        self.out.extend(datagram);
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
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
    fn read(&mut self, received: &mut impl FnMut(SocketAddr, &[u8])) -> io::Result<()> {
        let mut bytes = [0; 4 * DATAGRAM_BYTES_MAX];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.inward.extend_from_slice(&bytes[..len]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
                Err(error) => return Err(error),
            }
            let mut taken = 0;
            while let Some(datagram) = framed(&self.inward[taken..]) {
                received(self.peer, datagram);
                taken += 2 + datagram.len();
            }
            self.inward.drain(..taken);
        }
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
