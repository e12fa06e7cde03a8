//! One peer connection: a `str0m` machine and its sockets.
//!
//! The rule of the machine: after each input it is polled until it asks for time. So [`Peer::drain`] ends every method
//! that changes something; what happened is handed to the caller's closure.

use super::IceTransportPolicy;
use super::counters::{RoomCounters, count};
use super::ice_servers::{TurnServer, TurnTransport};
use super::relay::Relays;
use super::sockets::Sockets;
use super::tcp::Arrived;
use super::turn::Allocation;
use mio::Token;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, ChannelId, Reliability};
use str0m::config::DtlsCert;
use str0m::media::{Direction, MediaKind, MediaTime, Mid};
use str0m::net::{DatagramRecv, Protocol, Receive, TcpType, Transmit};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig, RtcError};
use voiced_core::packet::{Codec, Packet};

/// Candidates kept that came before the description they belong to; a server offers a handful.
const EARLY_CANDIDATES_MAX: usize = 32;
/// Datagrams read from a socket before other peers have their turn: 1.3 s of one track.
const RECEIVE_BATCH_MAX: usize = 64;
/// Times that the machine may ask for the time that it already is, within one drain.
const DRAIN_ROUNDS_MAX: usize = 64;
/// How long UDP has before TCP is tried too: a check takes a round trip, and is repeated twice by then.
const TCP_AFTER: Duration = Duration::from_millis(1_500);
/// How often the machine tells of round trip and loss.
const STATS_INTERVAL: Duration = Duration::from_secs(5);
/// The longest datagram that a path carries, with room to notice a longer one.
pub(super) const DATAGRAM_BYTES_MAX: usize = 2_000;

/// Which of a room's two peer connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    /// What we send; we offer.
    Publisher,
    /// What we hear; the server offers.
    Subscriber,
}

/// A certificate for DTLS, made once: making one costs more than a connection.
pub(crate) fn dtls_certificate() -> Option<DtlsCert> {
    str0m::crypto::from_feature_flags().dtls_provider.generate_certificate()
}

pub(super) struct Peer {
    rtc: Rtc,
    sockets: Sockets,
    pending: Option<SdpPendingOffer>,
    described: bool,
    early: Vec<Candidate>,
    up: bool,
    /// When TCP is tried as well, unless the connection is up by then.
    tcp_at: Option<Instant>,
    pub relays: Relays,
    /// When the relay's client wants to be woken.
    relay_deadline: Option<Instant>,
    /// When the machine wants to be woken.
    pub deadline: Instant,
}

impl Peer {
    /// A machine that offers the addresses of `sockets`.
    pub fn new(certificate: Option<&DtlsCert>, sockets: Sockets, policy: IceTransportPolicy, now: Instant) -> Self {
        // nothing is held back for order: the caller's jitter buffer does that, and knows how long it may wait
        let mut config = RtcConfig::new().clear_codecs().enable_opus(true, true).enable_pcmu(true, false);
        config = config.set_reordering_size_audio(0).set_stats_interval(Some(STATS_INTERVAL));
        if let Some(certificate) = certificate {
            config = config.set_dtls_cert(certificate.clone());
        }
        let mut rtc = config.build(now);
        let relays = Relays::new(policy);
        for address in sockets.known_as().filter(|_| !relays.only()) {
            match Candidate::host(address, "udp") {
                Ok(candidate) => _ = rtc.add_local_candidate(candidate),
                Err(error) => tracing::warn!(%address, %error, "address cannot be offered"),
            }
        }
        Self { rtc, sockets, pending: None, described: false, early: Vec::new(), up: false, tcp_at: None, relays, relay_deadline: None, deadline: now }
    }

    /// Reads what a socket has. True when there may be more.
    pub fn receive(&mut self, token: Token, now: Instant, counters: &RoomCounters, happened: &mut dyn FnMut(Event)) -> bool {
        if self.sockets.is_stream(token) {
            self.receive_stream(token, now, counters, happened);
            return false;
        }
        let mut datagram = [0; DATAGRAM_BYTES_MAX];
        for _ in 0..RECEIVE_BATCH_MAX {
            let (len, source, destination) = match self.sockets.receive(token, &mut datagram) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                // a refused port answers an earlier send; ICE finds out by itself
                Err(_) => continue,
            };
            if self.relay_over(TurnTransport::Udp, source) {
                self.receive_relayed(&datagram[..len], now, counters, happened);
            } else {
                self.take(Protocol::Udp, source, destination, &datagram[..len], now, counters, happened);
            }
        }
        true
    }

    fn receive_stream(&mut self, token: Token, now: Instant, counters: &RoomCounters, happened: &mut dyn FnMut(Event)) {
        match self.sockets.receive_stream(token) {
            Some(Arrived::Datagrams(source, datagrams)) => {
                let Some(destination) = self.sockets.known_as_active() else { return };
                for datagram in datagrams {
                    self.take(Protocol::Tcp, source, destination, &datagram, now, counters, happened);
                }
            }
            Some(Arrived::Relay { from, bytes, open }) if self.relay_over(TurnTransport::Tcp, from) => {
                self.receive_relayed(&bytes, now, counters, happened);
                if !open {
                    self.relays.failed(now);
                    self.drain(now, counters, happened);
                }
            }
            Some(Arrived::Relay { .. }) | None => {}
        }
    }

    /// Whether our relay is at this address.
    fn relay_over(&self, transport: TurnTransport, address: SocketAddr) -> bool {
        let server = self.relays.allocation.as_ref().map(Allocation::server);
        server.is_some_and(|server| server.transport == transport && server.address == address)
    }

    fn receive_relayed(&mut self, bytes: &[u8], now: Instant, counters: &RoomCounters, happened: &mut dyn FnMut(Event)) {
        let Some(allocation) = &mut self.relays.allocation else { return };
        let received = allocation.receive(bytes, now);
        if let Some(relayed) = allocation.relayed() {
            for (source, datagram) in received {
                self.take(Protocol::Udp, source, relayed, &datagram, now, counters, happened);
            }
        }
        self.drain(now, counters, happened);
    }

    #[allow(clippy::too_many_arguments, reason = "a datagram is this much")]
    fn take(
        &mut self,
        proto: Protocol,
        source: SocketAddr,
        destination: SocketAddr,
        datagram: &[u8],
        now: Instant,
        counters: &RoomCounters,
        happened: &mut dyn FnMut(Event),
    ) {
        let Ok(contents) = DatagramRecv::try_from(datagram) else { return count(&counters.all.decode_errors) };
        if let Err(error) = self.rtc.handle_input(Input::Receive(now, Receive { proto, source, destination, contents })) {
            count(&counters.all.decode_errors);
            tracing::debug!(%error, "datagram refused");
        }
        self.drain(now, counters, happened);
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: Instant, counters: &RoomCounters, happened: &mut dyn FnMut(Event)) {
        if self.tcp_at.take_if(|at| *at <= now).is_some() && !self.rtc.is_connected() {
            self.try_tcp();
            self.drain(now, counters, happened);
        }
        if let Some(server) = self.relays.next(self.rtc.is_connected(), now) {
            match self.sockets.open_relay(&server) {
                Ok(local) => self.relays.allocation = Some(Allocation::begin(server, local, now)),
                Err(error) => {
                    tracing::debug!(server = %server.address, %error, "relay cannot be reached");
                    self.relays.failed(now);
                }
            }
        }
        if let Err(error) = self.rtc.handle_input(Input::Timeout(now)) {
            tracing::debug!(%error, "peer connection broke");
        }
        self.drain(now, counters, happened);
    }

    /// Lets ICE use the server's TCP addresses, which it knows but cannot reach without one of ours.
    fn try_tcp(&mut self) {
        let candidate = self.sockets.known_as_active().map(|address| Candidate::builder().tcp().host(address).tcptype(TcpType::Active).build());
        if let Some(Ok(candidate)) = candidate {
            self.rtc.add_local_candidate(candidate);
        }
    }

    /// Polls until the machine asks for time that has not come, and its relay has nothing new.
    pub fn drain(&mut self, now: Instant, counters: &RoomCounters, happened: &mut dyn FnMut(Event)) {
        let mut rounds = 0;
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Transmit(datagram)) => {
                    if self.transmit(&datagram, now).is_err() {
                        counters.dropped();
                    }
                }
                Ok(Output::Event(event)) => happened(event),
                Ok(Output::Timeout(at)) if at > now || rounds >= DRAIN_ROUNDS_MAX => {
                    if rounds < DRAIN_ROUNDS_MAX && self.poll_relay(now, counters) {
                        rounds += 1;
                        continue;
                    }
                    self.deadline = [self.tcp_at, self.relays.deadline(), self.relay_deadline].into_iter().flatten().fold(at, Instant::min);
                    return;
                }
                Ok(Output::Timeout(_)) => {
                    rounds += 1;
                    if self.rtc.handle_input(Input::Timeout(now)).is_err() {
                        return self.rest(now);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "peer connection broke");
                    return self.rest(now);
                }
            }
        }
    }

    fn transmit(&mut self, datagram: &Transmit, now: Instant) -> io::Result<()> {
        match &mut self.relays.allocation {
            Some(allocation) if allocation.relayed() == Some(datagram.source) => match allocation.send(datagram.destination, &datagram.contents, now) {
                Some(wrapped) => self.sockets.send_to_relay(allocation.server(), &wrapped),
                None => Ok(()),
            },
            _ => self.sockets.send(datagram),
        }
    }

    /// Lets the relay's client do what it has to. True when the machine has something new by it.
    fn poll_relay(&mut self, now: Instant, counters: &RoomCounters) -> bool {
        self.relay_deadline = None;
        let Some(allocation) = &mut self.relays.allocation else { return false };
        let progress = allocation.poll(now);
        for bytes in &progress.to_server {
            if self.sockets.send_to_relay(allocation.server(), bytes).is_err() {
                counters.dropped();
            }
        }
        if progress.failed {
            tracing::debug!(server = %allocation.server().address, "no relay there");
            if let Some(allocation) = self.relays.failed(now) {
                self.sockets.close_relay(allocation.server());
            }
            return false;
        }
        // what was sent may have set an earlier time
        self.relay_deadline = if progress.to_server.is_empty() { progress.deadline } else { Some(now) };
        let Some(relayed) = progress.allocated else { return false };
        let local = self.sockets.known_as().next().unwrap_or(relayed);
        if let Ok(candidate) = Candidate::relayed(relayed, local, Protocol::Udp)
            && let Some(candidate) = self.rtc.add_local_candidate(candidate)
        {
            count(&counters.all.relays);
            self.relays.found = Some(candidate.to_sdp_string());
        }
        true
    }

    /// A broken machine is not asked again soon; its room hears of it through ICE and replaces it.
    fn rest(&mut self, now: Instant) {
        self.rtc.disconnect();
        self.deadline = now + STATS_INTERVAL;
    }

    /// Whether the connection came up, with what its side waits for being `ready`, or went down since the last call.
    pub fn turned(&mut self, ready: bool) -> Option<bool> {
        let up = ready && self.rtc.is_alive() && self.rtc.is_connected();
        (up != std::mem::replace(&mut self.up, up)).then_some(up)
    }

    pub fn is_alive(&self) -> bool {
        self.rtc.is_alive()
    }

    /// Takes the server's offer; the answer.
    pub fn answer(&mut self, offer: &str, now: Instant) -> Result<String, RtcError> {
        let offer = SdpOffer::from_sdp_string(offer).map_err(|error| RtcError::RemoteSdp(error.to_string()))?;
        let answer = self.rtc.sdp_api().accept_offer(offer)?;
        self.describe(now);
        Ok(answer.to_sdp_string())
    }

    /// Offers a line for each content id, and the two data channels.
    pub fn publish(&mut self, cids: &[String]) -> Option<(String, Vec<Mid>, [ChannelId; 2])> {
        let mut change = self.rtc.sdp_api();
        let mids = cids.iter().map(|cid| change.add_media(MediaKind::Audio, Direction::SendOnly, Some(cid.clone()), Some(cid.clone()), None)).collect();
        let reliable = change.add_channel("_reliable".to_owned());
        let lossy = change.add_channel_with_config(ChannelConfig {
            label: "_lossy".to_owned(),
            ordered: false,
            reliability: Reliability::MaxRetransmits { retransmits: 0 },
            ..ChannelConfig::default()
        });
        let (offer, pending) = change.apply()?;
        self.pending = Some(pending);
        Some((offer.to_sdp_string(), mids, [reliable, lossy]))
    }

    /// Offers new ICE credentials, on the same sockets.
    pub fn restart(&mut self) -> Option<String> {
        let mut change = self.rtc.sdp_api();
        change.ice_restart(true);
        let (offer, pending) = change.apply()?;
        self.pending = Some(pending);
        Some(offer.to_sdp_string())
    }

    /// Takes the server's answer to the last offer.
    pub fn accept(&mut self, answer: &str, now: Instant) -> Result<(), RtcError> {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        let answer = SdpAnswer::from_sdp_string(answer).map_err(|error| RtcError::RemoteSdp(error.to_string()))?;
        self.rtc.sdp_api().accept_answer(pending, answer)?;
        self.describe(now);
        Ok(())
    }

    /// Takes an address of the server; kept when its description is still to come.
    pub fn candidate(&mut self, candidate: &str) {
        match Candidate::from_sdp_string(candidate) {
            Ok(candidate) if self.described && self.pending.is_none() => self.rtc.add_remote_candidate(candidate),
            Ok(candidate) if self.early.len() < EARLY_CANDIDATES_MAX => self.early.push(candidate),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "candidate not understood"),
        }
    }

    fn describe(&mut self, now: Instant) {
        self.described = true;
        self.tcp_at = (!self.relays.only()).then(|| now + TCP_AFTER);
        self.relays.described(now);
        for candidate in self.early.drain(..) {
            self.rtc.add_remote_candidate(candidate);
        }
    }

    /// These relays may be asked; time is to be let pass for it.
    pub fn offer_relays(&mut self, servers: Vec<TurnServer>, now: Instant) {
        self.relays.offered(servers, now);
        self.deadline = self.relays.deadline().map_or(self.deadline, |at| at.min(self.deadline));
    }

    /// Sends sound on a line, `false` when the line has no such codec.
    pub fn send(&mut self, mid: Mid, packet: &Packet, time_ms: u64, talkspurt: bool, now: Instant) -> bool {
        let Some(writer) = self.rtc.writer(mid) else { return false };
        let codec = match packet.codec {
            Codec::Opus => str0m::format::Codec::Opus,
            Codec::Mulaw => str0m::format::Codec::PCMU,
        };
        let Some(pt) = writer.payload_params().find(|params| params.spec().codec == codec).map(str0m::format::PayloadParams::pt) else { return false };
        writer.start_of_talkspurt(talkspurt).write(pt, now, MediaTime::from_millis(time_ms), packet.payload()).is_ok()
    }

    /// Sends a data message, `false` when the channel is not open or full.
    pub fn send_data(&mut self, channel: ChannelId, message: &[u8]) -> bool {
        self.rtc.channel(channel).is_some_and(|mut channel| channel.write(true, message).unwrap_or(false))
    }

    pub fn tokens(&self) -> impl Iterator<Item = Token> + '_ {
        self.sockets.tokens()
    }

    /// Says goodbye and leaves the poll.
    pub fn close(&mut self, now: Instant, counters: &RoomCounters) {
        if self.rtc.close().is_ok() {
            self.drain(now, counters, &mut |_| {});
        }
        self.rtc.disconnect();
        if let Some(mut allocation) = self.relays.allocation.take() {
            for bytes in allocation.end(now) {
                // a server that does not hear it forgets us by itself
                let _ = self.sockets.send_to_relay(allocation.server(), &bytes);
            }
        }
        self.sockets.close();
    }
}
