//! People in rooms who send packets on time and note when what they hear arrives: no codec runs while they do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use tokio::sync::oneshot;
use voiced_core::packet::{Codec, Packet};
use voiced_lab::livekit::Server;
use voiced_livekit::{JoinOptions, LiveKit, PublishTrack, Room, RoomEvent};

/// How long a busy machine may take for a connection.
const PATIENCE: Duration = Duration::from_secs(20);
/// Packets noted at most: 10 minutes of sound.
const NOTED_MAX: usize = 30_000;
/// Length of a packet.
pub const PACKET: Duration = Duration::from_millis(20);

/// Somebody in a room.
pub struct Person {
    room: Room,
    heard: Arc<Mutex<Vec<(Instant, Packet)>>>,
}

impl Person {
    /// Joins, by this way to the server, and waits until sound can flow. Hears whose name begins so.
    pub async fn join(livekit: &LiveKit, server: &Server, url: &str, room: &str, whom: &'static str) -> Result<Self> {
        let options = JoinOptions {
            url: url.to_owned(),
            token: server.token(room, "person").to_jwt()?,
            publish: vec![PublishTrack { name: "voice".into(), codec: Codec::Opus }],
            auto_subscribe: true,
            attributes: [].into(),
        };
        let (room, mut events) = livekit.join(options).await?;
        let heard: Arc<Mutex<Vec<(Instant, Packet)>>> = Arc::default();
        let (connected, is_connected) = oneshot::channel::<()>();
        let (listening, noted) = (room.clone(), Arc::clone(&heard));
        tokio::spawn(async move {
            let mut connected = Some(connected);
            while let Some(event) = events.recv().await {
                match event {
                    RoomEvent::Connected => _ = connected.take().map(|connected| connected.send(())),
                    RoomEvent::TrackSubscribed { identity, track } if track.audio && identity.starts_with(whom) => {
                        let noted = Arc::clone(&noted);
                        listening.listen(&track.sid, Box::new(move |packet| note(&noted, &packet)));
                    }
                    _ => {}
                }
            }
        });
        tokio::time::timeout(PATIENCE, is_connected).await.context("no connection in time")?.context("the room ended at once")?;
        Ok(Self { room, heard })
    }

    /// One in each of these rooms, straight at the server.
    pub async fn join_each(livekit: &LiveKit, server: &Server, rooms: &[String], whom: &'static str) -> Result<Vec<Self>> {
        let url = server.url();
        try_join_all(rooms.iter().map(|room| Self::join(livekit, server, &url, room, whom))).await
    }

    /// Everything heard since the last call.
    pub fn take_heard(&self) -> Vec<(Instant, Packet)> {
        std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many packets wait for [`Person::take_heard`].
    pub fn heard(&self) -> usize {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn note(noted: &Mutex<Vec<(Instant, Packet)>>, packet: &Packet) {
    let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
    if noted.len() < NOTED_MAX {
        noted.push((Instant::now(), *packet));
    }
}

/// Says these packets, again and again, until the time is over; all people at once. Returns when each was sent. `numbered`
/// goes on where the last call left off, so that a receiver sees one stream.
pub async fn speak(people: &[Person], packets: &[Packet], numbered: &mut u32, lasting: Duration) -> Vec<Instant> {
    let mut tick = tokio::time::interval(PACKET);
    let mut sent = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < lasting {
        tick.tick().await;
        let number = *numbered;
        *numbered += 1;
        let mut packet = packets[sent.len() % packets.len()];
        (packet.sequence, packet.timestamp_ms) = (number, number * PACKET.as_millis() as u32);
        sent.push(Instant::now());
        for person in people {
            person.room.send(0, packet);
        }
    }
    sent
}

/// Waits until everyone hears the echo: a track is published when the first sound comes.
pub async fn warm_up(people: &[Person], packets: &[Packet], numbered: &mut u32) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        speak(people, packets, numbered, Duration::from_millis(500)).await;
        if people.iter().all(|person| person.heard() > 0) {
            return Ok(());
        }
    }
    let deaf = people.iter().filter(|person| person.heard() == 0).count();
    anyhow::bail!("{deaf} of {} people hear no echo", people.len())
}
