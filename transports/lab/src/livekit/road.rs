//! A bad road to a server: the sound that a participant sends on it is lost now and then, the same packets at each run.
//!
//! Who goes to [`Road::url`] instead of the server's signals through a relay that hands all bytes on but for two things:
//! where the server names the UDP port of its media, the road's own stands, and where the participant names its port, the
//! discard port stands, or the server would find a way around. Datagrams that come to the road go on to the server, each
//! connection's from a socket of its own, since the server tells peers apart by their address. Only sound on its way to the
//! server is lost: connecting and reports get through, and so does all that the server sends.

mod frames;

use super::server::Server;
use frames::Frames;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// Participants on one road at most; each has two connections.
const PEERS_MAX: usize = 256;
/// Ports looked at for one of as many digits as the server's; nearly every port has five.
const PORT_TRIES: u32 = 64;
/// Longest datagram: WebRTC keeps below Ethernet's 1500.
const DATAGRAM_BYTES_MAX: usize = 2_048;
/// Read from the server at once; its longest message is a description of some KB.
const READ_BYTES: usize = 65_536;
/// A part of the pattern at the end of a read that is shorter than this is not waited for: anything may end so.
const PART_BYTES_MIN: usize = 4;

/// A road; closed when dropped.
#[derive(Debug)]
pub struct Road {
    url: String,
    counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Counts {
    passed: AtomicU64,
    lost: AtomicU64,
}

impl Road {
    /// Opens a road that loses this share of the packets of sound; the seed says which.
    pub async fn open(server: &Server, loss_percent: u32, seed: u64) -> io::Result<Self> {
        let (signalling, media) = server.doors();
        let front = Arc::new(bind_like(media).await?);
        let port = front.local_addr()?.port();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("ws://{}", listener.local_addr()?);
        let named = |port: u16| format!("{} {port} typ", media.ip()).into_bytes();
        let names = Arc::new((named(media.port()), named(port)));
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(signals(listener, signalling, names));
        tasks.spawn(datagrams(front, media, Dice { loss_percent, seed }, Arc::clone(&counts)));
        Ok(Self { url, counts, _tasks: tasks })
    }

    /// Where participants connect.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Packets of sound that got through, and that were lost.
    pub fn counts(&self) -> (u64, u64) {
        (self.counts.passed.load(Ordering::Relaxed), self.counts.lost.load(Ordering::Relaxed))
    }
}

/// A socket beside the server's, with a port of as many digits: no length in a message changes.
async fn bind_like(media: SocketAddr) -> io::Result<UdpSocket> {
    for _ in 0..PORT_TRIES {
        let socket = UdpSocket::bind((media.ip(), 0)).await?;
        if socket.local_addr()?.port().to_string().len() == media.port().to_string().len() {
            return Ok(socket);
        }
    }
    Err(io::ErrorKind::AddrNotAvailable.into())
}

async fn signals(listener: TcpListener, server: SocketAddr, names: Arc<(Vec<u8>, Vec<u8>)>) {
    let mut relays = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        // those that have ended
        while relays.try_join_next().is_some() {}
        if relays.len() < PEERS_MAX {
            relays.spawn(relay(client, server, Arc::clone(&names)));
        }
    }
}

/// One connection, until either side ends it.
async fn relay(client: TcpStream, server: SocketAddr, names: Arc<(Vec<u8>, Vec<u8>)>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let down = async move {
        let mut held = Vec::new();
        let mut bytes = vec![0; READ_BYTES];
        while let Ok(len @ 1..) = from_server.read(&mut bytes).await {
            held.extend_from_slice(&bytes[..len]);
            let ready = rename(&mut held, &names.0, &names.1);
            let out: Vec<u8> = held.drain(..ready).collect();
            if to_client.write_all(&out).await.is_err() {
                return;
            }
        }
    };
    let up = async move {
        let (mut frames, mut bytes) = (Frames::default(), vec![0; READ_BYTES]);
        while let Ok(len @ 1..) = from_client.read(&mut bytes).await {
            let Some(out) = frames.pass(&bytes[..len], hide_port) else { return };
            if to_server.write_all(&out).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = down => {}
        () = up => {}
    }
}

/// Replaces each `from` by `to`, which is as long. Returns how many bytes are ready: all but a `from` that has only begun.
fn rename(bytes: &mut [u8], from: &[u8], to: &[u8]) -> usize {
    let mut at = 0;
    while at + from.len() <= bytes.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + from.len()].copy_from_slice(to);
            at += from.len();
        } else {
            at += 1;
        }
    }
    let begun = (PART_BYTES_MIN..from.len()).rev().find(|&len| bytes.ends_with(&from[..len]));
    bytes.len() - begun.unwrap_or(0)
}

/// Puts the discard port, 9, in the place of the port of each address of the participant's own.
fn hide_port(message: &mut [u8]) {
    const OWN: &[u8] = b" typ host";
    for end in (0..message.len().saturating_sub(OWN.len() - 1)).filter(|&at| message[at..].starts_with(OWN)).collect::<Vec<_>>() {
        let digits = message[..end].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        message[end - digits..end].fill(b'0');
        if digits > 0 {
            message[end - 1] = b'9';
        }
    }
}

async fn datagrams(front: Arc<UdpSocket>, media: SocketAddr, dice: Dice, counts: Arc<Counts>) {
    let mut peers: HashMap<SocketAddr, (Arc<UdpSocket>, Dice)> = HashMap::new();
    let mut backs = JoinSet::new();
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    loop {
        // a refused port answers an earlier send: the next datagram is read all the same
        let Ok((len, client)) = front.recv_from(&mut datagram).await else { continue };
        let bytes = &datagram[..len];
        if !peers.contains_key(&client) {
            if peers.len() >= PEERS_MAX * 2 {
                continue;
            }
            let Ok(back) = towards(media).await.map(Arc::new) else { continue };
            backs.spawn(answers(Arc::clone(&back), Arc::clone(&front), client));
            peers.insert(client, (back, dice));
        }
        let Some((back, dice)) = peers.get_mut(&client) else { continue };
        if is_sound(bytes) {
            if dice.loses() {
                counts.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            counts.passed.fetch_add(1, Ordering::Relaxed);
        }
        // a datagram that cannot be sent is lost, as on any road
        let _ = back.send(bytes).await;
    }
}

async fn towards(media: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((media.ip(), 0)).await?;
    socket.connect(media).await?;
    Ok(socket)
}

async fn answers(back: Arc<UdpSocket>, front: Arc<UdpSocket>, client: SocketAddr) {
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    loop {
        if let Ok(len) = back.recv(&mut datagram).await {
            let _ = front.send_to(&datagram[..len], client).await; // lost where it cannot be sent
        }
    }
}

/// An SRTP packet: RTP's first two bits (RFC 7983), and no RTCP (RFC 5761).
fn is_sound(datagram: &[u8]) -> bool {
    matches!(datagram, [first, second, ..] if first >> 6 == 2 && !(192..=223).contains(second))
}

/// Says which packets are lost: by a share, from a seed, packet by packet.
#[derive(Clone, Copy)]
struct Dice {
    loss_percent: u32,
    seed: u64,
}

impl Dice {
    fn loses(&mut self) -> bool {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((self.seed >> 33) * 100) >> 31) < u64::from(self.loss_percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_renamed_wherever_it_stands_also_across_two_reads() {
        let (from, to) = (&b"10.0.0.1 7882 typ"[..], &b"10.0.0.1 9999 typ"[..]);
        let mut bytes = b"a 10.0.0.1 7882 typ b 10.0.0.1 78".to_vec();
        let ready = rename(&mut bytes, from, to);
        assert_eq!(&bytes[..ready], b"a 10.0.0.1 9999 typ b ");
        let mut rest = bytes[ready..].to_vec();
        rest.extend(b"82 typ c10");
        let ready = rename(&mut rest, from, to);
        assert_eq!(&rest[..ready], b"10.0.0.1 9999 typ c10", "an end that may be anything is not held back");
    }

    #[test]
    fn a_participants_own_port_is_hidden() {
        let mut message = b"1 udp 99 10.0.0.2 4567 typ host\r\n1 udp 9 1.2.3.4 33 typ srflx".to_vec();
        hide_port(&mut message);
        assert_eq!(message, b"1 udp 99 10.0.0.2 0009 typ host\r\n1 udp 9 1.2.3.4 33 typ srflx");
    }

    #[test]
    fn the_share_that_is_lost_is_the_share_asked_for_and_the_same_each_time() {
        let lost = |loss_percent| {
            let mut dice = Dice { loss_percent, seed: 7 };
            (0..10_000).filter(|_| dice.loses()).collect::<Vec<u32>>()
        };
        assert_eq!(lost(0).len(), 0);
        assert!((900..1_100).contains(&lost(10).len()), "{}", lost(10).len());
        assert_eq!(lost(20), lost(20));
    }
}
