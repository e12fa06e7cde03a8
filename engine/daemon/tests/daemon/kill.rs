//! kill -9 at moments that nobody chose, under several calls, with a receiver that fails now and then. `make soak` runs
//! it with more moments (`VOICED_KILL_POINTS`); a run is repeated with its seed (`VOICED_SEED`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use voiced_core::event::CallEvent;
use voiced_events::outbox::State;
use voiced_events::sinks::ema::{idempotency_key, webhook};
use voiced_lab::ema::{Behaviour, Received};
use voiced_lab::phone::CallReport;
use voiced_lab::providers::Script;

use crate::caller::conversation;
use crate::host::Host;
use crate::until;

/// Moments, unless told otherwise.
const POINTS: usize = 5;
/// Phones that call at a time.
const PHONES: usize = 4;
/// Between the first call and the kill, ms: from before the greeting to after the third answer.
const KILL_AFTER_MS: std::ops::Range<u64> = 50..9_000;
/// What was answered this long before the kill must be on disk, ms: a commit takes a few.
const SETTLED_MS: u64 = 1_500;
const LINES: [&str; 3] = ["My kitchen sink is leaking.", "It is in the kitchen.", "My kitchen sink is leaking."];

/// Every event that a daemon has called safe, by its key.
type Witness = Arc<Mutex<BTreeMap<String, CallEvent>>>;

#[tokio::test]
async fn killed_at_any_moment_it_loses_no_event_keeps_order_and_repeats_only_under_the_same_key() {
    let number = |name: &str, otherwise: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let seed = number("VOICED_SEED", rand::random::<u32>().into());
    let points = number("VOICED_KILL_POINTS", POINTS as u64);
    println!("VOICED_SEED={seed} VOICED_KILL_POINTS={points}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut host = Host::start(Script::default(), &[]).await;
    let (witness, mut reports) = (Witness::default(), Vec::new());
    for _ in 0..points {
        host.ema.behave(moody(&mut rng));
        let watching = tokio::spawn(watch(format!("ws://{}/events", host.address()), Arc::clone(&witness)));
        let phone = host.phone();
        let starts: Vec<_> = (0..PHONES).map(|_| rng.random_range(0..1_500)).collect();
        let calls = join_all(starts.into_iter().map(async |after| {
            tokio::time::sleep(Duration::from_millis(after)).await;
            // who calls while nobody is there gets no answer, which is no event
            phone.call(conversation(&LINES), &|_, _| {}).await.ok()
        }));
        let killed_after = Duration::from_millis(rng.random_range(KILL_AFTER_MS));
        let kill = async {
            tokio::time::sleep(killed_after).await; // the moment is the test's input
            host.kill();
        };
        let (calls, ()) = tokio::join!(calls, kill);
        reports.extend(calls.into_iter().flatten());
        let _ = watching.await;
        host.restart().await;
    }
    host.receiver_fails(false);
    until("everything owed is delivered", async || host.stored().iter().all(|entry| entry.state == State::Sent)).await;
    assert!(host.calls().await.is_empty());
    let witness = witness.lock().unwrap_or_else(PoisonError::into_inner);
    check(&host, &witness, &reports);
    println!("{} events called safe, {} calls, none lost", witness.len(), reports.len());
}

/// What the receiver is like until the next kill.
fn moody(rng: &mut StdRng) -> Option<Behaviour> {
    match rng.random_range(0..4) {
        0 => None,
        1 => Some(Behaviour::Fails { times: rng.random_range(1..20) }),
        2 => Some(Behaviour::Fails { times: u32::MAX }),
        _ => Some(Behaviour::Slow { ms: rng.random_range(50..1_500) }),
    }
}

/// Notes what a daemon calls safe, until it dies.
async fn watch(url: String, witness: Witness) {
    let Ok((mut socket, _)) = tokio_tungstenite::connect_async(url).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if let Ok(event) = serde_json::from_str::<CallEvent>(message.to_text().unwrap_or_default()) {
            witness.lock().unwrap_or_else(PoisonError::into_inner).insert(idempotency_key(&event), event);
        }
    }
}

fn check(host: &Host, witness: &BTreeMap<String, CallEvent>, reports: &[CallReport]) {
    let mut by_key: BTreeMap<String, Received> = BTreeMap::new();
    let mut by_session: BTreeMap<String, Vec<Received>> = BTreeMap::new();
    for received in host.ema.received().into_iter().filter(|received| received.accepted) {
        let key = received.idempotency_key.clone().expect("a key");
        if let Some(before) = by_key.get(&key) {
            assert_eq!(before.body, received.body, "two events under the key {key}");
            continue;
        }
        by_key.insert(key, received.clone());
        by_session.entry(received.body["session_id"].as_str().unwrap_or_default().to_owned()).or_default().push(received);
    }
    for (key, event) in witness {
        let arrived = by_key.get(key).unwrap_or_else(|| panic!("{key} was called safe and never arrived"));
        assert_eq!(arrived.body, webhook(event).1);
    }
    for entry in host.stored() {
        assert!(by_key.contains_key(&idempotency_key(&entry.event)), "{:?} is called sent and never arrived", entry.event);
    }
    for (session, events) in &by_session {
        for (number, event) in events.iter().enumerate() {
            assert_eq!(event.idempotency_key.as_deref(), Some(format!("{session}-{number}").as_str()), "out of order, or a gap");
        }
        let kinds: Vec<_> = events.iter().map(|event| event.body["event_type"].as_str().unwrap_or_default()).collect();
        assert_eq!((kinds.first(), kinds.last()), (Some(&"call_initiated"), Some(&"call_ended")), "{session}");
    }
    for report in reports {
        let answered = report.utterances.iter().filter(|said| said.response_ms.is_some_and(|ms| said.until_ms + ms + SETTLED_MS < report.duration_ms)).count();
        let heard =
            by_session.get(&format!("phone-{}", report.call_sid)).into_iter().flatten().filter(|event| event.body["data"]["speaker"] == "tenant").count();
        assert!(heard >= answered, "{}: {answered} lines were answered and {heard} are told of", report.call_sid);
    }
}
