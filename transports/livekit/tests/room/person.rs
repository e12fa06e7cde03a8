//! Someone in a room who speaks numbered packets and remembers what was heard.

use crate::server::Server;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use voiced_core::packet::{Codec, Packet};
use voiced_livekit::{DisconnectReason, JoinOptions, LiveKit, PublishTrack, RemoteTrack, Room, RoomEvent};

/// A loaded machine may take its time for a handshake.
pub const PATIENCE: Duration = Duration::from_secs(40);
const PACKET_MS: u32 = 20;

pub struct Person {
    pub room: Room,
    pub events: mpsc::Receiver<RoomEvent>,
    pub heard: Arc<Mutex<Vec<Packet>>>,
    speaking: Arc<AtomicBool>,
}

impl Person {
    /// Joins the room `room` of a server and publishes one track.
    pub async fn join(livekit: &LiveKit, server: &Server, identity: &str, codec: Codec) -> Self {
        Self::join_by(livekit, server.url().as_str(), server, identity, codec).await
    }

    /// As [`Self::join`], by another way to the server.
    pub async fn join_by(livekit: &LiveKit, url: &str, server: &Server, identity: &str, codec: Codec) -> Self {
        let (room, events) = livekit.join(options(url, &server.token("room", identity), identity, codec)).await.expect("let in");
        Self { room, events, heard: Arc::default(), speaking: Arc::default() }
    }

    /// Waits for the end of an outage; whether the room was joined anew.
    pub async fn returned(&mut self) -> bool {
        self.until("the return", |event| if let RoomEvent::Reconnected { rejoined } = event { Some(rejoined) } else { None }).await
    }

    /// Waits for the end of the room, and its reason.
    pub async fn ended(&mut self) -> DisconnectReason {
        self.until("the end", |event| if let RoomEvent::Disconnected { reason } = event { Some(reason) } else { None }).await
    }

    /// Waits for an event, and throws away those before it.
    pub async fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(RoomEvent) -> Option<T>) -> T {
        let wait = async {
            while let Some(event) = self.events.recv().await {
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
            panic!("the room ended before: {what}");
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain for: {what}"))
    }

    /// Waits for someone's track and listens to it.
    pub async fn listen_to(&mut self, identity: &str) -> RemoteTrack {
        let track = self
            .until(&format!("a track of {identity}"), |event| match event {
                RoomEvent::TrackSubscribed { identity: whose, track } if whose == identity => Some(track),
                _ => None,
            })
            .await;
        let heard = self.heard.clone();
        assert!(self.room.listen(&track.sid, Box::new(move |packet| heard.lock().expect("not poisoned").push(packet))));
        track
    }

    /// Speaks a packet every 20 ms until dropped: its number in four bytes, then filling.
    pub fn speak(&self, codec: Codec) {
        self.speaking.store(true, Ordering::Relaxed);
        let (room, speaking) = (self.room.clone(), self.speaking.clone());
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(PACKET_MS.into()));
            for number in 0u32.. {
                tick.tick().await;
                if !speaking.load(Ordering::Relaxed) {
                    return;
                }
                let mut payload = [0x5A; 160];
                payload[..4].copy_from_slice(&number.to_be_bytes());
                // one Opus frame of 20 ms in its first byte; a server may look at it
                payload[0] = if codec == Codec::Opus { 0x78 } else { 0 };
                let len = if codec == Codec::Opus { 80 } else { 160 };
                room.send(0, Packet::new(codec, number, number * PACKET_MS, &payload[..len]).expect("fits"));
            }
        });
    }

    /// Waits until so many more packets were heard; their numbers and the packets.
    pub async fn hear(&self, count: usize) -> Vec<(u32, Packet)> {
        self.heard.lock().expect("not poisoned").clear();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let heard = self.heard.lock().expect("not poisoned").clone();
            if heard.len() >= count {
                return heard.into_iter().map(|packet| (number(&packet), packet)).collect();
            }
            assert!(Instant::now() < deadline, "heard only {} packets of {count}", heard.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// One track and one attribute.
pub fn options(url: &str, token: &str, identity: &str, codec: Codec) -> JoinOptions {
    JoinOptions {
        url: url.to_owned(),
        token: token.to_owned(),
        publish: vec![PublishTrack { name: "voice".to_owned(), codec }],
        auto_subscribe: true,
        attributes: [("role".to_owned(), identity.to_owned())].into(),
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        self.speaking.store(false, Ordering::Relaxed);
    }
}

fn number(packet: &Packet) -> u32 {
    let payload = packet.payload();
    u32::from_be_bytes([0, payload[1], payload[2], payload[3]])
}
