//! The outbox on a disk that misbehaves: nothing that was handed over is dropped, and whoever runs it is told.

mod event;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use event::{LIMIT, said, until};
use rusqlite::Connection;
use voiced_core::event::{CallEvent, CallEventKind};
use voiced_events::deliver::unix_ms;
use voiced_events::outbox::{Outbox, State, Store};

fn open(file: &Path) -> Outbox {
    let outbox = Outbox::open(file, &["ema"]).unwrap();
    tokio::spawn(outbox.clone().watch(Duration::from_millis(20)));
    outbox
}

/// What is on disk, in order.
async fn stored(outbox: &Outbox) -> Vec<CallEvent> {
    outbox.with(|store| store.list(false, LIMIT).unwrap_or_default().into_iter().map(|entry| entry.event).collect()).await.unwrap()
}

/// Damaged stores that lie in the folder, without their logs.
fn aside(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains(".damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm")).count()
}

#[tokio::test]
async fn while_another_holds_the_lock_events_wait_in_memory_and_then_go_to_disk_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    let outbox = open(&file);
    assert!(outbox.record(said("CA1", 0)).await);
    let other = Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for number in 1..40 {
        assert!(!outbox.record(said("CA1", number)).await, "nothing is called safe that is not");
    }
    assert_eq!(outbox.health().unwritten(), 39);
    assert!(outbox.health().trouble().unwrap().contains("locked"), "{:?}", outbox.health().trouble());
    assert_eq!(outbox.with(|store| store.next_sequence("CA1").unwrap()).await.unwrap(), 40, "what waits is counted");
    other.execute_batch("COMMIT").unwrap();
    until("all on disk", async || outbox.health().unwritten() == 0).await;
    let numbers: Vec<_> = stored(&outbox).await.into_iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>());
    assert_eq!((outbox.health().trouble(), outbox.health().lost()), (None, 0));
}

#[tokio::test]
async fn a_token_that_was_used_while_no_store_could_be_opened_stays_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    std::fs::create_dir(&file).unwrap(); // nothing can be opened there
    let outbox = open(&file);
    let first_use = async |token: &'static str| outbox.with(move |store| store.use_once(token, 100, 50).unwrap()).await.unwrap();
    assert!(first_use("in memory").await);
    std::fs::remove_dir(&file).unwrap();
    until("a store on disk", async || file.is_file() && outbox.health().trouble().is_none()).await;
    assert!(!first_use("in memory").await && first_use("on disk").await);
}

#[tokio::test]
async fn beyond_what_memory_holds_events_are_counted_as_lost() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    let outbox = open(&file);
    let other = Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for number in 0..20_010 {
        outbox.record(said("CA1", number)).await;
    }
    assert_eq!((outbox.health().unwritten(), outbox.health().lost()), (20_000, 10));
}

#[tokio::test]
async fn a_store_that_is_damaged_at_the_start_is_set_aside_and_what_can_be_read_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    let mut store = Store::open(&file, &["ema"]).unwrap();
    store.claim().unwrap();
    let events: Vec<_> = (0..2_000).map(|number| said(&format!("CA{:03}", number / 10), number % 10)).collect();
    store.record(events.iter()).unwrap();
    let first = store.due("ema", 1, 1, 1).unwrap().remove(0);
    store.sent(&first).unwrap();
    assert!(store.use_once("a token", 100, 50).unwrap());
    drop(store); // the last connection: all is in the file, its log is gone
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2 / 4_096 * 4_096;
    bytes[middle..middle + 8 * 4_096].fill(0xA5);
    std::fs::write(&file, bytes).unwrap();

    let outbox = open(&file);
    assert_eq!(outbox.health().set_aside(), 1);
    let kept = outbox.with(|store| store.list(false, LIMIT).unwrap()).await.unwrap();
    let (ends, kept): (Vec<_>, Vec<_>) = kept.into_iter().partition(|entry| matches!(entry.event.kind, CallEventKind::CallEnded { .. }));
    assert!((1_000..2_000).contains(&kept.len()), "{}", kept.len());
    let calls: BTreeSet<_> = kept.iter().map(|entry| &entry.event.session_id).collect();
    assert!(ends.iter().map(|entry| &entry.event.session_id).eq(calls), "the calls of a process that is no more are ended, each once");
    assert_eq!(kept[0].state, State::Sent, "what was delivered is not delivered again");
    assert!(!outbox.with(|store| store.use_once("a token", 100, 50).unwrap()).await.unwrap(), "nor is a token taken again");
    assert!(kept[1..].iter().all(|entry| entry.state == State::Pending));
    assert_eq!(aside(folder.path()), 1, "the damaged store is there for whoever wants to look");
    assert!(outbox.record(said("CA9", 99)).await);
}

#[tokio::test]
async fn a_store_that_is_no_store_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    std::fs::write(&file, "this is not a database, and it is long enough to be taken for one: ".repeat(200)).unwrap();
    let outbox = open(&file);
    assert!(outbox.record(said("CA1", 0)).await);
    assert_eq!((stored(&outbox).await.len(), outbox.health().set_aside()), (1, 1));
}

#[tokio::test]
async fn a_store_that_is_damaged_while_running_is_begun_anew_once_and_no_event_since_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    let outbox = open(&file);
    let before: Vec<_> = (0..2_000).map(|number| said(&format!("CA{number}"), 0)).collect();
    outbox.with(move |store| store.record(before.iter()).unwrap()).await.unwrap();
    // more than is kept in memory: where the next event goes has to be read from the file
    assert_eq!(stored(&outbox).await.len(), 2_000);
    for part in ["events.db", "events.db-wal"] {
        let path = folder.path().join(part);
        let len = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        std::fs::write(path, vec![0xA5; len as usize]).unwrap();
    }
    for number in 10..20 {
        outbox.record(said("CA1", number)).await;
    }
    until("the damage is noticed", async || outbox.health().set_aside() > 0).await;
    until("all on disk", async || outbox.health().unwritten() == 0 && outbox.health().trouble().is_none()).await;
    let numbers: Vec<_> = stored(&outbox).await.into_iter().map(|event| event.sequence).collect();
    assert!(numbers.ends_with(&(10..20).collect::<Vec<_>>()), "{numbers:?}");
    assert_eq!((outbox.health().set_aside(), aside(folder.path())), (1, 1));
    assert!(outbox.record(said("CA1", 20)).await);
    assert_eq!(outbox.with(|store| store.due("ema", 1, 1, 1).unwrap().len()).await.unwrap(), 1, "it is this process that delivers them");
}

#[tokio::test(start_paused = true)]
async fn what_was_delivered_and_is_old_is_forgotten_every_hour_and_what_is_owed_never() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    let events = |calls: std::ops::Range<u32>, at_unix_ms| -> Vec<_> {
        let ended = CallEventKind::CallEnded { duration_seconds: 0.0, total_turns: 0, final_stage: String::new(), reason: String::new() };
        calls.map(|call| CallEvent { at_unix_ms, kind: ended.clone(), ..said(&format!("CA{call}"), 0) }).collect()
    };
    let mut owing = Store::open(&file, &["ema"]).unwrap();
    owing.record(events(0..1, 1).iter()).unwrap();
    // owed to nobody, so delivered everywhere
    let outbox = Outbox::open(&file, &[]).unwrap();
    let young = events(1..2, unix_ms());
    outbox.with(move |store| store.record(young.iter()).unwrap()).await.unwrap();
    tokio::spawn(outbox.clone().watch(Duration::from_mins(1)));
    let look = Connection::open(&file).unwrap();
    let count = || look.query_row("SELECT COUNT(*) FROM events", [], |row| row.get::<_, i64>(0)).unwrap();
    for _ in 0..2 {
        let old = events(2..1_200, 1);
        outbox.with(move |store| store.record(old.iter()).unwrap()).await.unwrap();
        let minute = async || {
            tokio::time::sleep(Duration::from_mins(1)).await;
            outbox.with(|_| ()).await.unwrap();
        };
        until("the owed and the young one are left", async || {
            minute().await;
            count() == 2
        })
        .await;
        for _ in 0..10 {
            minute().await; // the search comes to its end
        }
    }
}

#[tokio::test]
async fn what_waits_for_a_sink_that_is_not_configured_is_not_counted_and_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    let mut store = Store::open(&file, &["ema"]).unwrap();
    store.record([said("CA1", 0), said("CA1", 1)].iter()).unwrap();
    let mut store = Store::open(&file, &["file"]).unwrap();
    store.record([said("CA1", 2)].iter()).unwrap();
    assert_eq!(store.owed(10).unwrap(), 1);
    assert_eq!(Store::open(&file, &["ema", "file"]).unwrap().owed(10).unwrap(), 3, "owed again once it is configured");
}

#[tokio::test]
async fn two_events_of_one_number_are_both_kept() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = open(&folder.path().join("events.db"));
    let (one, other) = (said("CA1", 0), CallEvent { at_unix_ms: 7, ..said("CA1", 0) });
    for event in [&one, &other, &one] {
        assert!(outbox.record(event.clone()).await);
    }
    let numbers: Vec<_> = stored(&outbox).await.into_iter().map(|event| (event.sequence, event.at_unix_ms)).collect();
    assert_eq!(numbers, [(0, one.at_unix_ms), (1, 7)]);
}
