//! Fake `OpenAI` Realtime: hears as the fake Deepgram does and tells its words at a commit, answers with the script's words, a
//! piece of the hum of the fake voices to each. Its conversation is one, with items that are put in, cut and taken out; the
//! script is asked with what it holds.

mod items;

use super::deepgram::{Hearing, Saying};
use super::{Answer, Fault, Lab, gate, ms, voice};
use crate::READ_BUFFER_BYTES;
use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use items::Items;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use tokio::time::{Instant, sleep_until};
use voiced_core::codec::mulaw_from_sample;

/// Sound of one word of the fake voices, in pieces and in ms.
const WORD_PIECES: usize = 3;
const WORD_MS: u64 = 300;
/// Shortest commit, in ms.
const COMMIT_MS_MIN: u64 = 100;
/// Words of an answer after which a fault in its middle strikes.
const WORDS_BEFORE_FAULT: usize = 2;

pub(super) fn routes(lab: Lab) -> Router {
    Router::new().route("/v1/realtime", get(upgrade)).with_state(lab)
}

async fn upgrade(State(lab): State<Lab>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    let guard = lab.fake.request();
    let fault = if lab.fake.fault.peek().is_at_upgrade() { lab.fake.fault.take() } else { Fault::None };
    if let Some(refusal) = gate(fault, &headers).await {
        guard.complete();
        return refusal;
    }
    upgrade.read_buffer_size(READ_BUFFER_BYTES).on_upgrade(move |socket| async move {
        let mut model = Model::new(lab);
        if model.run(socket).await {
            guard.complete();
        }
    })
}

/// What is sent after some time.
struct Due {
    at: Instant,
    /// The response that it belongs to.
    response: Option<String>,
    what: What,
}

enum What {
    Say(Value),
    /// A word of an answer, with its sound.
    Word {
        item: String,
        word: String,
        sound: Vec<u8>,
    },
    Garbage,
    Die,
}

struct Model {
    lab: Lab,
    hearing: Option<Hearing>,
    mulaw: bool,
    /// Sound in the buffer, in ms, and when the newest came: silence is not sent.
    buffered_ms: u64,
    heard_at: Option<Instant>,
    items: Items,
    instructions: String,
    due: VecDeque<Due>,
    /// The answer under way.
    answering: Option<String>,
    /// Takes everything, says nothing.
    is_mute: bool,
    numbers: u64,
}

impl Model {
    fn new(lab: Lab) -> Self {
        Self {
            lab,
            hearing: None,
            mulaw: true,
            buffered_ms: 0,
            heard_at: None,
            items: Items::default(),
            instructions: String::new(),
            due: VecDeque::new(),
            answering: None,
            is_mute: false,
            numbers: 0,
        }
    }

    /// True when the client ended it.
    async fn run(&mut self, mut socket: WebSocket) -> bool {
        self.say(json!({"type": "session.created", "session": {"type": "realtime"}}));
        loop {
            let next = self.due.front().map(|due| due.at);
            tokio::select! {
                message = socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => self.take(&serde_json::from_str(&text).unwrap_or_default()),
                    Some(Ok(Message::Close(_))) => return true,
                    Some(Err(_)) | None => return false,
                    Some(Ok(_)) => {}
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    let Some(due) = self.due.pop_front() else { continue };
                    for text in self.told(due) {
                        let Some(text) = text else { return false };
                        if socket.send(Message::text(text)).await.is_err() {
                            return false;
                        }
                    }
                }
            }
        }
    }

    /// The texts of what is due; `None` breaks the connection.
    fn told(&mut self, due: Due) -> Vec<Option<String>> {
        if self.is_mute {
            return Vec::new();
        }
        match due.what {
            What::Say(value) => {
                if due.response.is_some() && due.response == self.answering {
                    self.remember(&value);
                }
                vec![Some(value.to_string())]
            }
            What::Word { item, word, sound } => {
                self.items.grow(&item, &word, WORD_MS);
                let of = json!({"response_id": due.response, "item_id": item, "output_index": 0, "content_index": 0});
                let with = |kind: &str, delta: String| {
                    let mut message = of.clone();
                    (message["type"], message["delta"]) = (json!(kind), json!(delta));
                    Some(message.to_string())
                };
                vec![with("response.output_audio_transcript.delta", word), with("response.output_audio.delta", STANDARD.encode(sound))]
            }
            What::Garbage => vec![Some("<html>".to_owned())],
            What::Die => vec![None],
        }
    }

    /// What is said of the answer under way is in the conversation from then on.
    fn remember(&mut self, said: &Value) {
        let item = &said["item"];
        if said["type"] == "response.done" {
            self.answering = None;
        } else if said["type"] == "response.output_item.added" {
            let role = if item["type"] == "message" { "assistant" } else { "tool" };
            self.items.insert(item["id"].as_str().unwrap_or_default(), role, "", None);
        }
    }

    fn take(&mut self, message: &Value) {
        let text = |path: &str| message.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let went = match text("/type") {
            "session.update" => {
                self.set_up(&message["session"]);
                Ok(())
            }
            "input_audio_buffer.append" => {
                self.hear(&STANDARD.decode(text("/audio")).unwrap_or_default());
                Ok(())
            }
            "input_audio_buffer.commit" => self.commit(),
            "conversation.item.create" => {
                let role = if text("/item/type") == "message" { text("/item/role") } else { "tool" };
                let words = if role == "tool" { text("/item/output") } else { text("/item/content/0/text") };
                let behind = message["previous_item_id"].as_str();
                self.items.insert(text("/item/id"), role, words, behind).then_some(()).ok_or("the previous item does not exist")
            }
            "conversation.item.delete" => self.items.delete(text("/item_id")).then_some(()).ok_or("the item does not exist"),
            "conversation.item.truncate" => {
                let heard_ms = message["audio_end_ms"].as_u64().unwrap_or_default();
                self.items.truncate(text("/item_id"), heard_ms).then_some(()).ok_or("there is no such sound")
            }
            "response.create" => self.respond(&message["response"]),
            "response.cancel" => self.cancel(text("/response_id")),
            _ => Err("unknown message"),
        };
        if let Err(words) = went {
            self.say(json!({"type": "error", "error": {"type": "invalid_request_error", "message": words, "event_id": message["event_id"]}}));
        }
    }

    fn set_up(&mut self, session: &Value) {
        if let Some(instructions) = session["instructions"].as_str() {
            instructions.clone_into(&mut self.instructions);
        }
        if let Some(format) = session.pointer("/audio/input/format/type") {
            self.mulaw = format == "audio/pcmu";
            let rate_hz = if self.mulaw { 8_000 } else { 24_000 };
            // a connection that was only made ready is no stream
            let stream = self.lab.streams.fetch_add(1, Ordering::Relaxed);
            self.hearing = Some(Hearing::new(self.lab.script.clone(), self.lab.latency, stream, self.mulaw, rate_hz));
        }
        self.say(json!({"type": "session.updated", "session": session}));
    }

    fn hear(&mut self, sound: &[u8]) {
        let now = Instant::now();
        let Some(hearing) = &mut self.hearing else { return };
        let bytes_per_ms = if self.mulaw { 8 } else { 48 };
        let length_ms = sound.len() as u64 / bytes_per_ms;
        // the silence that the client kept for itself
        let away_ms = self.heard_at.map_or(0, |at| now.duration_since(at).as_millis() as u64).saturating_sub(length_ms);
        let silence = if self.mulaw { 0xff } else { 0 };
        let mut guesses = VecDeque::new();
        if away_ms > self.lab.script.utterance_gap_ms {
            hearing.hear(&vec![silence; (away_ms * bytes_per_ms) as usize], now, &mut guesses);
        }
        hearing.hear(sound, now, &mut guesses);
        self.heard_at = Some(now);
        self.buffered_ms += length_ms;
    }

    fn commit(&mut self) -> Result<(), &'static str> {
        if std::mem::take(&mut self.buffered_ms) < COMMIT_MS_MIN {
            return Err("the buffer is too small");
        }
        let Some(hearing) = &mut self.hearing else { return Err("no session") };
        let mut settled = VecDeque::new();
        hearing.finalize(Instant::now(), &mut settled);
        let words = match settled.pop_back() {
            Some((_, Saying::Results(value))) => value["channel"]["alternatives"][0]["transcript"].as_str().unwrap_or_default().to_owned(),
            _ => String::new(),
        };
        let item = self.name("item");
        self.items.insert(&item, "user", &words, None);
        self.say(json!({"type": "input_audio_buffer.committed", "item_id": item}));
        let now = Instant::now();
        let kind = |end: &str| format!("conversation.item.input_audio_transcription.{end}");
        let interim = now + ms(self.lab.latency.stt_interim_ms);
        for word in words.split_inclusive(' ') {
            self.later(interim, None, What::Say(json!({"type": kind("delta"), "item_id": item, "content_index": 0, "delta": word})));
        }
        let settled = interim + ms(self.lab.latency.stt_final_ms);
        self.later(settled, None, What::Say(json!({"type": kind("completed"), "item_id": item, "content_index": 0, "transcript": words})));
        Ok(())
    }

    fn respond(&mut self, asked: &Value) -> Result<(), &'static str> {
        let reads = asked["conversation"] == "none";
        if !reads && self.answering.is_some() {
            return Err("Conversation already has an active response");
        }
        let fault = if reads { Fault::None } else { self.lab.fake.fault.take() };
        self.is_mute |= matches!(fault, Fault::HalfOpen | Fault::NeverAnswers);
        let answer = if reads {
            Answer::text(asked["input"][0]["content"][0]["text"].as_str().unwrap_or_default())
        } else {
            let mut messages = vec![json!({"role": "system", "content": self.instructions})];
            messages.extend(self.items.messages());
            (self.lab.script.agent)(&json!({ "messages": messages }))
        };
        let response = self.name("resp");
        let of = |status: &str| json!({"id": response, "status": status, "metadata": asked["metadata"]});
        self.later(Instant::now(), Some(&response), What::Say(json!({"type": "response.created", "response": of("in_progress")})));
        if !reads {
            self.answering = Some(response.clone());
        }
        let fails = matches!(fault, Fault::ServerError | Fault::TooManyRequests | Fault::Unavailable(_));
        if !fails {
            self.speak(&response, &answer, reads, fault);
        }
        let at = self.due.back().map_or_else(Instant::now, |due| due.at);
        let last = match fault {
            Fault::Garbage => What::Garbage,
            Fault::DiesMidReply => What::Die,
            Fault::StallsMidReply => return Ok(()),
            _ => {
                let mut done = of(if fails { "failed" } else { "completed" });
                if fails {
                    done["status_details"] = json!({"type": "failed", "error": {"message": "The server had an error"}});
                }
                What::Say(json!({"type": "response.done", "response": done}))
            }
        };
        self.later(at, Some(&response), last);
        Ok(())
    }

    /// What an answer sounds like, word by word, and the tools that it calls.
    fn speak(&mut self, response: &str, answer: &Answer, reads: bool, fault: Fault) {
        let mut at = Instant::now() + ms(if reads { self.lab.latency.tts_first_ms } else { self.lab.latency.llm_first_ms });
        let of = |kind: &str, item: Value| json!({"type": kind, "response_id": response, "output_index": 0, "item": item});
        let rate_hz = if self.mulaw { 8_000 } else { 24_000 };
        let words_max = if matches!(fault, Fault::DiesMidReply | Fault::StallsMidReply) { WORDS_BEFORE_FAULT } else { usize::MAX };
        if !answer.text.is_empty() {
            let item = self.name("item");
            self.later(at, Some(response), What::Say(of("response.output_item.added", json!({"id": item, "type": "message"}))));
            let pieces = voice::pieces(&answer.text, rate_hz);
            for (word, pieces) in answer.text.split_inclusive(' ').zip(pieces.chunks(WORD_PIECES)).take(words_max) {
                let mut sound = pieces.concat();
                if self.mulaw {
                    sound = sound.as_chunks().0.iter().map(|&sample| mulaw_from_sample(i16::from_le_bytes(sample))).collect();
                }
                self.later(at, Some(response), What::Word { item: item.clone(), word: word.to_owned(), sound });
                at += ms(self.lab.latency.llm_word_ms);
            }
        }
        let stage = answer.stage.as_ref().map(|stage| ("set_stage", json!({"stage": stage}).to_string()));
        let calls = stage.into_iter().chain(answer.hang_up.then(|| ("end_call", "{}".to_owned())));
        for (name, arguments) in calls.filter(|_| words_max == usize::MAX) {
            let item = self.name("item");
            let call = json!({"id": item, "type": "function_call", "name": name, "call_id": self.name("call"), "arguments": arguments});
            self.later(at, Some(response), What::Say(of("response.output_item.added", json!({"id": item, "type": "function_call"}))));
            self.later(at, Some(response), What::Say(of("response.output_item.done", call)));
        }
    }

    fn cancel(&mut self, response: &str) -> Result<(), &'static str> {
        let before = self.due.len();
        self.due.retain(|due| due.response.as_deref() != Some(response));
        if self.due.len() == before {
            return Err("no active response found");
        }
        let done = json!({"type": "response.done", "response": {"id": response, "status": "cancelled", "status_details": {"reason": "client_cancelled"}}});
        self.later(Instant::now(), Some(response), What::Say(done));
        Ok(())
    }

    fn say(&mut self, value: Value) {
        self.later(Instant::now(), None, What::Say(value));
    }

    /// Kept in the order of time; what is due at once, in the order of saying.
    fn later(&mut self, at: Instant, response: Option<&str>, what: What) {
        let place = self.due.partition_point(|due| due.at <= at);
        self.due.insert(place, Due { at, response: response.map(str::to_owned), what });
    }

    fn name(&mut self, kind: &str) -> String {
        self.numbers += 1;
        format!("{kind}_{}", self.numbers)
    }
}
