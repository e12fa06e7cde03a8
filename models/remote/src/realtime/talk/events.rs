//! What the provider says.

use super::super::wire::{self, Event, Outcome};
use super::{Response, Talk, end};
use crate::account::OPENAI;
use crate::failure::Failure;
use crate::tools::Round;
use tokio::time::Instant;
use voiced_core::model::{LlmEvent, SttEvent};

/// Further responses after one that only called tools. In the last one the model may not call any.
const FOLLOW_UPS_MAX: u32 = 2;
/// Longest answer, in bytes of text: several minutes of speech. A model that goes on is cut.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Longest sound of a response, in ms, longer than anyone listens.
const SOUND_MS_MAX: usize = 120_000;

impl Talk {
    /// The provider says something; an error, when it will say nothing more that helps.
    pub fn event(&mut self, event: Event, now: Instant) -> Result<(), Failure> {
        match event {
            Event::Updated => self.set_up_at = None,
            Event::Committed { item } => {
                self.record.caller_item(&item);
                self.hearing.committed(item);
            }
            Event::Heard { item, text } => {
                if let Some(event) = self.hearing.heard(&item, &text) {
                    if let SttEvent::Interim(words) = &event {
                        self.interim.clone_from(words);
                    }
                    self.told.push(event);
                }
            }
            Event::Settled { item, text } => {
                self.is_well = true;
                let events = self.hearing.settled(&item, text);
                self.settled(events);
            }
            Event::Begun { response: id, number } => {
                let is_it = |response: &&mut Response| response.id.is_none() && number.is_none_or(|number| number == response.number);
                if let Some(response) = self.responses.iter_mut().find(is_it) {
                    response.id = Some(id);
                    if response.is_cancelled {
                        response.cancel(&mut self.out);
                    }
                }
            }
            Event::Item { response, item } => {
                if self.moves(&response, now).is_some_and(|response| response.is_answer) {
                    self.record.answer_item(&item);
                }
            }
            Event::Text { response, item, text } => self.text(&response, &item, &text, now),
            Event::Sound { response, item, sound } => self.sound(&response, &item, &sound, now),
            Event::Call { response, call, name, arguments } => {
                if let Some(response) = self.moves(&response, now) {
                    response.round.call(call, name, arguments);
                }
            }
            Event::Done { response, outcome } => {
                if let Some(at) = self.responses.iter().position(|running| running.id.as_ref() == Some(&response)) {
                    self.done(at, outcome, now);
                }
            }
            Event::Error { of, words } if of == wire::SETUP => return Err(Failure::lasting(OPENAI.name, words)),
            Event::Error { of, words } => {
                let events = self.hearing.refused(&of);
                self.settled(events);
                if let Some(at) = self.responses.iter().position(|response| wire::response_id(response.number) == of) {
                    self.done(at, Outcome::Failed(words), now);
                } else {
                    // e.g. taking back what has just ended
                    tracing::debug!(of, words, "the realtime model refuses");
                }
            }
            Event::Other => {}
        }
        Ok(())
    }

    fn settled(&mut self, events: Vec<SttEvent>) {
        for event in &events {
            if let SttEvent::Final(words) = event {
                self.interim.clear();
                self.record.caller_said(words);
            }
        }
        self.told.extend(events);
    }

    /// A response under way has come on.
    fn moves(&mut self, id: &str, now: Instant) -> Option<&mut Response> {
        let response = self.responses.iter_mut().find(|response| response.id.as_deref() == Some(id))?;
        response.moved_at = now;
        Some(response)
    }

    fn text(&mut self, id: &str, item: &str, text: &str, now: Instant) {
        let Some(response) = self.moves(id, now) else { return };
        response.has_begun = true;
        if !response.is_answer {
            return;
        }
        let is_too_long = response.speech.borrow().text.len() + text.len() > TEXT_BYTES_MAX;
        if !is_too_long {
            response.speech.send_modify(|speech| {
                speech.text.push_str(text);
                speech.marks.push((speech.text.len(), speech.sound.len()));
            });
        }
        self.is_well = true;
        self.record.answer_grows(item, text, 0);
    }

    fn sound(&mut self, id: &str, item: &str, sound: &[u8], now: Instant) {
        let bytes_max = SOUND_MS_MAX * self.settings.sound.bytes_per_ms();
        let Some(response) = self.moves(id, now) else { return };
        response.has_begun = true;
        if response.speech.borrow().sound.len() + sound.len() <= bytes_max {
            response.speech.send_modify(|speech| speech.sound.extend_from_slice(sound));
        }
        if response.is_answer {
            self.record.answer_grows(item, "", sound.len());
        }
    }

    /// A response is over. An answer that only called tools is asked to speak as well.
    fn done(&mut self, at: usize, outcome: Outcome, now: Instant) {
        let mut response = self.responses.remove(at);
        let outcome = match outcome {
            Outcome::Completed => Ok(()),
            Outcome::Cancelled => Err("the response was cancelled".to_owned()),
            Outcome::Failed(words) => Err(words),
        };
        if response.is_answer && outcome.is_ok() {
            let acts = response.round.carry_out(&self.settings.stages);
            for (call, result) in response.round.results() {
                let id = self.record.item_id();
                self.out.push(wire::call_result(&id, call, result));
                self.record.answer_item(&id);
            }
            let is_silent = response.speech.borrow().text.is_empty();
            response.speech.send_modify(|speech| {
                for act in acts {
                    if act != LlmEvent::HangUp || !speech.acts.contains(&act) {
                        speech.acts.push(act);
                    }
                }
            });
            if is_silent && !response.is_cancelled && !response.round.is_empty() && response.follow_ups < FOLLOW_UPS_MAX {
                response.follow_ups += 1;
                (response.id, response.round, response.moved_at, response.has_begun) = (None, Round::default(), now, false);
                self.out.push(wire::answer(response.number, response.follow_ups < FOLLOW_UPS_MAX));
                return self.responses.push(response);
            }
            if is_silent && response.speech.borrow().acts.is_empty() {
                end(&response.speech, Err(format!("{}: the answer was empty", OPENAI.name)));
            }
        }
        end(&response.speech, outcome.map_err(|words| format!("{}: {words}", OPENAI.name)));
        self.put_question(now);
    }
}
