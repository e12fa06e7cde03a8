//! What the receiver of events was told of a call, held against what it was promised.

use std::collections::BTreeMap;

use serde_json::Value;
use voiced_lab::ema::Received;

use crate::host::{EMA_SECRET, Host};
use crate::until;

/// A whole call as the receiver took it, from `call_initiated` to `call_ended`.
pub struct Story {
    events: Vec<Value>,
}

/// Waits until the receiver has taken the call's end, and checks what holds for every call: each event once per key, in
/// order, turns counted from 0, the end last.
pub async fn of(host: &Host, call_sid: &str) -> Story {
    let story = of_session(host, &format!("phone-{call_sid}")).await;
    assert!(story.events.iter().all(|event| event["call_sid"] == call_sid), "{:#?}", story.events);
    story
}

/// The same, by the session's name.
pub async fn of_session(host: &Host, session: &str) -> Story {
    let events_of = || taken_of(host, session);
    until(&format!("the end of {session} at the receiver"), async || events_of().iter().any(|event| event.body["event_type"] == "call_ended")).await;
    let mut by_key: BTreeMap<String, Value> = BTreeMap::new();
    let mut events = Vec::new();
    for received in events_of() {
        assert_eq!(received.secret.as_deref(), Some(EMA_SECRET));
        let key = received.idempotency_key.expect("a key");
        if let Some(before) = by_key.get(&key) {
            assert_eq!(*before, received.body, "two events under the key {key}");
            continue;
        }
        by_key.insert(key, received.body.clone());
        events.push(received.body);
    }
    let kinds: Vec<_> = events.iter().map(|event| event["event_type"].as_str().unwrap_or_default()).collect();
    assert_eq!((kinds.first(), kinds.last()), (Some(&"call_initiated"), Some(&"call_ended")), "{events:#?}");
    let utterances = events.len() - 2;
    for (index, event) in events[1..=utterances].iter().enumerate() {
        assert_eq!((event["event_type"].as_str(), event["data"]["turn_index"].as_u64()), (Some("utterance"), Some(index as u64)), "{events:#?}");
    }
    assert_eq!(events[utterances + 1]["data"]["total_turns"], utterances, "{events:#?}");
    Story { events }
}

/// What the receiver took of a call so far, in the order of arrival.
pub fn taken(host: &Host, call_sid: &str) -> Vec<Received> {
    taken_of(host, &format!("phone-{call_sid}"))
}

fn taken_of(host: &Host, session: &str) -> Vec<Received> {
    host.ema.received().into_iter().filter(|received| received.accepted && received.body["session_id"] == session).collect()
}

impl Story {
    /// What was said: speaker and text.
    pub fn said(&self) -> Vec<(&str, &str)> {
        self.utterances().map(|data| (text(&data["speaker"]), text(&data["text"]))).collect()
    }

    /// The agent's words.
    pub fn agent(&self) -> Vec<&str> {
        self.said().into_iter().filter(|(speaker, _)| *speaker == "agent").map(|(_, text)| text).collect()
    }

    /// Speaker and stage of each utterance.
    pub fn stages(&self) -> Vec<(&str, &str)> {
        self.utterances().map(|data| (text(&data["speaker"]), text(&data["stage"]))).collect()
    }

    pub fn final_stage(&self) -> &str {
        self.events.last().map_or("", |event| text(&event["data"]["final_stage"]))
    }

    pub fn duration_seconds(&self) -> f64 {
        self.events.last().and_then(|event| event["data"]["duration_seconds"].as_f64()).expect("a length")
    }

    fn utterances(&self) -> impl Iterator<Item = &Value> {
        self.events.iter().filter(|event| event["event_type"] == "utterance").map(|event| &event["data"])
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
