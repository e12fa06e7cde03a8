//! Our echo, in a process of its own: participants who give back what they hear, as the SDK's echo does.
//!
//! `packets` sends each packet back as it came: a participant's transport alone. `engine` takes the way of a call's sound:
//! the packet crosses into the audio thread, is put in order and decoded by the engine's ear for lossy lines, mixed as a
//! guest's sound is, encoded, and rung for. No models run.

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use voiced_core::frame::Rate;
use voiced_core::id::GuestId;
use voiced_core::leg::{Command, LegSettings};
use voiced_core::line::ToLine;
use voiced_core::model::{VAD_WINDOW, VoiceActivity};
use voiced_core::packet::Codec;
use voiced_livekit::{JoinOptions, LiveKit, MediaSettings, PublishTrack, Room, RoomEvent};
use voiced_rt::{CallPort, Engine, EngineSettings, PortSettings, ThreadModels};

use crate::process::rss_kb;

/// What our echo does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    Packets,
    Engine,
}

/// The environment says that this process is an echo: a command line belongs to the peer that starts it.
pub const VARIABLE: &str = "VOICED_BENCH_ECHO";
/// Who is echoed, as a guest of the call.
const GUEST: GuestId = GuestId(0);

/// Whether this process is to be an echo.
pub fn asked() -> Option<Path> {
    match std::env::var(VARIABLE).ok()?.as_str() {
        "packets" => Some(Path::Packets),
        "engine" => Some(Path::Engine),
        _ => None,
    }
}

/// Joins a room for each token and echoes until stdin ends or says so.
pub async fn run(path: Path) -> Result<()> {
    let url = std::env::var("LIVEKIT_URL").context("LIVEKIT_URL")?;
    let tokens = std::env::var("LIVEKIT_TOKEN").context("LIVEKIT_TOKEN")?;
    let tokens: Vec<String> = tokens.split_whitespace().map(str::to_owned).collect();
    tell("started", json!({ "rss_kb": rss_kb(std::process::id())? }));
    let livekit = LiveKit::start(MediaSettings::default())?;
    let engine = (path == Path::Engine).then(|| start_engine(tokens.len())).transpose()?.map(Arc::new);
    for token in tokens {
        let options = JoinOptions {
            url: url.clone(),
            token,
            publish: vec![PublishTrack { name: "echo".into(), codec: Codec::Opus }],
            auto_subscribe: true,
            attributes: [].into(),
        };
        let (room, mut events) = livekit.join(options).await?;
        while !matches!(events.recv().await.context("the room ended at once")?, RoomEvent::Connected) {}
        tell("joined", json!({ "room": room.name() }));
        match &engine {
            None => tokio::spawn(echo_packets(room, events)),
            Some(engine) => {
                tokio::spawn(echo_through(engine.admit(PortSettings { leg: LegSettings::new(Rate::Hz48000), ear: false, direct: false })?, room, events))
            }
        };
    }
    tokio::task::spawn_blocking(until_told).await?;
    tell("left", json!({}));
    Ok(())
}

async fn echo_packets(room: Room, mut events: mpsc::Receiver<RoomEvent>) {
    while let Some(event) = events.recv().await {
        if let RoomEvent::TrackSubscribed { track, .. } = event {
            let back = room.clone();
            room.listen(&track.sid, Box::new(move |packet| _ = back.send(0, packet)));
        }
    }
}

async fn echo_through(mut port: CallPort, room: Room, mut events: mpsc::Receiver<RoomEvent>) {
    let bell = Arc::clone(&port.bell);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(RoomEvent::TrackSubscribed { track, .. }) => {
                    let Ok(mut guest) = port.join(GUEST, Codec::Opus) else { continue };
                    let _ = port.commands.push(Command::Guest { id: GUEST, to_caller: true, to_agent: false }); // a fresh call's ring is empty
                    room.listen(&track.sid, Box::new(move |packet| _ = guest.packets.push(&packet)));
                }
                Some(_) => {}
                None => return,
            },
            _ = bell.rung() => {
                while let Some(out) = port.outgoing.pop() {
                    if let ToLine::Audio(packet) = out {
                        room.send(0, packet);
                    }
                }
                while port.events.pop().is_ok() {}
            }
        }
    }
}

fn start_engine(calls: usize) -> Result<Engine> {
    let settings = EngineSettings { threads: 1, calls_per_thread: calls, realtime_priority: None, pin_cores: false, lock_memory: false };
    Engine::start(&settings, |_| Ok(ThreadModels { denoise: None, vad: Box::new(Deaf), end_of_turn: None }))
}

/// Hears no speech: only the way of the sound is measured.
struct Deaf;

impl VoiceActivity for Deaf {
    fn run(&mut self, _: &[usize], _: &[[f32; VAD_WINDOW]], probabilities: &mut [f32]) {
        probabilities.fill(0.0);
    }

    fn reset(&mut self, _: usize) {}
}

/// Until stdin ends, or a command to leave comes.
fn until_told() {
    let told = |line: std::io::Result<String>| line.map_or(true, |line| serde_json::from_str::<Value>(&line).is_ok_and(|command| command["leave"] == true));
    std::io::stdin().lock().lines().any(told);
}

fn tell(event: &str, mut fields: Value) {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    fields["event"] = event.into();
    fields["at_ms"] = (START.get_or_init(Instant::now).elapsed().as_secs_f64() * 1e3).into();
    fields["unix_ms"] = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1e3).into();
    let mut out = std::io::stdout().lock();
    // nobody is left to tell when the pipe is closed
    let _ = writeln!(out, "{fields}").and_then(|()| out.flush());
}
