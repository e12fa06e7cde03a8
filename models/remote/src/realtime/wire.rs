//! The wire of `OpenAI` Realtime: what we send and what a message means.

use super::{RealtimeSettings, RealtimeSound};
use crate::tools;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

/// Writes down what the caller says. The model itself hears the sound.
const TRANSCRIBER: &str = "gpt-4o-mini-transcribe";
/// What a response's `metadata` has our number under, so that responses under way at once can be told apart.
const NUMBER: &str = "number";
/// Has a text spoken as it is.
const READ_ALOUD: &str = "Read the user's text aloud, word for word, in the voice of a friendly agent on the telephone. Say nothing else and answer nothing.";
/// `event_id` of the message that sets up a session, by which its refusal is known.
pub(super) const SETUP: &str = "setup";

/// Sets up a new session.
pub(super) fn setup(settings: &RealtimeSettings, stage: &str) -> Value {
    let format = match settings.sound {
        RealtimeSound::Mulaw => json!({"type": "audio/pcmu"}),
        RealtimeSound::Pcm => json!({"type": "audio/pcm", "rate": 24_000}),
    };
    // chat has a function in an object of its own, realtime has it flat
    let flat = |tool: &Value| {
        let mut flat = tool["function"].clone();
        flat["type"] = json!("function");
        flat
    };
    let definitions = tools::definitions(&settings.stages, &[]);
    let tools: Vec<Value> = definitions.as_array().into_iter().flatten().map(flat).collect();
    json!({"type": "session.update", "event_id": SETUP, "session": {
        "type": "realtime",
        "instructions": tools::instructions(&settings.prompt, &settings.stages, stage),
        "output_modalities": ["audio"],
        "audio": {
            "input": {"format": format, "transcription": {"model": TRANSCRIBER}, "turn_detection": null},
            "output": {"format": format, "voice": settings.voice},
        },
        "tools": tools,
        "tool_choice": "auto",
    }})
}

/// The conversation has moved to a stage.
pub(super) fn stage(settings: &RealtimeSettings, stage: &str) -> Value {
    let instructions = tools::instructions(&settings.prompt, &settings.stages, stage);
    json!({"type": "session.update", "session": {"type": "realtime", "instructions": instructions}})
}

/// More of the caller's sound.
pub(super) fn append(sound: &[u8]) -> Value {
    json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode(sound)})
}

/// What was appended is something that the caller said.
pub(super) fn commit(number: u64) -> Value {
    json!({"type": "input_audio_buffer.commit", "event_id": commit_id(number)})
}

/// `event_id` of a commit.
pub(super) fn commit_id(number: u64) -> String {
    format!("commit-{number}")
}

/// Puts words into the conversation; `after` is `root` for its beginning, `None` for its end.
pub(super) fn words(id: &str, after: Option<&str>, role: &str, text: &str) -> Value {
    let kind = if role == "assistant" { "output_text" } else { "input_text" };
    let item = json!({"id": id, "type": "message", "role": role, "content": [{"type": kind, "text": text}]});
    let mut create = json!({"type": "conversation.item.create", "item": item});
    if let Some(after) = after {
        create["previous_item_id"] = json!(after);
    }
    create
}

/// What came of a tool's call.
pub(super) fn call_result(id: &str, call: &str, result: &str) -> Value {
    json!({"type": "conversation.item.create", "item": {"id": id, "type": "function_call_output", "call_id": call, "output": result}})
}

/// Takes an item out of the conversation.
pub(super) fn delete(item: &str) -> Value {
    json!({"type": "conversation.item.delete", "item_id": item})
}

/// The caller heard so much of what the model said.
pub(super) fn truncate(item: &str, heard_ms: u64) -> Value {
    json!({"type": "conversation.item.truncate", "item_id": item, "content_index": 0, "audio_end_ms": heard_ms})
}

/// Asks for an answer; with `may_call` false the model has to speak.
pub(super) fn answer(number: u64, may_call: bool) -> Value {
    let mut create = json!({"type": "response.create", "event_id": response_id(number), "response": {"metadata": {NUMBER: number.to_string()}}});
    if !may_call {
        create["response"]["tool_choice"] = json!("none");
    }
    create
}

/// Has a text spoken, outside the conversation.
pub(super) fn read_aloud(number: u64, text: &str) -> Value {
    json!({"type": "response.create", "event_id": response_id(number), "response": {
        "conversation": "none",
        "metadata": {NUMBER: number.to_string()},
        "instructions": READ_ALOUD,
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}],
        "output_modalities": ["audio"],
        "tool_choice": "none",
    }})
}

/// `event_id` of what asks for a response.
pub(super) fn response_id(number: u64) -> String {
    format!("response-{number}")
}

/// Takes a response back.
pub(super) fn cancel(response: &str) -> Value {
    json!({"type": "response.cancel", "response_id": response})
}

/// A message of the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The session is as we asked.
    Updated,
    /// A commit became an item.
    Committed { item: String },
    /// More words of an item of the caller's.
    Heard { item: String, text: String },
    /// All words of an item; none when it was not understood.
    Settled { item: String, text: String },
    /// A response begins, asked for under our number.
    Begun { response: String, number: Option<u64> },
    /// A response has an item.
    Item { response: String, item: String },
    /// More of what a response says.
    Text { response: String, item: String, text: String },
    /// More of how it sounds.
    Sound { response: String, item: String, sound: Vec<u8> },
    /// A response calls a tool.
    Call { response: String, call: String, name: String, arguments: String },
    /// A response is over.
    Done { response: String, outcome: Outcome },
    /// Something that we sent was refused, or the provider is unwell.
    Error { of: String, words: String },
    /// Something that we do not need.
    Other,
}

/// How a response ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Completed,
    Cancelled,
    Failed(String),
}

/// Why a message could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// Reads a message.
pub(crate) fn decode(text: &str) -> Result<Event, Unreadable> {
    let wire: Wire = serde_json::from_str(text).map_err(|_| Unreadable)?;
    let named = |name: Option<String>| name.ok_or(Unreadable);
    Ok(match wire.kind.as_str() {
        "session.updated" => Event::Updated,
        "input_audio_buffer.committed" => Event::Committed { item: named(wire.item_id)? },
        "conversation.item.input_audio_transcription.delta" => Event::Heard { item: named(wire.item_id)?, text: wire.delta },
        "conversation.item.input_audio_transcription.completed" => Event::Settled { item: named(wire.item_id)?, text: wire.transcript },
        "conversation.item.input_audio_transcription.failed" => Event::Settled { item: named(wire.item_id)?, text: String::new() },
        "response.created" => {
            let response = wire.response.ok_or(Unreadable)?;
            let number = response.metadata.as_ref().and_then(|metadata| metadata[NUMBER].as_str()).and_then(|number| number.parse().ok());
            Event::Begun { response: response.id, number }
        }
        "response.output_item.added" => Event::Item { response: named(wire.response_id)?, item: wire.item.ok_or(Unreadable)?.id },
        "response.output_item.done" => match wire.item.ok_or(Unreadable)? {
            Item { kind, call_id, name, arguments, .. } if kind == "function_call" => {
                Event::Call { response: named(wire.response_id)?, call: call_id, name, arguments }
            }
            _ => Event::Other,
        },
        "response.output_audio_transcript.delta" => Event::Text { response: named(wire.response_id)?, item: named(wire.item_id)?, text: wire.delta },
        "response.output_audio.delta" => {
            let sound = STANDARD.decode(wire.delta).map_err(|_| Unreadable)?;
            Event::Sound { response: named(wire.response_id)?, item: named(wire.item_id)?, sound }
        }
        "response.done" => {
            let response = wire.response.ok_or(Unreadable)?;
            Event::Done { outcome: response.outcome(), response: response.id }
        }
        "error" => {
            let error = wire.error.ok_or(Unreadable)?;
            let words = error.message.or(error.code).unwrap_or_default();
            Event::Error { of: error.event_id.unwrap_or_default(), words: crate::failure::words(&words) }
        }
        _ => Event::Other,
    })
}

#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "type")]
    kind: String,
    item_id: Option<String>,
    response_id: Option<String>,
    #[serde(default)]
    delta: String,
    #[serde(default)]
    transcript: String,
    response: Option<Response>,
    item: Option<Item>,
    error: Option<WireError>,
}

#[derive(Deserialize)]
struct Response {
    id: String,
    #[serde(default)]
    status: String,
    status_details: Option<Value>,
    metadata: Option<Value>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    id: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    call_id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    arguments: String,
}

#[derive(Deserialize)]
struct WireError {
    event_id: Option<String>,
    message: Option<String>,
    code: Option<String>,
}

impl Response {
    fn outcome(&self) -> Outcome {
        let details = self.status_details.as_ref();
        let detail = |path: &str| details.and_then(|details| details.pointer(path)).and_then(Value::as_str);
        match self.status.as_str() {
            "completed" => Outcome::Completed,
            "cancelled" => Outcome::Cancelled,
            // what there is of it was meant, it is only too long
            "incomplete" if detail("/reason") == Some("max_output_tokens") => Outcome::Completed,
            status => {
                let words = detail("/error/message").or_else(|| detail("/error/code")).or_else(|| detail("/reason")).unwrap_or(status);
                Outcome::Failed(crate::failure::words(words))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Account;
    use crate::secret::Secret;

    fn settings(sound: RealtimeSound) -> RealtimeSettings {
        let account = Account::new("http://127.0.0.1:1/v1", Secret::new("sk-key"));
        let stages = vec!["welcome".into(), "issue".into()];
        RealtimeSettings { account, model: "gpt-realtime-2.1".into(), voice: "marin".into(), prompt: "You take repairs.".into(), stages, sound }
    }

    #[test]
    fn a_session_hears_the_line_as_it_is_and_leaves_turns_to_us() {
        insta::with_settings!({snapshot_path => "../../tests/golden", prepend_module_to_snapshot => false, sort_maps => true}, {
            insta::assert_json_snapshot!("realtime_setup", setup(&settings(RealtimeSound::Mulaw), "welcome"));
            insta::assert_json_snapshot!("realtime_requests", [
                append(&[0xff, 0x7f]), commit(3), words("w1", Some("root"), "assistant", "Hello."), words("w2", None, "user", "1 2"),
                call_result("w3", "call_1", "ok"), delete("item_9"), truncate("item_8", 640), answer(4, false), read_aloud(5, "Goodbye."), cancel("resp_1"),
            ]);
        });
        let room = setup(&settings(RealtimeSound::Pcm), "welcome");
        assert_eq!(room["session"]["audio"]["output"]["format"], json!({"type": "audio/pcm", "rate": 24_000}));
    }

    #[test]
    fn a_session_decodes_to_words_sound_calls_and_ends() {
        let golden = include_str!("../../tests/golden/realtime.jsonl");
        let events: Vec<_> = golden.lines().map(|line| decode(line).unwrap()).collect();
        insta::with_settings!({snapshot_path => "../../tests/golden", prepend_module_to_snapshot => false}, {
            insta::assert_debug_snapshot!("realtime", events);
        });
        let broken = [r#"{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"%"}"#, r#"{"type":"response.done"}"#, "[]", ""];
        assert!(broken.iter().all(|text| decode(text) == Err(Unreadable)));
    }
}
