//! Shows a call to the people in its room: transcripts as text streams on `lk.transcription`, what the agent is doing as the
//! attribute `lk.agent.state`.

use std::collections::HashMap;

use voiced_livekit::{Room, TextOptions, TextStream};

use crate::call::Observed;
use crate::captions::{Caption, Captions};

/// One call's captions on their way into a room.
pub struct Show {
    room: Room,
    captions: Captions,
    speaking: Option<TextStream>,
    now: &'static str,
    ready: bool,
}

impl Show {
    /// Into this room, as the agent's.
    pub fn new(room: Room) -> Self {
        Self { room, captions: Captions::default(), speaking: None, now: "listening", ready: false }
    }

    /// The agent can be written to: until then it is seen initializing, since the server drops what is sent to it.
    pub fn ready(&mut self) {
        self.ready = true;
        let _ = self.room.set_attributes(state(self.now)); // a room that takes no requests is about to end
    }

    /// Shows what has happened; the caller is known in the room by `caller`. What the room does not take is not shown.
    pub fn observe(&mut self, observed: &Observed, caller: Option<&str>) {
        for caption in self.captions.observe(observed) {
            let _ = match caption {
                Caption::State(now) => {
                    self.now = now;
                    !self.ready || self.room.set_attributes(state(now))
                }
                Caption::Caller { segment, text, last } => {
                    self.room.send_text(transcription(&format!("caller-{segment}"), last, caller.map(str::to_owned)), &text)
                }
                Caption::Agent { segment, text } => {
                    let room = &self.room;
                    let stream = self.speaking.get_or_insert_with(|| room.open_text(transcription(&format!("agent-{segment}"), true, None)));
                    stream.write(&format!("{} ", text.trim()))
                }
                Caption::AgentDone { .. } => self.speaking.take().is_none_or(TextStream::close),
            };
        }
    }
}

/// What the agent is doing, as an attribute.
pub fn state(now: &str) -> HashMap<String, String> {
    HashMap::from([("lk.agent.state".to_owned(), now.to_owned())])
}

fn transcription(segment: &str, last: bool, speaker: Option<String>) -> TextOptions {
    let attributes = [("lk.segment_id", segment), ("lk.transcription_final", if last { "true" } else { "false" })];
    TextOptions {
        topic: "lk.transcription".into(),
        attributes: attributes.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        speaker,
        ..TextOptions::default()
    }
}
