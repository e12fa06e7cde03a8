//! From a mouth in the room through an echo to an ear in the room: packets of 20 ms on the way, no jitter buffer at the ear.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use voiced_benches::{Chirps, Heard};
use voiced_core::codec::sample_from_f32;
use voiced_core::packet::Packet;
use voiced_livekit::{LiveKit, MediaSettings};

use crate::people::{self, Person};
use crate::process::{percentile, rounded};
use crate::subject::{Subject, rooms};
use crate::{Stage, probe, voice};

/// Rooms of each echo.
const ROOMS: usize = 2;
/// Chirps said in each.
const CHIRPS: u32 = 60;
/// What comes later than this is not looked for.
const LATE: Duration = Duration::from_millis(600);

pub async fn run(stage: &Stage) -> Result<Value> {
    let sound: Vec<i16> = Chirps::at(48_000).sound(CHIRPS).into_iter().map(sample_from_f32).collect();
    let packets = voice::packets(&sound)?;
    let livekit = LiveKit::start(MediaSettings::default())?;
    let mut rows = Vec::new();
    for subject in Subject::ALL {
        rows.extend(subject.row(measure(stage, &livekit, &packets, subject).await));
    }
    // a way without an ear and an encoder: server, network and transport
    let alone_ms = rows.iter().find(|row| row["who"] == Subject::Packets.name()).and_then(|row| row["p50_ms"].as_f64());
    for row in &mut rows {
        let all_ms = row["p50_ms"].as_f64();
        row["added_ms"] = all_ms.zip(alone_ms).map(|(all, alone)| rounded(all - alone, 1)).into();
    }
    Ok(rows.into())
}

async fn measure(stage: &Stage, livekit: &LiveKit, packets: &[Packet], subject: Subject) -> Result<Value> {
    let rooms = rooms("delay", subject, ROOMS);
    let echo = subject.start(stage, &rooms).await?;
    let people = Person::join_each(livekit, &stage.server, &rooms, "echo").await?;
    let mut numbered = 0;
    people::warm_up(&people, packets, &mut numbered).await?;
    let lasting = people::PACKET * packets.len() as u32;
    let sent = people::speak(&people, packets, &mut numbered, lasting).await;
    tokio::time::sleep(LATE).await;
    drop(echo);
    let mut delays = Vec::new();
    for person in &people {
        delays.extend(probe::delays_ms(&sent, &Heard::decode(person.take_heard())?, LATE));
    }
    ensure!(!delays.is_empty(), "no chirp was found again");
    Ok(json!({
        "who": subject.name(), "found": delays.len(), "of": CHIRPS as usize * ROOMS,
        "p50_ms": percentile(&delays, 50), "p95_ms": percentile(&delays, 95),
    }))
}
