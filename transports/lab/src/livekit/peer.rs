//! A participant on an official SDK, as a process: commands go in, events come out, each a line of JSON.

use super::event::PeerEvent;
use super::process::{Process, each_line};
use super::tools::{self, Missing};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ChildStdin;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long an event is waited for. Everything here takes well under a second; the rest is for a busy machine.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Events kept; what comes later is not. A call tells some hundred.
const EVENTS_MAX: usize = 100_000;
/// Events shown in an error: the last ones.
const EVENTS_SHOWN_MAX: usize = 30;

/// Who calls, and how.
#[derive(Clone)]
pub struct PeerSettings {
    /// What runs its script: see [`Peer::find`] and [`Peer::find_browser`]; or what is itself the peer.
    pub program: PathBuf,
    /// The server.
    pub url: String,
    /// Identity, room, kind and attributes are all in it. An echo takes several, with a space between, and is in all rooms.
    pub token: String,
    /// Folder for one WAV file per track heard.
    pub record: Option<PathBuf>,
    /// Leaves after so long at the latest, in s.
    pub seconds_max: u32,
    /// More arguments of its script; for a browser, the WAV file that it speaks.
    pub arguments: Vec<String>,
}

/// What a peer is told to do.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Speaks a WAV file, after what it is speaking already.
    Play(PathBuf),
    /// Is silent for so many ms before it speaks on.
    Pause(u32),
    /// Falls silent, or not: `true` drops what it is speaking and was to speak.
    Stop(bool),
    /// Types a text.
    Chat(String),
    /// Sets attributes of its own.
    Attributes(BTreeMap<String, String>),
    /// Presses a key.
    Dtmf(char),
    /// Sends data.
    Data(String),
    /// Mutes its microphone, or unmutes it.
    Mute(bool),
    /// Asks an echo for a `usage` event: CPU time, memory.
    Usage(bool),
    /// Leaves the room; see [`Peer::leave`].
    Leave(bool),
}

/// A peer in a room; killed when dropped.
pub struct Peer {
    process: Process,
    stdin: ChildStdin,
    events: watch::Receiver<Vec<PeerEvent>>,
    taken: HashSet<usize>,
}

/// What a peer did not do.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// No process, or none any more.
    #[error("the peer does not run: {0}")]
    Io(#[from] io::Error),
    /// It did not happen in time.
    #[error("no event {wanted:?} within {} s; {seen}", within.as_secs_f32())]
    TooLate {
        /// The event.
        wanted: String,
        /// How long it was waited for.
        within: Duration,
        /// What happened instead.
        seen: String,
    },
    /// The peer ended without it.
    #[error("the peer ended without an event {wanted:?}; {seen}")]
    Ended {
        /// The event.
        wanted: String,
        /// What happened instead.
        seen: String,
    },
}

impl Peer {
    /// Python with `LiveKit`'s SDK: `VOICED_LIVEKIT_PYTHON`, else what `make tools` installed.
    pub fn find() -> Result<PathBuf, Missing> {
        tools::find("LiveKit's Python SDK", "tools", "VOICED_LIVEKIT_PYTHON", "venv/bin/python")
    }

    /// Node for the browser peer: `VOICED_LIVEKIT_NODE`, else what `make tools-browser` installed.
    pub fn find_browser() -> Result<PathBuf, Missing> {
        tools::find("the browser peer", "tools-browser", "VOICED_LIVEKIT_NODE", "browser/node")
    }

    /// Starts a caller on the Python SDK and waits until it has joined and published its microphone.
    pub async fn join(settings: PeerSettings) -> Result<Self, PeerError> {
        let mut peer = Self::spawn("room_caller.py", &settings)?;
        peer.wait_for("published", |_| true).await?;
        Ok(peer)
    }

    /// Starts a Chromium with `LiveKit`'s browser client and waits likewise.
    pub async fn browse(settings: PeerSettings) -> Result<Self, PeerError> {
        let mut peer = Self::spawn("browser/browser_caller.mjs", &settings)?;
        peer.wait_for("published", |_| true).await?;
        Ok(peer)
    }

    /// Starts an echo on the Python SDK and waits until it is in all its rooms.
    pub async fn echo(settings: PeerSettings) -> Result<Self, PeerError> {
        Self::in_rooms(Self::spawn("echo.py", &settings)?, &settings).await
    }

    /// Starts a program that takes an echo's commands and tells its events, with these in its environment, and waits likewise.
    pub async fn echo_by_program(settings: PeerSettings, environment: &[(&str, &str)]) -> Result<Self, PeerError> {
        let mut command = std::process::Command::new(&settings.program);
        command.envs(environment.iter().copied());
        Self::in_rooms(Self::run(command, &settings)?, &settings).await
    }

    async fn in_rooms(mut peer: Self, settings: &PeerSettings) -> Result<Self, PeerError> {
        for _ in settings.token.split_whitespace() {
            peer.wait_for("joined", |_| true).await?;
        }
        Ok(peer)
    }

    fn spawn(script: &str, settings: &PeerSettings) -> io::Result<Self> {
        let mut command = std::process::Command::new(&settings.program);
        command.arg(tools::script(script));
        Self::run(command, settings)
    }

    fn run(mut command: std::process::Command, settings: &PeerSettings) -> io::Result<Self> {
        command.args(["--seconds", &settings.seconds_max.to_string()]).args(&settings.arguments);
        if let Some(folder) = &settings.record {
            command.arg("--record").arg(folder);
        }
        // the environment, since everyone on this machine can read a command line
        command.env("LIVEKIT_URL", &settings.url).env("LIVEKIT_TOKEN", &settings.token);
        let mut process = Process::spawn(&mut command)?;
        let (Some(stdin), Some(stdout)) = (process.child.stdin.take(), process.child.stdout.take()) else {
            return Err(io::Error::other("no pipes"));
        };
        let (sender, events) = watch::channel(Vec::new());
        each_line(stdout, move |line| keep(&sender, &line))?;
        Ok(Self { process, stdin, events, taken: HashSet::new() })
    }

    /// Tells the peer what to do; it does so in order.
    pub fn send(&mut self, command: &Command) -> Result<(), PeerError> {
        let mut line = serde_json::to_vec(command).map_err(io::Error::from)?;
        line.push(b'\n');
        Ok(self.stdin.write_all(&line)?)
    }

    /// The first event of this name that fits and that no earlier wait has had, whether it has happened or is still to.
    pub async fn wait_for(&mut self, name: &str, fits: impl Fn(&PeerEvent) -> bool) -> Result<PeerEvent, PeerError> {
        self.wait_within(WAIT_MAX, name, fits).await
    }

    /// As [`Self::wait_for`], with a limit of its own.
    pub async fn wait_within(&mut self, within: Duration, name: &str, fits: impl Fn(&PeerEvent) -> bool) -> Result<PeerEvent, PeerError> {
        let taken = &self.taken;
        let wanted = |events: &[PeerEvent]| events.iter().enumerate().position(|(index, event)| event.event == name && !taken.contains(&index) && fits(event));
        let mut found = None;
        let waited = timeout(
            within,
            self.events.wait_for(|events| {
                found = wanted(events);
                found.is_some()
            }),
        )
        .await
        .map(|outcome| outcome.is_ok());
        let Some(index) = found else {
            let (wanted, seen) = (name.to_owned(), self.seen());
            return Err(match waited {
                Ok(_) => PeerError::Ended { wanted, seen },
                Err(_) => PeerError::TooLate { wanted, within, seen },
            });
        };
        self.taken.insert(index);
        Ok(self.events.borrow()[index].clone())
    }

    /// Its process, to be looked at from outside.
    pub fn id(&self) -> u32 {
        self.process.child.id()
    }

    /// Everything that has happened so far.
    pub fn events(&self) -> Vec<PeerEvent> {
        self.events.borrow().clone()
    }

    /// Leaves the room as a person does, waits until its recordings are whole, and gives back all that happened.
    pub async fn leave(mut self) -> Result<Vec<PeerEvent>, PeerError> {
        self.send(&Command::Leave(true))?;
        self.wait_for("left", |_| true).await?;
        Ok(self.events())
    }

    fn seen(&self) -> String {
        let events = self.events.borrow();
        let last = events.iter().skip(events.len().saturating_sub(EVENTS_SHOWN_MAX));
        let mut seen = String::from("it saw:");
        for event in last {
            // writing to a string does not fail
            let _ = write!(seen, "\n    {} {:?}", event.event, event.fields);
        }
        seen + "\n  and said:" + &self.process.log.to_string()
    }
}

/// A line that is no event is a native library's, and passed over.
fn keep(events: &watch::Sender<Vec<PeerEvent>>, line: &str) {
    let Ok(event) = serde_json::from_str(line) else { return };
    events.send_if_modified(|events| {
        let room = events.len() < EVENTS_MAX;
        if room {
            events.push(event);
        }
        room
    });
}

impl fmt::Debug for PeerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerSettings").field("url", &self.url).field("record", &self.record).finish_non_exhaustive()
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("process", &self.process.child.id()).finish_non_exhaustive()
    }
}
