//! How a voice sounds that an echo heard over a bad road and gave back over a good one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use voiced_benches::{Heard, quality};
use voiced_core::codec::f32_from_sample;
use voiced_core::packet::Packet;
use voiced_lab::livekit::Road;
use voiced_livekit::{LiveKit, MediaSettings};

use crate::people::{self, Person};
use crate::process::rounded;
use crate::subject::{Subject, rooms};
use crate::{Stage, voice};

/// Share of the packets that the road loses.
const LOSSES: [u32; 4] = [0, 5, 10, 20];
/// Rooms at each loss, each with a seed of its own, the same for both echoes.
const SEEDS: [u64; 2] = [11, 23];
/// Speech in each room.
const SAID: Duration = Duration::from_secs(24);
/// Sound that may come back later than it was said.
const LATE: Duration = Duration::from_millis(800);

pub async fn run(stage: &Stage) -> Result<Value> {
    let packets = voice::packets(&stage.voice.speech(48_000))?;
    let said: Vec<f32> = stage.voice.speech(16_000).into_iter().map(f32_from_sample).collect();
    let livekit = LiveKit::start(MediaSettings::default())?;
    let mut rows = Vec::new();
    for subject in [Subject::Engine, Subject::Sdk] {
        let measured = measure(stage, &livekit, &packets, &said, subject).await;
        rows.extend(subject.row(measured).into_iter().flat_map(|rows| rows.as_array().cloned().unwrap_or_default()));
    }
    Ok(rows.into())
}

async fn measure(stage: &Stage, livekit: &LiveKit, packets: &[Packet], said: &[f32], subject: Subject) -> Result<Value> {
    let rooms = rooms("loss", subject, LOSSES.len() * SEEDS.len());
    let echo = subject.start(stage, &rooms).await?;
    let (mut people, mut roads) = (Vec::new(), Vec::new());
    for (number, room) in rooms.iter().enumerate() {
        let road = Road::open(&stage.server, LOSSES[number / SEEDS.len()], SEEDS[number % SEEDS.len()]).await?;
        people.push(Person::join(livekit, &stage.server, road.url(), room, "echo").await?);
        roads.push(road);
    }
    let mut numbered = 0;
    people::warm_up(&people, packets, &mut numbered).await?;
    let sent = people::speak(&people, packets, &mut numbered, SAID).await;
    tokio::time::sleep(LATE).await;
    drop(echo);
    let mut rows = Vec::new();
    for (loss_percent, (people, roads)) in LOSSES.iter().zip(people.chunks(SEEDS.len()).zip(roads.chunks(SEEDS.len()))) {
        let (passed, lost) = roads.iter().map(Road::counts).fold((0, 0), |sum, road| (sum.0 + road.0, sum.1 + road.1));
        ensure!(passed > 0, "no sound took the bad road");
        let mut lsd_db = 0.0;
        for person in people {
            lsd_db += distance(said, &sent, &Heard::decode(person.take_heard())?)? / SEEDS.len() as f32;
        }
        rows.push(json!({
            "who": subject.name(), "loss_percent": loss_percent, "lsd_db": rounded(lsd_db.into(), 2),
            "lost_percent": rounded(lost as f64 * 100.0 / (passed + lost) as f64, 1),
        }));
    }
    Ok(rows.into())
}

/// Between what was said in the time of `sent`, and what came back then or a little later.
fn distance(said: &[f32], sent: &[Instant], heard: &Heard) -> Result<f32> {
    let begun = *sent.first().context("nothing was sent")?;
    let said: Vec<f32> = said.iter().copied().cycle().take(sent.len() * 320).collect();
    let (_, heard) = heard.arrived(begun, SAID + LATE);
    Ok(quality(&said, heard).context("nothing alike came back")?.lsd_db)
}
