//! What a participant costs who gives back what it hears: its process's share of a core, and its memory.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use voiced_core::packet::Packet;
use voiced_lab::livekit::Peer;
use voiced_livekit::{LiveKit, MediaSettings};

use crate::people::{self, Person};
use crate::process::{cpu_s, rounded, rss_kb};
use crate::subject::{Subject, rooms};
use crate::{Stage, voice};

/// Rooms of each echo: enough to divide by, few enough that server and callers keep up beside it.
const OURS: usize = 64;
const THEIRS: usize = 6;
/// After the first echo, until everybody's connections have settled.
const SETTLE: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(12);
/// Of the packets sent, so many must come back for a row to count.
const ECHOED_MIN: f64 = 0.9;

pub async fn run(stage: &Stage) -> Result<Value> {
    let packets = voice::packets(&stage.voice.speech(48_000))?;
    let livekit = LiveKit::start(MediaSettings::default())?;
    let mut rows = Vec::new();
    for subject in Subject::ALL {
        rows.extend(subject.row(measure(stage, &livekit, &packets, subject).await));
    }
    Ok(rows.into())
}

async fn measure(stage: &Stage, livekit: &LiveKit, packets: &[Packet], subject: Subject) -> Result<Value> {
    let count = if subject == Subject::Sdk { THEIRS } else { OURS };
    let rooms = rooms("transport", subject, count);
    let echo = subject.start(stage, &rooms).await?;
    let people = Person::join_each(livekit, &stage.server, &rooms, "echo").await?;
    let mut numbered = 0;
    people::warm_up(&people, packets, &mut numbered).await?;
    people::speak(&people, packets, &mut numbered, SETTLE).await;
    for person in &people {
        drop(person.take_heard());
    }
    let (cpu_before, since) = (cpu_s(echo.id())?, Instant::now());
    let sent = people::speak(&people, packets, &mut numbered, MEASURED).await.len() * count;
    let used = (cpu_s(echo.id())? - cpu_before) / since.elapsed().as_secs_f64();
    let memory_kb = rss_kb(echo.id())? - memory_before(&echo);
    let echoed = people.iter().map(Person::heard).sum::<usize>() as f64 / sent as f64;
    // a voice that is encoded again has pauses in which nothing is sent
    ensure!(subject != Subject::Packets || echoed > ECHOED_MIN, "only {:.0} % of the packets came back", echoed * 100.0);
    let percent = used * 100.0 / count as f64;
    Ok(json!({
        "who": subject.name(), "participants": count, "cpu_percent": rounded(percent, 3), "rss_kb": rounded(memory_kb / count as f64, 0),
        "calls_per_core": rounded(100.0 / percent.max(0.001), 0), "echoed_percent": rounded(echoed * 100.0, 1),
    }))
}

fn memory_before(echo: &Peer) -> f64 {
    echo.events().iter().find(|event| event.event == "started").and_then(|event| event.number("rss_kb")).unwrap_or(0.0)
}
