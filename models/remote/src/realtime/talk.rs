//! One call's session without its socket: what is sent and told for each thing that happens.
//!
//! One answer at a time is under way in the provider's conversation; a question that finds another one's answer takes it
//! back and waits for its end. Questions of one turn that heard the same sound share an answer: its words were guessed
//! anew, what the model heard is the same. Texts that are only read aloud run beside.

mod events;
#[cfg(test)]
mod tests;

use super::hearing::Hearing;
use super::record::Record;
use super::wire;
use super::{Command, Growing, Latest, RealtimeSettings, Speech};
use crate::failure::Failure;
use crate::stt::SttInput;
use crate::tools::{GO_ON, Round};
use serde_json::Value;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use voiced_core::id::TurnId;
use voiced_core::model::{LlmRequest, SttEvent};

/// Responses under way at once: an answer, and texts that are read aloud.
const RESPONSES_MAX: usize = 8;

pub(super) struct Talk {
    settings: RealtimeSettings,
    latest: Latest,
    pub hearing: Hearing,
    record: Record,
    responses: Vec<Response>,
    /// A question that waits for the answer before it to end.
    question: Option<Question>,
    /// The answer that questions of its turn share.
    current: Option<Current>,
    numbers: u64,
    /// The stage that the model was told.
    stage: String,
    interim: String,
    is_connected: bool,
    set_up_at: Option<Instant>,
    /// To be sent.
    pub out: Vec<Value>,
    /// To be told of the caller's words.
    pub told: Vec<SttEvent>,
    /// Something came of what was asked: earlier failures no longer count.
    pub is_well: bool,
}

struct Question {
    number: u64,
    request: LlmRequest,
    speech: watch::Sender<Speech>,
}

struct Current {
    turn: TurnId,
    /// Commits that it heard.
    commits: u64,
    growing: Growing,
    listeners: u32,
}

/// A response under way.
struct Response {
    number: u64,
    id: Option<String>,
    /// What asked for it.
    asked: Value,
    is_answer: bool,
    speech: watch::Sender<Speech>,
    /// When it was asked for, or last came on.
    moved_at: Instant,
    has_begun: bool,
    is_cancelled: bool,
    round: Round,
    follow_ups: u32,
}

impl Talk {
    pub fn new(settings: RealtimeSettings, latest: Latest) -> Self {
        Self {
            hearing: Hearing::new(settings.sound),
            record: Record::new(settings.sound),
            stage: settings.stages.first().cloned().unwrap_or_default(),
            settings,
            latest,
            responses: Vec::new(),
            question: None,
            current: None,
            numbers: 0,
            interim: String::new(),
            is_connected: false,
            set_up_at: None,
            out: Vec::new(),
            told: Vec::new(),
            is_well: false,
        }
    }

    /// There is a new connection: it is brought to where the last one was.
    pub fn connected(&mut self, now: Instant) {
        self.is_connected = true;
        self.set_up_at = Some(now);
        self.out.clear();
        self.out.push(wire::setup(&self.settings, &self.stage));
        self.hearing.resume(now, &mut self.out);
        for response in &mut self.responses {
            response.moved_at = now;
            self.out.push(response.asked.clone());
        }
        self.put_question(now);
    }

    /// The connection is lost, and with it the provider's record. A question that waits is put to the next one.
    pub fn lost(&mut self, failure: &Failure) {
        self.is_connected = false;
        self.out.clear();
        self.interim.clear();
        self.record.clear();
        for response in self.responses.drain(..) {
            end(&response.speech, Err(failure.to_string()));
        }
        if self.question.is_none() {
            self.current = None;
            self.latest.set(None);
        }
    }

    /// There will be no connection any more.
    pub fn over(&mut self, failure: &Failure) {
        if let Some(question) = self.question.take() {
            end(&question.speech, Err(failure.to_string()));
        }
        self.lost(failure);
    }

    /// The call feeds the caller's sound.
    pub fn fed(&mut self, input: SttInput, now: Instant) {
        match input {
            SttInput::Audio(piece) => self.hearing.sound(piece, &mut self.out),
            SttInput::Speaks => self.hearing.speaks(&mut self.out),
            SttInput::Finalize | SttInput::Close => {
                let events = self.hearing.finalize(now, &mut self.out);
                self.told.extend(events);
            }
        }
        self.wait_for_connection();
    }

    /// The call asks for something; to hear is the session's business.
    pub fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Hear { .. } => {}
            Command::Ask { request, told } => self.ask(request, told, now),
            Command::Say { text, told } => self.say(&text, told, now),
            Command::Drop { number } => self.drop_response(number),
        }
        self.wait_for_connection();
    }

    /// What is to be said to a connection is said anew to the next.
    fn wait_for_connection(&mut self) {
        if !self.is_connected {
            self.out.clear();
        }
    }

    fn ask(&mut self, request: LlmRequest, told: oneshot::Sender<Growing>, now: Instant) {
        let commits = self.hearing.commits();
        let shared = |current: &&mut Current| {
            let is_whole = !matches!(current.growing.speech.borrow().end, Some(Err(_)));
            current.turn == request.turn && current.commits == commits && request.tries == 0 && is_whole
        };
        if let Some(current) = self.current.as_mut().filter(shared) {
            current.listeners += u32::from(told.send(current.growing.clone()).is_ok());
            return self.latest.set(Some(current.growing.clone()));
        }
        if let Some(running) = self.responses.iter_mut().find(|response| response.is_answer) {
            running.cancel(&mut self.out);
        }
        self.numbers += 1;
        let (number, (speech, receiver)) = (self.numbers, watch::channel(Speech::default()));
        let growing = Growing { number, speech: receiver };
        if told.send(growing.clone()).is_err() {
            return; // who asked has gone
        }
        self.current = Some(Current { turn: request.turn, commits, growing: growing.clone(), listeners: 1 });
        self.latest.set(Some(growing));
        self.question = Some(Question { number, request, speech });
        self.put_question(now);
    }

    /// Asks what waits, once no other answer is under way.
    fn put_question(&mut self, now: Instant) {
        if !self.is_connected || self.responses.iter().any(|response| response.is_answer) {
            return;
        }
        let Some(Question { number, request, speech }) = self.question.take() else { return };
        if !self.interim.is_empty() {
            self.record.caller_said(&self.interim);
        }
        self.record.bring_to(&request.history, &mut self.out);
        if !request.begun.is_empty() {
            for (role, text) in [("assistant", request.begun.as_str()), ("system", GO_ON)] {
                let id = self.record.item_id();
                self.out.push(wire::words(&id, None, role, text));
                self.record.caller_item(&id); // the newest item, whoever's it is
            }
        }
        if self.stage != request.stage {
            self.stage.clone_from(&request.stage);
            self.out.push(wire::stage(&self.settings, &self.stage));
        }
        self.respond(number, wire::answer(number, true), true, speech, now);
    }

    fn say(&mut self, text: &str, told: oneshot::Sender<Growing>, now: Instant) {
        self.numbers += 1;
        let (number, (speech, receiver)) = (self.numbers, watch::channel(Speech::default()));
        if self.responses.len() < RESPONSES_MAX && told.send(Growing { number, speech: receiver }).is_ok() {
            self.respond(number, wire::read_aloud(number, text), false, speech, now);
        }
    }

    fn respond(&mut self, number: u64, asked: Value, is_answer: bool, speech: watch::Sender<Speech>, now: Instant) {
        self.out.push(asked.clone());
        let (round, follow_ups) = (Round::default(), 0);
        let response = Response { number, id: None, asked, is_answer, speech, moved_at: now, has_begun: false, is_cancelled: false, round, follow_ups };
        self.responses.push(response);
    }

    /// Nobody wants this response; an answer may have another listener.
    fn drop_response(&mut self, number: u64) {
        if let Some(current) = self.current.as_mut().filter(|current| current.growing.number == number) {
            current.listeners -= 1;
            if current.listeners > 0 {
                return;
            }
            self.current = None;
        }
        self.latest.forget(number);
        self.question.take_if(|question| question.number == number);
        if !self.is_connected {
            self.responses.retain(|response| response.number != number);
        }
        if let Some(response) = self.responses.iter_mut().find(|response| response.number == number) {
            response.cancel(&mut self.out);
        }
    }

    /// When something is late, and what.
    pub fn due(&self) -> Option<(Instant, &'static str)> {
        let timeouts = &self.settings.account.timeouts;
        let ms = Duration::from_millis;
        let responses = self.responses.iter().map(|response| {
            let (wait_ms, what) =
                if response.has_begun { (timeouts.idle_ms, "stopped in its answer") } else { (timeouts.first_byte_ms, "gave no answer in time") };
            (response.moved_at + ms(wait_ms), what)
        });
        let hearing = self.hearing.waits_since().map(|since| (since + ms(timeouts.half_open_ms), "took sound without a word back"));
        let setup = self.set_up_at.map(|since| (since + ms(timeouts.first_byte_ms), "did not take the session's settings"));
        responses.chain(hearing).chain(setup).min()
    }
}

impl Response {
    /// Takes it back: at once, or when it is known by the provider's name for it.
    fn cancel(&mut self, out: &mut Vec<Value>) {
        self.is_cancelled = true;
        if let Some(id) = &self.id {
            out.push(wire::cancel(id));
        }
    }
}

/// A response is over; how it ended first holds.
fn end(speech: &watch::Sender<Speech>, outcome: Result<(), String>) {
    speech.send_modify(|speech| {
        speech.end.get_or_insert(outcome);
    });
}
