//! What a peer tells: a name, two times, and the fields of that event.

use serde::Deserialize;
use serde_json::{Map, Value};

/// One JSON line of a peer.
#[derive(Clone, Debug, Deserialize)]
pub struct PeerEvent {
    /// What happened: `joined`, `participant_joined`, `sound`, `text`, …
    pub event: String,
    /// When, in ms on the peer's own monotonic clock.
    pub at_ms: f64,
    /// When, in ms of Unix time: to compare peers, and ourselves, on one machine.
    pub unix_ms: f64,
    /// The rest.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl PeerEvent {
    /// A field that is text; empty when it is missing.
    pub fn text(&self, field: &str) -> &str {
        self.fields.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// A field that is a number.
    pub fn number(&self, field: &str) -> Option<f64> {
        self.fields.get(field).and_then(Value::as_f64)
    }

    /// A field that is true.
    pub fn is(&self, field: &str) -> bool {
        self.fields.get(field).and_then(Value::as_bool).unwrap_or_default()
    }

    /// A participant's attribute as this event shows it.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.fields.get("attributes")?.get(name)?.as_str()
    }
}
