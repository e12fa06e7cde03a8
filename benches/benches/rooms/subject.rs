//! The echoes that are compared: ours without and with the engine, and the official Python SDK's.

use anyhow::{Context, Result};
use serde_json::Value;
use voiced_lab::livekit::{Peer, PeerSettings};

use crate::Stage;
use crate::echo;

/// No echo lives longer, in s: none outlives a bench that broke off.
const SECONDS_MAX: u32 = 180;

/// Who echoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Packets,
    Engine,
    Sdk,
}

impl Subject {
    pub const ALL: [Self; 3] = [Self::Packets, Self::Engine, Self::Sdk];

    pub fn name(self) -> &'static str {
        match self {
            Self::Packets => "ours, packets",
            Self::Engine => "ours, engine",
            Self::Sdk => "python SDK",
        }
    }

    /// Its row; none, after a word why, where it could not be measured: the others still can.
    pub fn row(self, measured: Result<Value>) -> Option<Value> {
        measured.inspect_err(|error| eprintln!("  {}: {error:#}", self.name())).ok()
    }

    /// Starts an echo that is in all of these rooms.
    pub async fn start(self, stage: &Stage, rooms: &[String]) -> Result<Peer> {
        eprintln!("  {}", self.name());
        let tokens: Result<Vec<String>, _> = rooms.iter().map(|room| stage.server.token(room, "echo").to_jwt()).collect();
        let program = if self == Self::Sdk { stage.python.clone() } else { std::env::current_exe()? };
        let settings =
            PeerSettings { program, url: stage.server.url(), token: tokens?.join(" "), record: None, seconds_max: SECONDS_MAX, arguments: Vec::new() };
        let path = match self {
            Self::Packets => "packets",
            Self::Engine => "engine",
            Self::Sdk => return Peer::echo(settings).await.context("the SDK's echo"),
        };
        Peer::echo_by_program(settings, &[(echo::VARIABLE, path)]).await.context("our echo")
    }
}

/// Names of rooms that no other part uses.
pub fn rooms(of: &str, subject: Subject, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{of}-{subject:?}-{number}")).collect()
}
