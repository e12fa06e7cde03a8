//! The demo's dialogue in a LiveKit room: a server of our own, the daemon as its agent worker, and a caller on the official
//! SDK, who hears the agent as any browser would. Times are the caller's own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use voiced_config::Settings;
use voiced_lab::livekit::{Command, Peer, PeerEvent, PeerSettings, Server};

use super::{BARGE_IN, CALLER, Called, QUIET_MS, Timeline};
use crate::http::rooms::{Grants, Pass, Rooms};
use crate::serve::Daemon;

const ROOM: &str = "demo";
const CALLER_IDENTITY: &str = "caller";
/// The caller stays no longer, in s.
const SECONDS_MAX: u32 = 90;
/// The agent's first word comes within this, after which nothing comes.
const ANSWER: Duration = Duration::from_secs(15);
/// The recording is complete this long after its last sound.
const RECORDED: Duration = Duration::from_secs(2);

/// Where it takes place.
pub struct Venue {
    server: Server,
    python: PathBuf,
}

impl Venue {
    /// Starts a server and makes the daemon's settings fit it.
    pub async fn open(settings: &mut Settings) -> Result<Self> {
        let (binary, python) = (Server::find()?, Peer::find()?);
        let server = Server::start(&binary, None).await?;
        let livekit = &mut settings.livekit;
        (livekit.url, livekit.api_key, livekit.api_secret) = (server.url(), server.api_key().to_owned(), server.api_secret().into());
        Ok(Self { server, python })
    }

    /// The dialogue: each line when the agent has fallen silent, one of them over the agent's speech.
    pub async fn call(&self, daemon: &Daemon, lines: &[Vec<i16>], out: &Path, timeline: &Timeline) -> Result<Called> {
        let rooms = daemon.rooms.as_ref().context("no rooms")?;
        rooms.dispatch(ROOM, "").await.map_err(|error| anyhow::anyhow!("the agent is not sent: {error:?}"))?;
        let pass = Pass { identity: CALLER_IDENTITY.into(), name: "Caller".into(), room: ROOM.into(), grants: Grants::Talk, agent_metadata: None };
        let token = rooms.token(&pass).map_err(|error| anyhow::anyhow!("no token: {error:?}"))?;
        let arguments = vec!["--gap-ms".to_owned(), QUIET_MS.to_string()];
        let settings = PeerSettings { program: self.python.clone(), url: self.server.url(), token, record: None, seconds_max: SECONDS_MAX, arguments };
        let mut caller = Peer::join(settings).await?;
        timeline.line("room", "the caller is in");
        let mut called = Called { response_ms: Vec::new(), barge_ins: Vec::new(), recording: out.join("call.wav") };
        let mut spoke = agent(&mut caller, timeline, true).await?;
        let recorded = rooms.record_to(ROOM, called.recording.clone()).await;
        recorded.map_err(|error| anyhow::anyhow!("no recording: {error:?}"))?;
        for (number, (line, text)) in lines.iter().zip(CALLER).enumerate() {
            let file = out.join(format!("line-{number}.wav"));
            write(&file, line)?;
            let interrupts = number == BARGE_IN.0;
            if interrupts {
                tokio::time::sleep(Duration::from_millis(BARGE_IN.1)).await;
            } else {
                agent(&mut caller, timeline, false).await?;
            }
            caller.send(&Command::Play(file))?;
            let began = caller.wait_for("playing", |_| true).await?;
            timeline.line("caller", &format!("▶ {text}"));
            if interrupts {
                let quiet = agent(&mut caller, timeline, false).await?;
                let after = quiet.at_ms - began.at_ms;
                called.barge_ins.push(json!({ "caller": text, "clear_ms": null, "quiet_ms": after.max(0.0) as u64 }));
            }
            let ended = caller.wait_for("played", |_| true).await?;
            timeline.line("caller", "■");
            spoke = agent(&mut caller, timeline, true).await?;
            called.response_ms.push(Some((spoke.at_ms - ended.at_ms).max(0.0) as u64));
        }
        let _ = agent(&mut caller, timeline, false).await; // an agent that hangs up is not heard to stop
        drop(spoke);
        caller.leave().await?;
        tokio::time::sleep(RECORDED).await;
        Ok(called)
    }
}

/// Waits until the agent is heard, or is not heard any more.
async fn agent(caller: &mut Peer, timeline: &Timeline, on: bool) -> Result<PeerEvent> {
    let event = caller.wait_within(ANSWER, "sound", |event| event.text("identity") != CALLER_IDENTITY && event.is("on") == on).await?;
    timeline.line("agent", if on { "▶ audible" } else { "■" });
    Ok(event)
}

fn write(path: &Path, sound: &[i16]) -> Result<()> {
    let spec = hound::WavSpec { channels: 1, sample_rate: 8_000, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut file = hound::WavWriter::create(path, spec)?;
    for &sample in sound {
        file.write_sample(sample)?;
    }
    Ok(file.finalize()?)
}
