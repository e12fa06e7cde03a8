//! One call's trace: the spans `call`, `turn` and the stages of a turn, named as in `/metrics`.
//!
//! A turn is the time from the caller's last speech to the reply's first sound. Its stages follow each other where one
//! waits for another: the transcript, then the language model's first token, the first phrase, the voice's first sound; the
//! decision that the turn is over is made beside them, and the reply waits for both. What has no length is an event of the
//! call: words, interruptions, providers that fail.

use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{Span, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::SdkTracer;
use voiced_core::conversation::{Input, Spoken, TurnTiming};
use voiced_core::event::{CallEventKind, EventSpeaker};
use voiced_core::leg::LegEvent;
use voiced_core::model::{LlmEvent, SttEvent, ToolOutcome};

use crate::metrics::STAGES;

/// Characters of an utterance or an error at most: a minute of speech.
const TEXT_CHARS_MAX: usize = 1_000;
/// Ends of calls that nobody wanted.
const FAULTY_ENDS: [&str; 2] = ["lost", "crashed"];

/// The trace of a call, or nothing for a call that is not sampled. Dropping it ends the trace.
#[derive(Default)]
pub struct CallTrace(Option<Box<Recording>>);

struct Recording {
    tracer: SdkTracer,
    /// Holds the call's span.
    call: Context,
    /// Wall clock and monotonic clock of the begin: a clock that is set during a call bends no span.
    begun_at: SystemTime,
    begun: Instant,
    words: bool,
    turns: u32,
    /// How the latest turn's end was decided.
    decided: Vec<KeyValue>,
}

impl CallTrace {
    /// Begins the call's span.
    pub(super) fn begin(tracer: SdkTracer, attributes: Vec<KeyValue>, words: bool) -> Self {
        let (begun_at, begun) = (SystemTime::now(), Instant::now());
        let builder = SpanBuilder::from_name("call").with_kind(SpanKind::Server).with_start_time(begun_at).with_attributes(attributes);
        let call = Context::new().with_span(tracer.build_with_context(builder, &Context::new()));
        if !call.span().is_recording() {
            return Self(None);
        }
        Self(Some(Box::new(Recording { tracer, call, begun_at, begun, words, turns: 0, decided: Vec::new() })))
    }

    /// What came to the conversation: how turns ended, interruptions, providers that failed.
    pub fn input(&mut self, input: &Input) {
        let Some(recording) = &mut self.0 else { return };
        match input {
            Input::Leg(LegEvent::TurnEnded { wait_ms, probability, .. }) => recording.decided(*wait_ms, *probability),
            Input::Leg(LegEvent::Interrupted { cut, heard, .. }) => recording.event(
                "barge_in",
                vec![number("voiced.turn", cut.0), number("voiced.heard_phrase", heard.phrase), number("voiced.heard_phrase_ms", heard.phrase_ms)],
            ),
            Input::Llm { event: LlmEvent::By(name), .. } | Input::Tts { event: Spoken::By(name), .. } => {
                recording.event("provider", vec![KeyValue::new("voiced.provider", name.clone())]);
            }
            Input::Stt(SttEvent::Switched(reason)) => recording.fault("provider_switched", "stt", reason),
            Input::Stt(SttEvent::Failed(reason)) => recording.fault("provider_failed", "stt", reason),
            Input::Llm { event: LlmEvent::Failed(reason), .. } => recording.fault("provider_failed", "llm", reason),
            Input::Tts { event: Spoken::Failed(reason), .. } => recording.fault("provider_failed", "tts", reason),
            Input::Tool { outcome, .. } => recording.event("tool", vec![KeyValue::new("voiced.tool_failed", matches!(outcome, ToolOutcome::Failed(_)))]),
            _ => {}
        }
    }

    /// What the outside world is told.
    pub fn reported(&mut self, kind: &CallEventKind) {
        let Some(recording) = &mut self.0 else { return };
        match kind {
            CallEventKind::CallInitiated { .. } => {}
            CallEventKind::Utterance { speaker, text, turn_index, stage } => {
                let speaker = match speaker {
                    EventSpeaker::Tenant => "caller",
                    EventSpeaker::Agent => "agent",
                };
                let mut attributes =
                    vec![KeyValue::new("voiced.speaker", speaker), number("voiced.utterance", *turn_index), KeyValue::new("voiced.stage", stage.clone())];
                if recording.words {
                    attributes.push(KeyValue::new("voiced.text", short(text)));
                }
                recording.event("utterance", attributes);
            }
            CallEventKind::CallEnded { total_turns, final_stage, .. } => {
                let span = recording.call.span();
                span.set_attribute(number("voiced.utterances", *total_turns));
                span.set_attribute(KeyValue::new("voiced.final_stage", final_stage.clone()));
            }
        }
    }

    /// A turn was answered: the reply's first sound is on the line.
    pub fn answered(&mut self, timing: &TurnTiming) {
        if let Some(recording) = &mut self.0 {
            recording.answered(timing);
        }
    }

    /// The call is over.
    pub fn ended(&mut self, reason: &'static str) {
        let Some(recording) = self.0.take() else { return };
        let span = recording.call.span();
        span.set_attribute(number("voiced.turns", recording.turns));
        span.set_attribute(KeyValue::new("voiced.end_reason", reason));
        if FAULTY_ENDS.contains(&reason) {
            span.set_status(Status::error(reason));
        }
        span.end_with_timestamp(recording.now());
    }
}

impl Recording {
    fn now(&self) -> SystemTime {
        self.begun_at + self.begun.elapsed()
    }

    fn event(&self, name: &'static str, attributes: Vec<KeyValue>) {
        self.call.span().add_event_with_timestamp(name, self.now(), attributes);
    }

    fn fault(&self, name: &'static str, role: &'static str, reason: &str) {
        let reason = if self.words { reason } else { in_our_words(reason) };
        self.event(name, vec![KeyValue::new("voiced.role", role), KeyValue::new("error.message", short(reason))]);
    }

    fn decided(&mut self, wait_ms: u32, probability: f32) {
        self.decided = vec![number("voiced.wait_ms", wait_ms)];
        if probability.is_finite() {
            self.decided.push(KeyValue::new("voiced.end_of_turn_probability", f64::from(probability)));
        }
    }

    fn answered(&mut self, timing: &TurnTiming) {
        self.turns += 1;
        let answered_at = self.now();
        let steps = [timing.ended_ms, timing.transcript_ms, timing.llm_ms, timing.phrase_ms, timing.tts_ms, timing.reply_ms];
        let [ended, transcript, llm, phrase, tts, reply] = steps;
        let waited_for = [None, None, transcript, llm, phrase, ended.max(tts)];
        let took_ms = reply.unwrap_or_else(|| steps.into_iter().flatten().max().unwrap_or(0));
        let spoke_at = answered_at - Duration::from_millis(u64::from(took_ms));
        let at = |ms: u32| spoke_at + Duration::from_millis(u64::from(ms.min(took_ms)));
        let builder =
            |name: &'static str, from: u32, attributes: Vec<KeyValue>| SpanBuilder::from_name(name).with_start_time(at(from)).with_attributes(attributes);
        let turn = builder("turn", 0, vec![number("voiced.turn", timing.turn.0), number("voiced.response_ms", took_ms)]);
        let turn = self.call.with_span(self.tracer.build_with_context(turn, &self.call));
        let mut decided = std::mem::take(&mut self.decided);
        for ((name, done), since) in STAGES.into_iter().zip(steps).zip(waited_for) {
            let Some(done) = done else { continue };
            // the conversation thinks ahead: what a step waits for may have been settled anew since
            let since = since.unwrap_or(0).min(done);
            let mut stage = self.tracer.build_with_context(builder(name, since, std::mem::take(&mut decided)), &turn);
            stage.end_with_timestamp(at(done));
        }
        turn.span().end_with_timestamp(answered_at);
    }
}

fn number(key: &'static str, value: u32) -> KeyValue {
    KeyValue::new(key, Value::I64(i64::from(value)))
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

/// A provider's failure without the provider's own text, which may repeat what was said: `vendor: HTTP 400`.
fn in_our_words(reason: &str) -> &str {
    let ends = reason.match_indices(": ").nth(1).map_or(reason.len(), |(end, _)| end);
    &reason[..ends]
}
