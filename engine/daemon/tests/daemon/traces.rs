//! Calls as traces at a collector, read with the protocol's own messages: what is in them, when they come, and that a
//! collector that goes wrong disturbs no call.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use prost::Message;
use tokio::net::TcpListener;
use voiced_lab::phone::{Outcome, Step};
use voiced_lab::providers::{Fault, Script};

use crate::caller::{call, conversation, listen, say, script, spoken};
use crate::host::Host;
use crate::{story, until};

const KEY: &str = "collector-key-1";
const LINES: [&str; 2] = ["My kitchen sink is leaking.", "It is in the kitchen."];
const STAGES: [&str; 6] = ["turn_end", "transcript", "llm_first_token", "first_phrase", "tts_first_sound", "reply"];
/// The daemon and the telephone measure at different ends of the line, on a machine that may be busy.
const APART_MAX_MS: u64 = 1_500;

#[derive(Clone, Copy)]
enum Collects {
    Well,
    With500,
    Never,
}

/// A collector on loopback.
struct Collector {
    url: String,
    taken: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    async fn start(collects: Collects) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let taken = Arc::new(Mutex::new(Vec::new()));
        let take = async move |State(taken): State<Arc<Mutex<Vec<Span>>>>, headers: HeaderMap, body: Bytes| {
            match collects {
                Collects::Well => {}
                Collects::With500 => return StatusCode::INTERNAL_SERVER_ERROR,
                Collects::Never => std::future::pending().await,
            }
            assert_eq!((headers["content-type"].as_bytes(), headers["x-api-key"].as_bytes()), (&b"application/x-protobuf"[..], KEY.as_bytes()));
            let request = ExportTraceServiceRequest::decode(body).expect("the protocol's own message");
            for of_daemon in request.resource_spans {
                let resource = of_daemon.resource.expect("a resource");
                assert_eq!(text(&resource.attributes, "service.name"), "voiced");
                let spans = of_daemon.scope_spans.into_iter().flat_map(|scope| scope.spans);
                taken.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
            }
            StatusCode::OK
        };
        let routes = axum::Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&taken));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, taken }
    }

    async fn host(&self, settings: &[(&str, &str)]) -> Host {
        let header = format!("x-api-key={KEY}");
        let own = [("OTEL_EXPORTER_OTLP_ENDPOINT", self.url.as_str()), ("OTEL_EXPORTER_OTLP_HEADERS", header.as_str())];
        Host::start(Script::default(), &[&own, settings].concat()).await
    }

    fn spans(&self) -> Vec<Span> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The trace of a call, once its root is here: the root comes last.
    async fn trace(&self, call_sid: &str) -> Trace {
        let root = || self.spans().into_iter().find(|span| span.name == "call" && text(&span.attributes, "voiced.call_sid") == call_sid);
        until("the call's trace at the collector", async || root().is_some()).await;
        let root = root().expect("a root");
        let spans: Vec<_> = self.spans().into_iter().filter(|span| span.trace_id == root.trace_id).collect();
        Trace { root, spans }
    }
}

struct Trace {
    root: Span,
    spans: Vec<Span>,
}

impl Trace {
    /// Spans right below one, in the order of their begin.
    fn below(&self, parent: &Span) -> Vec<&Span> {
        let mut below: Vec<_> = self.spans.iter().filter(|span| span.parent_span_id == parent.span_id).collect();
        below.sort_by_key(|span| span.start_time_unix_nano);
        below
    }

    fn events(&self, name: &str) -> Vec<&Event> {
        self.root.events.iter().filter(|event| event.name == name).collect()
    }
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> &'a str {
    match value(attributes, key) {
        Some(Value::StringValue(text)) => text,
        _ => "",
    }
}

fn number(attributes: &[KeyValue], key: &str) -> i64 {
    match value(attributes, key) {
        Some(Value::IntValue(number)) => *number,
        other => panic!("{key}: {other:?}"),
    }
}

fn ms(span: &Span) -> u64 {
    (span.end_time_unix_nano - span.start_time_unix_nano) / 1_000_000
}

fn is_inside(inner: &Span, outer: &Span) -> bool {
    outer.start_time_unix_nano <= inner.start_time_unix_nano
        && inner.start_time_unix_nano <= inner.end_time_unix_nano
        && inner.end_time_unix_nano <= outer.end_time_unix_nano
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64
}

#[tokio::test]
async fn each_call_is_one_trace_with_a_span_for_each_turn_and_each_of_its_stages() {
    let collector = Collector::start(Collects::Well).await;
    let host = collector.host(&[]).await;
    let (phone, begun) = (host.phone(), now_ns());
    let (one, other) = tokio::join!(call(&phone, conversation(&LINES)), call(&phone, conversation(&LINES)));
    for report in [&one, &other] {
        let Trace { root, .. } = &collector.trace(&report.call_sid).await;
        let trace = collector.trace(&report.call_sid).await;
        assert!(begun < root.start_time_unix_nano && root.end_time_unix_nano < now_ns(), "the call took place during this test");
        assert!(ms(root).abs_diff(report.duration_ms) < APART_MAX_MS, "{} ms, the phone measured {}", ms(root), report.duration_ms);
        let attributes = &root.attributes;
        let texts = ["session.id", "voiced.transport", "voiced.end_reason"].map(|key| text(attributes, key));
        assert_eq!(texts, [&format!("phone-{}", report.call_sid), "twilio", "hung_up"]);
        assert_eq!(["voiced.turns", "voiced.utterances"].map(|key| number(attributes, key)), [2, 5]);
        assert!(root.parent_span_id.is_empty());

        let turns = trace.below(root);
        assert_eq!(turns.iter().map(|turn| turn.name.as_str()).collect::<Vec<_>>(), ["turn", "turn"]);
        assert!(turns[0].end_time_unix_nano < turns[1].start_time_unix_nano);
        for (turn, utterance) in turns.iter().zip(&report.utterances) {
            assert!(is_inside(turn, root));
            let measured = utterance.response_ms.expect("an answer");
            assert!(ms(turn).abs_diff(measured) < APART_MAX_MS, "{} ms, the phone measured {measured}", ms(turn));
            assert_eq!(number(&turn.attributes, "voiced.response_ms"), ms(turn) as i64);
            stages_follow_each_other(&trace, turn);
        }
        assert_eq!(trace.spans.len(), 1 + 2 * (1 + STAGES.len()), "nothing else");
        assert_eq!(trace.events("utterance").len(), 5);
    }
    let (one, other) = (collector.trace(&one.call_sid).await, collector.trace(&other.call_sid).await);
    assert_ne!(one.root.trace_id, other.root.trace_id);
    let words = format!("{:?}", collector.spans());
    assert!(!words.contains("this is what") && !words.contains("Hello."), "{words}");
    assert!(!host.log().contains(KEY));
}

fn stages_follow_each_other(trace: &Trace, turn: &Span) {
    let stages = trace.below(turn);
    let stage = |name: &str| stages.iter().find(|stage| stage.name == name).unwrap_or_else(|| panic!("no {name} in {stages:?}"));
    assert!(stages.iter().all(|stage| is_inside(stage, turn)), "{stages:?}");
    // a guess may be answered before its transcript settles
    for pair in STAGES[2..].windows(2) {
        let (before, after) = (stage(pair[0]), stage(pair[1]));
        assert!(before.end_time_unix_nano <= after.end_time_unix_nano, "{before:?} {after:?}");
    }
    assert_eq!(stage("reply").end_time_unix_nano, turn.end_time_unix_nano);
    assert_eq!(stage("reply").start_time_unix_nano, stage("tts_first_sound").end_time_unix_nano.max(stage("turn_end").end_time_unix_nano));
    assert!(number(&stage("turn_end").attributes, "voiced.wait_ms") > 0);
}

#[tokio::test]
async fn an_interruption_and_a_failed_provider_are_events_of_the_call_and_words_only_if_wanted() {
    let collector = Collector::start(Collects::Well).await;
    let host = collector.host(&[("VOICED_TRACES__WORDS", "true")]).await;
    let over = Step::SayOver { after_agent_ms: 600, pcm8k: spoken(LINES[1]), label: LINES[1].to_owned() };
    let report = call(&host.phone(), script([listen(), say(LINES[0]), over, listen()])).await;
    let trace = collector.trace(&report.call_sid).await;
    let cut = trace.events("barge_in");
    assert_eq!(cut.len(), 1, "{:?}", trace.root.events);
    let turn = trace.below(&trace.root).into_iter().find(|turn| number(&turn.attributes, "voiced.turn") == number(&cut[0].attributes, "voiced.turn"));
    assert!(turn.expect("the turn that was cut").end_time_unix_nano < cut[0].time_unix_nano);
    let said: Vec<_> = trace.events("utterance").into_iter().map(|event| text(&event.attributes, "voiced.text")).collect();
    assert!(said.contains(&"Hello.") && said.iter().any(|text| text.starts_with("this is")), "{said:?}");

    host.fakes.openai_chat.fault.set(Fault::ServerError);
    let report = call(&host.phone(), conversation(&LINES[..1])).await;
    let trace = collector.trace(&report.call_sid).await;
    let failed = trace.events("provider_failed");
    assert_eq!(text(&failed.first().expect("a fault").attributes, "voiced.role"), "llm");
    assert!(text(&failed[0].attributes, "error.message").contains("HTTP 500"), "{failed:?}");
}

#[tokio::test]
async fn what_is_left_of_traces_is_sent_on_sigterm() {
    let collector = Collector::start(Collects::Well).await;
    let mut host = collector.host(&[]).await;
    let phone = host.phone();
    let running = call(&phone, conversation(&LINES));
    let stop = async {
        until("the call", async || !host.calls().await.is_empty()).await;
        host.terminate();
        until("the drain", async || host.get("/health").await.0 == 503).await;
        host.terminate();
        host.exit().await
    };
    let (report, status) = tokio::join!(running, stop);
    assert!(status.success());
    let root = collector.spans().into_iter().find(|span| span.name == "call").expect("the trace was there before the daemon ended");
    assert_eq!(["voiced.call_sid", "voiced.end_reason"].map(|key| text(&root.attributes, key)), [report.call_sid.as_str(), "drained"]);
}

#[tokio::test]
async fn a_collector_that_fails_or_hangs_disturbs_no_call_and_is_counted() {
    for collects in [Collects::With500, Collects::Never] {
        let collector = Collector::start(collects).await;
        let mut host = collector.host(&[]).await;
        let report = call(&host.phone(), conversation(&LINES)).await;
        assert_eq!(report.outcome, Outcome::CallerHungUp);
        assert!(report.utterances.iter().all(|utterance| utterance.response_ms.is_some()));
        assert_eq!(story::of(&host, &report.call_sid).await.said().len(), 5);
        until("all spans are given up", async || host.metric("voiced_trace_spans_lost_total").await == 1 + 2 * (1 + STAGES.len() as u64)).await;
        assert_eq!(host.metric("voiced_trace_spans_sent_total").await, 0);
        assert_eq!(host.log().matches("traces are lost").count(), 1, "an outage is told once");
        host.terminate();
        assert!(host.exit().await.success());
    }
}

#[tokio::test]
async fn calls_that_are_not_sampled_are_not_traced() {
    let collector = Collector::start(Collects::Well).await;
    let mut host = collector.host(&[("VOICED_TRACES__SAMPLE", "0")]).await;
    let report = call(&host.phone(), conversation(&[])).await;
    story::of(&host, &report.call_sid).await;
    host.terminate();
    assert!(host.exit().await.success());
    assert!(collector.spans().is_empty());
}
