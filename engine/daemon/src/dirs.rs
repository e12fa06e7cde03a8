//! Where state and weights live: the settings, else systemd's directories, else the user's own.

use std::path::PathBuf;

use voiced_config::{Settings, Storage};
use voiced_models_local::weights::Weights;

/// The folder of the event store.
pub fn state(storage: &Storage) -> PathBuf {
    named(&storage.state_dir).or_else(|| from_environment("STATE_DIRECTORY")).unwrap_or_else(|| home().join(".local/state/voiced"))
}

/// Where the records of calls go.
pub fn calls(storage: &Storage) -> PathBuf {
    state(storage).join("calls")
}

/// The event store.
pub fn event_store(storage: &Storage) -> PathBuf {
    state(storage).join("events.db")
}

/// Where recordings go.
pub fn recordings(settings: &Settings) -> PathBuf {
    named(&settings.livekit.recording_dir).unwrap_or_else(|| state(&settings.storage).join("recordings"))
}

/// The weights.
pub fn weights(storage: &Storage) -> Weights {
    Weights::at(named(&storage.cache_dir).unwrap_or_else(Weights::default_dir))
}

fn named(path: &str) -> Option<PathBuf> {
    (!path.is_empty()).then(|| path.into())
}

/// systemd separates several directories by colons; the first is ours.
fn from_environment(variable: &str) -> Option<PathBuf> {
    let value = std::env::var(variable).ok()?;
    named(value.split(':').next().unwrap_or_default())
}

fn home() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from)
}
