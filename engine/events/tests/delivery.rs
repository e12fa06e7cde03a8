//! The outbox in front of a receiver that misbehaves in each way a receiver can.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use voiced_core::event::{CallEvent, CallEventKind, EventSpeaker};
use voiced_events::deliver::{self, Backoff, DeliveryCounters, Pace};
use voiced_events::outbox::{Outbox, State as Delivery, Store};
use voiced_events::sinks::{Outcome, Sink, ema, file};

const PATIENCE: Duration = Duration::from_secs(20);
const QUICK: Backoff = Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(4), attempts_max: 20 };

#[derive(Clone, Debug)]
struct Received {
    path: String,
    key: String,
    secret: String,
    body: Value,
}

/// What the receiver does: the first answers in order, then 200.
#[derive(Clone, Default)]
struct Receiver {
    answers: Arc<Mutex<Vec<(u16, Value)>>>,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    fn answering(answers: &[(u16, Value)]) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.to_vec())), received: Arc::default() }
    }

    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(take).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    fn taken(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

async fn take(State(receiver): State<Receiver>, uri: Uri, headers: HeaderMap, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let received = Received { path: uri.path().to_owned(), key: text("idempotency-key"), secret: text("x-webhook-secret"), body };
    receiver.received.lock().unwrap().push(received);
    let mut answers = receiver.answers.lock().unwrap();
    let (status, body) = if answers.is_empty() { (200, json!({"success": true})) } else { answers.remove(0) };
    (StatusCode::from_u16(status).unwrap(), Json(body))
}

fn call(session: &str) -> Vec<CallEvent> {
    let event = |sequence, kind| CallEvent {
        session_id: session.to_owned(),
        call_sid: Some("CA1".into()),
        at_unix_ms: 1_790_000_000_123 + u64::from(sequence) * 1_000,
        sequence,
        kind,
    };
    let metadata = BTreeMap::from([("from".to_owned(), "+15550100".to_owned())]);
    vec![
        event(0, CallEventKind::CallInitiated { metadata, started_at_unix_ms: 1_790_000_000_123 }),
        event(1, CallEventKind::Utterance { speaker: EventSpeaker::Tenant, text: "The sink leaks.".into(), turn_index: 0, stage: "issue".into() }),
        event(2, CallEventKind::CallEnded { duration_seconds: 2.5, total_turns: 1, final_stage: "issue".into(), reason: "hung_up".into() }),
    ]
}

fn deliver_to(url: &str, file: &Path) -> (Outbox, watch::Sender<bool>) {
    let outbox = Outbox::open(file, &["ema"]).unwrap();
    let (stop, stopped) = watch::channel(false);
    let sink = Arc::new(Sink::Ema(ema::Ema::new(url, "s3cret").unwrap()));
    tokio::spawn(deliver::run(outbox.clone(), sink, QUICK, Pace::new(1_000), Arc::new(DeliveryCounters::default()), stopped));
    (outbox, stop)
}

/// The store as a process that records holds it.
fn claimed(file: &Path) -> Store {
    let mut store = Store::open(file, &["ema"]).unwrap();
    store.claim().unwrap();
    store
}

/// Waits until the store says so.
async fn until(outbox: &Outbox, what: &str, holds: impl Fn(&[voiced_events::outbox::Entry]) -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let entries = outbox.with(|store| store.list(false, 1_000).unwrap()).await.unwrap();
            if holds(&entries) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}

fn all_sent(entries: &[voiced_events::outbox::Entry]) -> bool {
    entries.iter().all(|entry| entry.state == Delivery::Sent)
}

#[tokio::test]
async fn a_call_reaches_the_webhooks_in_the_shape_that_the_contract_names() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::default();
    let (outbox, _stop) = deliver_to(&receiver.start().await, &folder.path().join("outbox.db"));
    for event in call("phone-CA1") {
        assert!(outbox.record(event).await);
    }
    until(&outbox, "all sent", all_sent).await;
    let taken = receiver.taken();
    let paths: Vec<_> = taken.iter().map(|received| received.path.as_str()).collect();
    assert_eq!(paths, ["/webhooks/livekit/call-initiated", "/webhooks/livekit/utterance", "/webhooks/livekit/call-ended"]);
    assert!(taken.iter().all(|received| received.secret == "s3cret"));
    let started = json!({"event_type": "call_initiated", "session_id": "phone-CA1", "call_sid": "CA1", "timestamp": "2026-09-21T14:13:20.123Z",
        "data": {"metadata": {"from": "+15550100"}, "started_at": "2026-09-21T14:13:20.123Z"}});
    assert_eq!(taken[0].body, started);
    assert_eq!(taken[1].body["data"], json!({"speaker": "tenant", "text": "The sink leaks.", "turn_index": 0, "stage": "issue"}));
    assert_eq!(taken[2].body["data"], json!({"duration_seconds": 2.5, "total_turns": 1, "final_stage": "issue"}));
}

#[tokio::test]
async fn an_event_that_fails_is_repeated_under_its_key_and_the_next_of_the_call_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::answering(&[(503, json!({})), (200, json!({"success": false, "error": "busy"})), (429, json!({}))]);
    let (outbox, _stop) = deliver_to(&receiver.start().await, &folder.path().join("outbox.db"));
    for event in call("phone-CA1") {
        outbox.record(event).await;
    }
    until(&outbox, "all sent", all_sent).await;
    let keys: Vec<_> = receiver.taken().into_iter().map(|received| received.key).collect();
    assert_eq!(keys, ["phone-CA1-0", "phone-CA1-0", "phone-CA1-0", "phone-CA1-0", "phone-CA1-1", "phone-CA1-2"]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_redirects_is_no_success_and_no_refusal() {
    let answer = |head: &str, body: &str| format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n{body}");
    let long = "x".repeat(1_000_000);
    let failures = [
        (answer("200 OK\r\nContent-Length: 400", r#"{"success": "#), "broke off"),
        (answer("200 OK", r#"{"success": "#), "breaks off"),
        (answer("200 OK", &format!(r#"{{"data": "{long}", "success": false}}"#)), "breaks off"),
        (answer("308 Permanent Redirect\r\nLocation: https://ema.example.test\r\nContent-Length: 0", ""), "set EMA_API_URL"),
    ];
    let successes = [
        answer("200 OK", &format!(r#"{{"success": true, "data": "{}"}}"#, &long[..100_000])),
        answer("200 OK", &format!("<p>{long}")),
        answer("204 No Content", ""),
    ];
    for (answer, why) in failures {
        let outcome = outcome_of(answer.clone()).await;
        assert!(matches!(&outcome, Outcome::Later(reason) if reason.contains(why)), "{outcome:?} of {answer:.80}");
    }
    for answer in successes {
        assert_eq!(outcome_of(answer.clone()).await, Outcome::Sent, "{answer:.80}");
    }
}

/// What comes of an event that is answered so.
async fn outcome_of(answer: String) -> Outcome {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sink = ema::Ema::new(&format!("http://{}", listener.local_addr().unwrap()), "s3cret").unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4_096];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(answer.as_bytes()).await; // a reader that has enough hangs up
        let _ = stream.shutdown().await;
        let _ = stream.read(&mut request).await; // so that the end is no reset
    });
    sink.deliver(&call("phone-CA1")[1]).await
}

#[tokio::test]
async fn what_the_receiver_refuses_is_parked_with_its_reason_and_goes_out_on_retry() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::answering(&[(422, json!({"error": "metadata is empty"}))]);
    let (outbox, _stop) = deliver_to(&receiver.start().await, &folder.path().join("outbox.db"));
    for event in call("phone-CA1") {
        outbox.record(event).await;
    }
    until(&outbox, "the first parked, the others sent", |entries| {
        entries.len() == 3 && entries[0].state == Delivery::Parked && entries[1..].iter().all(|entry| entry.state == Delivery::Sent)
    })
    .await;
    let parked = outbox.with(|store| store.list(true, 10).unwrap()).await.unwrap();
    assert!(parked[0].reason.as_ref().unwrap().contains("metadata is empty"), "{:?}", parked[0].reason);
    assert_eq!(outbox.with(|store| store.retry(None).unwrap()).await.unwrap(), 1);
    until(&outbox, "all sent", all_sent).await;
}

#[tokio::test]
async fn a_stuck_call_does_not_hold_up_another() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(&folder.path().join("outbox.db"), &["ema"]).unwrap();
    for event in call("phone-CA1").into_iter().chain(call("phone-CA2")) {
        outbox.record(event).await;
    }
    let due = outbox.with(|store| {
        let first = store.due("ema", 10, 10_000, 10).unwrap();
        store.again(&first[0], 1_000, "busy").unwrap();
        store.due("ema", 10, 10_000, 10).unwrap()
    });
    let due: Vec<_> = due.await.unwrap().into_iter().map(|entry| ema::idempotency_key(&entry.event)).collect();
    assert_eq!(due, ["phone-CA2-0"]);
}

#[tokio::test]
async fn calls_that_a_crash_cut_off_are_reported_ended_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outbox.db");
    let mut store = claimed(&file);
    let (whole, cut) = (call("phone-CA1"), call("phone-CA2"));
    store.record(whole.iter().chain(&cut[..2])).unwrap();
    drop(store); // nothing is flushed on the way out: what was recorded is on disk
    let mut store = claimed(&file);
    assert_eq!(store.take_over().unwrap(), 1);
    assert_eq!(store.take_over().unwrap(), 0);
    let last = store.list(false, 100).unwrap().pop().unwrap().event;
    assert_eq!((last.session_id.as_str(), last.sequence), ("phone-CA2", 2));
    let expected = CallEventKind::CallEnded { duration_seconds: 1.0, total_turns: 1, final_stage: "issue".into(), reason: "crashed".into() };
    assert_eq!(last.kind, expected);
}

#[tokio::test]
async fn a_process_that_lives_keeps_its_calls_and_what_it_owes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outbox.db");
    let (mut old, mut new) = (claimed(&file), claimed(&file));
    old.record(call("phone-CA1")[..2].iter()).unwrap();
    old.draining().unwrap();
    new.record(call("phone-CA2")[..1].iter()).unwrap();
    assert_eq!(new.take_over().unwrap(), 0, "the old one lives");
    let due = |store: &Store| store.due("ema", 10, 10_000, 10).unwrap().into_iter().map(|entry| entry.event.session_id).collect::<Vec<_>>();
    assert_eq!((due(&old), due(&new)), (vec!["phone-CA1".to_owned()], vec!["phone-CA2".to_owned()]));
    let talking: Vec<_> = new.processes().unwrap().into_iter().map(|process| (process.draining, process.calls)).collect();
    let since = 1_790_000_000_123;
    assert_eq!(talking, [(true, vec![("phone-CA1".to_owned(), since)]), (false, vec![("phone-CA2".to_owned(), since)])]);

    drop(old);
    assert_eq!(new.take_over().unwrap(), 1, "the call that the old one left open");
    assert_eq!(due(&new), ["phone-CA1", "phone-CA2"]);
    assert_eq!(new.processes().unwrap().len(), 1);
}

#[tokio::test]
async fn an_event_recorded_twice_is_delivered_once() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(&folder.path().join("outbox.db"), &["ema"]).unwrap();
    for event in call("phone-CA1").into_iter().chain(call("phone-CA1")) {
        assert!(outbox.record(event).await);
    }
    assert_eq!(outbox.with(|store| store.list(false, 100).unwrap().len()).await.unwrap(), 3);
}

#[tokio::test]
async fn a_call_that_is_connected_once_more_goes_on_with_its_numbers_and_its_second_crash_is_reported_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outbox.db");
    let mut store = claimed(&file);
    store.record(call("phone-CA1").iter()).unwrap();
    let next = store.next_sequence("phone-CA1").unwrap();
    assert_eq!((next, store.next_sequence("phone-CA2").unwrap()), (3, 0));
    let again = call("phone-CA1").into_iter().take(2).map(|event| CallEvent { sequence: event.sequence + next, ..event });
    store.record(again.collect::<Vec<_>>().iter()).unwrap();
    drop(store);
    let mut store = claimed(&file);
    assert_eq!(store.take_over().unwrap(), 1);
    let last = store.list(false, 100).unwrap().pop().unwrap().event;
    let expected = CallEventKind::CallEnded { duration_seconds: 1.0, total_turns: 1, final_stage: "issue".into(), reason: "crashed".into() };
    assert_eq!((last.sequence, last.kind), (5, expected));
}

#[tokio::test]
async fn a_clock_that_is_set_back_by_a_day_does_not_hold_deliveries_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = claimed(&folder.path().join("outbox.db"));
    store.record(call("phone-CA1").iter()).unwrap();
    let (day, minute) = (86_400_000, 60_000);
    let first = store.due("ema", day, minute, 1).unwrap().remove(0);
    store.again(&first, day + 1_000, "busy").unwrap();
    assert!(store.due("ema", day, minute, 1).unwrap().is_empty(), "put off");
    assert_eq!(store.due("ema", 5, minute, 1).unwrap().len(), 1, "by a clock that is no more");
}

#[test]
fn a_line_that_a_full_disk_cut_off_spoils_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let sink = file::JsonLines::new(path.clone());
    let events = call("phone-CA1");
    assert_eq!(sink.deliver(&events[0]), Outcome::Sent);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&whole, &whole[..40]].concat()).unwrap();
    assert_eq!((sink.deliver(&events[1]), sink.deliver(&events[2])), (Outcome::Sent, Outcome::Sent));
    let lines = std::fs::read_to_string(&path).unwrap();
    let read: Vec<CallEvent> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!((read, lines.lines().count()), (events, 4));
}
