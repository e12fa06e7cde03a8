//! A room's media on its thread: two peers, the tracks that are sent, the tracks that are heard, the data channels.

use super::counters::{RoomCounters, count};
use super::ice_servers::TurnServer;
use super::numbering::{Arrivals, Departures};
use super::peer::{Peer, Side};
use super::sdp::{TrackLine, track_lines};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use str0m::channel::ChannelId;
use str0m::media::{MediaData, Mid};
use str0m::{Event, IceConnectionState};
use tokio::sync::mpsc;
use voiced_core::packet::{Codec, Packet};

/// Data messages held until the channel opens or has room: some seconds of transcripts.
pub(crate) const DATA_WAITING_MAX: usize = 256;
/// Places of a room's event queue that data may not take, so that the connection's own news always fit.
pub(crate) const EVENTS_KEPT_FREE: usize = 32;

/// Takes the packets of a track, on the media thread.
pub(crate) type Hear = Box<dyn FnMut(Packet) + Send>;

/// What a media thread tells a room.
#[derive(Debug)]
pub(crate) enum MediaEvent {
    /// The answer to the server's offer of this id.
    Answer { id: u32, sdp: String },
    /// Our offer.
    Offer { sdp: String },
    /// The lines of the server's last offer that bring sound.
    Lines(Vec<TrackLine>),
    /// An address of ours that the server is to know.
    Candidate { side: Side, candidate: String },
    /// A connection is up.
    Up(Side),
    /// A connection is down.
    Down(Side),
    /// A data message came.
    Data(Vec<u8>),
}

/// A track to publish.
#[derive(Clone, Debug)]
pub(crate) struct PublishLine {
    /// The content id by which LiveKit knows the track before it has a sid.
    pub cid: String,
    /// What is sent on it.
    pub codec: Codec,
}

pub(super) struct Connection {
    /// Boxed: a peer is some 9 KB, and moves when rooms come and go.
    pub publisher: Box<Peer>,
    pub subscriber: Box<Peer>,
    sending: Vec<Sending>,
    hearing: Vec<Hearing>,
    lines: Vec<TrackLine>,
    channels: Option<Channels>,
    /// The server has opened its channels to us.
    hears_data: bool,
    waiting: VecDeque<Vec<u8>>,
    events: mpsc::Sender<MediaEvent>,
    counters: Arc<RoomCounters>,
    /// What the machines said during a drain, handled after it.
    happened: Vec<Event>,
}

struct Sending {
    mid: Mid,
    codec: Codec,
    times: Departures,
}

struct Hearing {
    track_sid: String,
    mid: Option<Mid>,
    hear: Hear,
    numbers: Arrivals,
}

struct Channels {
    reliable: ChannelId,
    lossy: ChannelId,
    reliable_open: bool,
}

impl Connection {
    pub fn new(publisher: Box<Peer>, subscriber: Box<Peer>, events: mpsc::Sender<MediaEvent>, counters: Arc<RoomCounters>) -> Self {
        Self {
            publisher,
            subscriber,
            sending: Vec::new(),
            hearing: Vec::new(),
            lines: Vec::new(),
            channels: None,
            hears_data: false,
            waiting: VecDeque::new(),
            events,
            counters,
            happened: Vec::new(),
        }
    }

    /// Fresh peers for the same room; who listens goes on listening. The old peers are returned for closing.
    pub fn renew(&mut self, publisher: Box<Peer>, subscriber: Box<Peer>, events: mpsc::Sender<MediaEvent>) -> [Box<Peer>; 2] {
        self.events = events;
        self.sending.clear();
        self.lines.clear();
        self.channels = None;
        self.hears_data = false;
        for hearing in &mut self.hearing {
            hearing.mid = None;
            hearing.numbers.renew();
        }
        [std::mem::replace(&mut self.publisher, publisher), std::mem::replace(&mut self.subscriber, subscriber)]
    }

    /// Reads a socket of one side. True when there may be more.
    pub fn receive(&mut self, side: Side, token: mio::Token, now: Instant) -> bool {
        let Self { publisher, subscriber, happened, counters, .. } = self;
        let peer = if side == Side::Publisher { publisher } else { subscriber };
        let more = peer.receive(token, now, counters, &mut |event| happened.push(event));
        self.settle(side, now);
        more
    }

    /// Lets time pass on the sides whose deadline has come.
    pub fn advance(&mut self, now: Instant) {
        for side in [Side::Publisher, Side::Subscriber] {
            let Self { publisher, subscriber, happened, counters, .. } = self;
            let peer = if side == Side::Publisher { publisher } else { subscriber };
            if peer.deadline <= now {
                peer.advance(now, counters, &mut |event| happened.push(event));
                self.settle(side, now);
            }
        }
    }

    /// When either side wants to be woken.
    pub fn deadline(&self) -> Instant {
        self.publisher.deadline.min(self.subscriber.deadline)
    }

    /// Takes the server's offer.
    pub fn offer(&mut self, id: u32, offer: &str, now: Instant) {
        match self.subscriber.answer(offer, now) {
            Ok(sdp) => {
                self.lines = track_lines(offer);
                for hearing in &mut self.hearing {
                    let mid = mid_of(&self.lines, &hearing.track_sid);
                    if mid.is_some() && mid != hearing.mid {
                        hearing.numbers.renew();
                    }
                    hearing.mid = mid;
                }
                self.tell(MediaEvent::Answer { id, sdp });
                self.tell(MediaEvent::Lines(self.lines.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "the server's offer cannot be answered");
                self.tell(MediaEvent::Down(Side::Subscriber));
            }
        }
        self.poll(Side::Subscriber, now);
    }

    /// Offers the tracks, and the data channels.
    pub fn publish(&mut self, tracks: &[PublishLine], now: Instant) {
        let cids: Vec<String> = tracks.iter().map(|track| track.cid.clone()).collect();
        if let Some((sdp, mids, [reliable, lossy])) = self.publisher.publish(&cids) {
            self.sending = mids.into_iter().zip(tracks).map(|(mid, track)| Sending { mid, codec: track.codec, times: Departures::default() }).collect();
            self.channels = Some(Channels { reliable, lossy, reliable_open: false });
            self.tell(MediaEvent::Offer { sdp });
        }
        self.poll(Side::Publisher, now);
    }

    /// Offers new ICE credentials.
    pub fn restart(&mut self, now: Instant) {
        if let Some(sdp) = self.publisher.restart() {
            self.tell(MediaEvent::Offer { sdp });
        }
        self.poll(Side::Publisher, now);
    }

    /// Takes the server's answer.
    pub fn accept(&mut self, answer: &str, now: Instant) {
        if let Err(error) = self.publisher.accept(answer, now) {
            tracing::warn!(%error, "the server's answer cannot be taken");
            self.tell(MediaEvent::Down(Side::Publisher));
        }
        self.poll(Side::Publisher, now);
    }

    /// Takes an address of the server.
    pub fn candidate(&mut self, side: Side, candidate: &str, now: Instant) {
        match side {
            Side::Publisher => self.publisher.candidate(candidate),
            Side::Subscriber => self.subscriber.candidate(candidate),
        }
        self.poll(side, now);
    }

    /// Takes the TURN servers that may be asked.
    pub fn relays(&mut self, servers: Vec<TurnServer>, now: Instant) {
        self.publisher.offer_relays(servers.clone(), now);
        self.subscriber.offer_relays(servers, now);
        self.advance(now);
    }

    /// Sends sound.
    pub fn send(&mut self, track: usize, packet: &Packet, now: Instant) {
        let sent = match self.sending.get_mut(track) {
            Some(sending) if sending.codec == packet.codec => {
                let (time_ms, talkspurt) = sending.times.time(packet.timestamp_ms);
                self.publisher.send(sending.mid, packet, time_ms, talkspurt, now)
            }
            _ => false,
        };
        if !sent {
            return self.counters.dropped();
        }
        self.counters.sent(packet.payload().len());
        self.poll(Side::Publisher, now);
    }

    /// Sends a data message; a reliable one waits for its channel.
    pub fn send_data(&mut self, reliable: bool, message: Vec<u8>, now: Instant) {
        if reliable {
            if self.waiting.len() >= DATA_WAITING_MAX {
                self.counters.dropped();
            } else {
                self.waiting.push_back(message);
            }
            self.flush();
        } else if !self.channels.as_ref().is_some_and(|channels| self.publisher.send_data(channels.lossy, &message)) {
            self.counters.dropped();
        }
        self.poll(Side::Publisher, now);
    }

    /// Sends reliable data messages once more, those that wait among them.
    pub fn resend(&mut self, messages: Vec<Vec<u8>>, now: Instant) {
        // what is not among them is from before the last rejoin
        self.waiting.retain(|waiting| !messages.contains(waiting));
        self.waiting.extend(messages);
        self.flush();
        self.poll(Side::Publisher, now);
    }

    /// Hears a track from now on, in place of an earlier listener.
    pub fn listen(&mut self, track_sid: String, hear: Hear) {
        let mid = mid_of(&self.lines, &track_sid);
        match self.hearing.iter_mut().find(|hearing| hearing.track_sid == track_sid) {
            Some(hearing) => hearing.hear = hear,
            None => self.hearing.push(Hearing { track_sid, mid, hear, numbers: Arrivals::default() }),
        }
    }

    /// Hears a track no more.
    pub fn unlisten(&mut self, track_sid: &str) {
        self.hearing.retain(|hearing| hearing.track_sid != track_sid);
    }

    /// Who heard track `from` hears `to`, unless `to` has a listener.
    pub fn relisten(&mut self, from: &str, to: String) {
        if self.hearing.iter().any(|hearing| hearing.track_sid == to) {
            return self.unlisten(from);
        }
        if let Some(hearing) = self.hearing.iter_mut().find(|hearing| hearing.track_sid == from) {
            hearing.mid = mid_of(&self.lines, &to);
            hearing.track_sid = to;
            hearing.numbers.renew();
        }
    }

    fn poll(&mut self, side: Side, now: Instant) {
        let Self { publisher, subscriber, happened, counters, .. } = self;
        let peer = if side == Side::Publisher { publisher } else { subscriber };
        peer.drain(now, counters, &mut |event| happened.push(event));
        self.settle(side, now);
    }

    /// Handles what a machine said.
    fn settle(&mut self, side: Side, now: Instant) {
        let mut happened = std::mem::take(&mut self.happened);
        for event in happened.drain(..) {
            self.apply(side, event, now);
        }
        self.happened = happened;
        let peer = if side == Side::Publisher { &mut self.publisher } else { &mut self.subscriber };
        let alive = peer.is_alive();
        if let Some(candidate) = peer.relays.found.take() {
            self.tell(MediaEvent::Candidate { side, candidate });
        }
        let peer = if side == Side::Publisher { &mut self.publisher } else { &mut self.subscriber };
        // the server drops what is sent to us before its channels are open
        match peer.turned(side == Side::Publisher || self.hears_data) {
            Some(true) => self.tell(MediaEvent::Up(side)),
            Some(false) if !alive => self.tell(MediaEvent::Down(side)),
            // a restart of ICE: it says by itself when it has failed
            Some(false) | None => {}
        }
    }

    fn apply(&mut self, side: Side, event: Event, now: Instant) {
        match event {
            Event::MediaData(data) => self.hear(&data, now),
            Event::ChannelData(data) if self.events.capacity() > EVENTS_KEPT_FREE => self.tell(MediaEvent::Data(data.data)),
            Event::ChannelData(_) => self.counters.dropped(),
            Event::ChannelOpen(..) if side == Side::Subscriber => self.hears_data = true,
            Event::ChannelOpen(id, _) => {
                if let Some(channels) = self.channels.as_mut().filter(|channels| side == Side::Publisher && channels.reliable == id) {
                    channels.reliable_open = true;
                    self.flush();
                    self.poll(side, now);
                }
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => self.tell(MediaEvent::Down(side)),
            Event::PeerStats(stats) => {
                self.flush();
                if let Some(rtt) = stats.selected_candidate_pair.and_then(|pair| pair.current_round_trip_time) {
                    self.counters.rtt_us.store(rtt.as_micros().min(u128::from(u32::MAX)) as u32, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }

    fn hear(&mut self, data: &MediaData, now: Instant) {
        self.counters.received(data.data.len());
        let Some(hearing) = self.hearing.iter_mut().find(|hearing| hearing.mid == Some(data.mid)) else { return };
        let codec = match data.params.spec().codec {
            str0m::format::Codec::Opus => Codec::Opus,
            str0m::format::Codec::PCMU => Codec::Mulaw,
            _ => return,
        };
        let time_ms = data.time.numer().saturating_mul(1_000) / u64::from(data.time.denom());
        let numbered = hearing.numbers.number(**data.seq_range.start(), time_ms, now);
        self.counters.lost.fetch_add(u64::from(numbered.lost), Ordering::Relaxed);
        match Packet::new(codec, numbered.sequence, numbered.time_ms, &data.data) {
            Some(packet) => (hearing.hear)(packet),
            // an empty payload is padding, not sound
            None if data.data.is_empty() => {}
            None => count(&self.counters.all.oversize),
        }
    }

    fn flush(&mut self) {
        let Some(channels) = self.channels.as_ref().filter(|channels| channels.reliable_open) else { return };
        while let Some(message) = self.waiting.front() {
            if !self.publisher.send_data(channels.reliable, message) {
                return;
            }
            self.waiting.pop_front();
        }
    }

    fn tell(&self, event: MediaEvent) {
        if self.events.try_send(event).is_err() {
            self.counters.dropped();
        }
    }
}

fn mid_of(lines: &[TrackLine], track_sid: &str) -> Option<Mid> {
    lines.iter().find(|line| line.track_sid == track_sid).map(|line| line.mid)
}
