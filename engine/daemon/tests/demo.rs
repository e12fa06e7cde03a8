//! `voiced demo`, as a newcomer runs it.

use std::process::Command;

use serde_json::Value;

#[test]
fn the_demo_holds_a_spoken_dialogue_with_a_barge_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let (out, json) = (folder.path().join("out"), folder.path().join("demo.json"));
    let demo = Command::new(env!("CARGO_BIN_EXE_voiced")).arg("demo").arg("--out").arg(&out).arg("--json").arg(&json).output().expect("voiced runs");
    let told = String::from_utf8_lossy(&demo.stdout);
    assert!(demo.status.success(), "{told}{}", String::from_utf8_lossy(&demo.stderr));

    let outcome: Value = serde_json::from_slice(&std::fs::read(&json).expect("a file")).expect("JSON");
    let list = |key: &str| outcome[key].as_array().cloned().unwrap_or_default();
    let answered = list("turns").iter().filter(|turn| turn["caller"].is_string() && turn["agent"].is_string() && turn["response_ms"].is_u64()).count();
    assert!(answered >= 3, "{outcome:#}");
    assert!(list("barge_ins").iter().any(|cut| cut["clear_ms"].is_u64()), "{outcome:#}");
    let events = list("events");
    assert_eq!(events.first().map(|event| &event["event_type"]), Some(&Value::from("call_initiated")));
    assert_eq!(events.last().map(|event| &event["event_type"]), Some(&Value::from("call_ended")));
    let recording = outcome["recording"].as_str().expect("a path");
    assert_eq!(hound::WavReader::open(recording).expect("a WAV").spec().channels, 2);
}
