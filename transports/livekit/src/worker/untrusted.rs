//! What a server may send to a worker, as the fuzz targets do.

use super::link::{LinkEvent, decoded};
use super::machine::{Host, Input, Machine};
use super::{Keys, WorkerCounters, WorkerSettings};
use std::sync::Arc;
use std::time::Duration;

/// A message, taken before and after the registration.
pub(crate) fn server_message(bytes: &[u8]) {
    let LinkEvent::Message(message) = decoded(bytes.to_vec().into()) else { return };
    let Ok(url) = "wss://rooms.example.test".parse() else { return };
    let settings = WorkerSettings { url, keys: Keys::new("APIname", "secret"), agent_name: "voiced".into(), display_name: "voiced".into(), jobs_max: 4 };
    let mut machine = Machine::new(&settings, Arc::new(WorkerCounters::default()));
    let host = Host { load: 0.5, has_room: true };
    machine.apply(Duration::ZERO, host, Input::Up);
    for second in 1..4 {
        let out = machine.apply(Duration::from_secs(second), host, Input::Message(message.clone()));
        assert!(out.len() < 16, "one message, a few answers");
    }
    machine.apply(Duration::from_mins(1), host, Input::Tick);
}
