//! Receivers that are slow, or down for long, with much waiting for them.

mod event;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Json, Router};
use event::{said, until};
use serde_json::{Value, json};
use tokio::sync::watch;
use voiced_events::deliver::{self, Backoff, DeliveryCounters, Pace};
use voiced_events::outbox::{Outbox, Store};
use voiced_events::sinks::{Sink, ema};

/// The call whose webhooks are never answered.
const STUCK: &str = "stuck";

#[derive(Clone, Default)]
struct Receiver {
    down: Arc<AtomicBool>,
    /// When, and the idempotency key.
    taken: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Receiver {
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(take).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    fn taken(&self) -> usize {
        self.taken.lock().unwrap().len()
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    if body["session_id"] == STUCK {
        std::future::pending::<()>().await;
    }
    if receiver.down.load(Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({})));
    }
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    receiver.taken.lock().unwrap().push((Instant::now(), key));
    (StatusCode::OK, Json(json!({"success": true})))
}

fn deliver(outbox: &Outbox, url: &str, backoff: Backoff, pace: Pace) -> (Arc<DeliveryCounters>, watch::Sender<bool>) {
    let (counters, (stop, stopped)) = (Arc::new(DeliveryCounters::default()), watch::channel(false));
    let sink = Arc::new(Sink::Ema(ema::Ema::new(url, "s3cret").unwrap()));
    tokio::spawn(deliver::run(outbox.clone(), sink, backoff, pace, Arc::clone(&counters), stopped));
    (counters, stop)
}

#[tokio::test]
async fn a_webhook_that_is_not_answered_holds_up_its_own_call_only() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::default();
    let outbox = Outbox::open(&folder.path().join("events.db"), &["ema"]).unwrap();
    outbox.record(said(STUCK, 0)).await;
    outbox.record(said(STUCK, 1)).await;
    let (_, _stop) = deliver(&outbox, &receiver.start().await, Backoff::default(), Pace::new(1_000));
    for number in 0..20 {
        outbox.record(said("quick", number)).await;
    }
    let begun = Instant::now();
    until("every event of the other call", async || receiver.taken() == 20).await;
    // the receiver is given up after 10 s, so none of these waited for it
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    assert_eq!(outbox.with(|store| store.owed(10).unwrap()).await.unwrap(), 2);
}

#[tokio::test]
async fn ten_thousand_events_wait_for_a_receiver_in_bounded_memory_and_go_out_in_order_at_a_limited_rate() {
    const CALLS: u32 = 500;
    const EVENTS: u32 = 20;
    const PER_SECOND: u32 = 2_000;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    let mut dead = Store::open(&file, &["ema"]).unwrap();
    dead.claim().unwrap();
    // as they happened: the calls side by side
    let events: Vec<_> = (0..EVENTS).flat_map(|number| (0..CALLS).map(move |call| said(&format!("CA{call}"), number))).collect();
    dead.record(events.iter()).unwrap();
    drop((dead, events));

    let receiver = Receiver::default();
    receiver.down.store(true, Relaxed);
    let outbox = Outbox::open(&file, &["ema"]).unwrap();
    outbox.with(|store| store.take_over().unwrap()).await.unwrap();
    let before = resident_kb();
    let backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_mins(5), attempts_max: 1_000 };
    let (counters, _stop) = deliver(&outbox, &receiver.start().await, backoff, Pace::new(PER_SECOND));
    until("many failures", async || counters.failed.load(Relaxed) > 1_000).await;
    let grown_kb = resident_kb().saturating_sub(before);
    println!("memory grew by {grown_kb} KiB while 10 000 events waited");
    // all of them would be some 10 MB as they are, and more as parsed
    assert!(grown_kb < 8_192, "{grown_kb} KiB");
    receiver.down.store(false, Relaxed);
    let begun = Instant::now();
    // 500 calls' ends were reported as well: none of them had ended
    until("all delivered", async || receiver.taken() == ((EVENTS + 1) * CALLS) as usize).await;
    println!("delivered within {:?}", begun.elapsed());

    let taken = receiver.taken.lock().unwrap();
    let mut next: BTreeMap<&str, u32> = BTreeMap::new();
    for (_, key) in taken.iter() {
        let (call, number) = key.rsplit_once('-').unwrap();
        let due = next.entry(call).or_default();
        assert_eq!(number.parse::<u32>().unwrap(), *due, "{key}");
        *due += 1;
    }
    for (at, _) in taken.iter().step_by(500) {
        let in_a_second = taken.iter().filter(|(other, _)| (*at..*at + Duration::from_secs(1)).contains(other)).count();
        // a tenth of a second's burst, and what was under way
        assert!(in_a_second as u32 <= PER_SECOND * 12 / 10, "{in_a_second}");
    }
}

/// Resident memory of this process.
fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok()).unwrap()
}
