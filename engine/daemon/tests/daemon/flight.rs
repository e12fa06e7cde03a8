//! Calls after the fact: what was heard, decided and why, and the same decisions again from the record.

use std::process::Output;
use std::sync::Arc;

use serde_json::Value;
use voiced_lab::providers::{Answer, Fault, Script};

use crate::caller::{call, conversation, listen, say, script};
use crate::host::Host;
use crate::{story, until};
use voiced_lab::phone::Step;

/// What a command has printed.
fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const LINE: &str = "My kitchen sink is leaking.";

#[tokio::test]
async fn a_call_can_be_told_and_run_again_after_the_fact() {
    let agent = |_: &Value| Answer::text("Thank you. The plumber will come to your house at nine tomorrow morning, and will ring the bell twice.");
    let mut host = Host::start(Script { agent: Arc::new(agent), ..Script::default() }, &[("VOICED_AGENT__LLM", "openai/gpt-4o-mini, local/script")]).await;
    // the caller cuts in on the first answer, and the model fails at the second
    let report = call(&host.phone(), script([listen(), say(LINE), Step::Wait { ms: 3_500 }, say(LINE), listen()])).await;
    host.fakes.openai_chat.fault.set(Fault::ServerError);
    let other = call(&host.phone(), conversation(&[LINE])).await;
    story::of(&host, &report.call_sid).await;
    story::of(&host, &other.call_sid).await;
    let told = async |call_sid: &str| -> Value { serde_json::from_str(&host.get(&format!("/calls/{call_sid}")).await.1).unwrap_or_default() };
    until("both records are whole", async || told(&report.call_sid).await["ended"].is_string() && told(&other.call_sid).await["ended"].is_string()).await;
    let call = told(&report.call_sid).await;
    assert_eq!((&call["ended"], call["turns"].as_array().map(Vec::len)), (&Value::from("hung_up"), Some(2)), "{call:#}");
    let moments = call["moments"].as_array().expect("moments");
    let says = |text: &str| moments.iter().any(|moment| moment["what"].as_str().is_some_and(|what| what.contains(text)));
    for text in ["is over after", "it was an interruption", "answered by llm openai/gpt-4o-mini", "spoken by tts cartesia", "reports Agent", "the line is gone"]
    {
        assert!(says(text), "{text}: {call:#}");
    }
    assert_eq!(call["faults"], Value::Array(Vec::new()));
    let other_told = told(&other.call_sid).await;
    assert!(other_told["moments"].to_string().contains("answered by llm local/script"), "{other_told:#}");
    assert_eq!(host.get("/calls/CA00000000000000000000000000000000").await.0, 404);
    let list: Value = serde_json::from_str(&host.get("/calls").await.1).unwrap();
    assert_eq!((list["calls"].as_array().map(Vec::len), list["unreadable"].as_u64()), (Some(2), Some(0)), "{list:#}");

    // the record outlives the daemon
    host.kill();
    let replay = || host.voiced(&["calls", "replay", &report.call_sid]);
    let same = replay();
    assert!(same.status.success() && words(&same).contains("the same decisions"), "{}", words(&same));
    let list = words(&host.voiced(&["calls", "list"]));
    let [newest, oldest] = list.lines().collect::<Vec<_>>()[..] else { panic!("two calls are listed: {list}") };
    assert!(newest.contains(&other.call_sid) && newest.contains("hung_up") && oldest.contains(&report.call_sid), "{list}");
    let shown = words(&host.voiced(&["calls", "show", &report.call_sid]));
    for text in ["is over after", "it was an interruption", "answered by llm openai/gpt-4o-mini", "turn  over  text  model"] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    let shown = words(&host.voiced(&["calls", "show", "--json", &report.call_sid]));
    assert_eq!(serde_json::from_str::<Value>(&shown).ok(), Some(call), "what the command tells is what the host told");
    assert!(!host.voiced(&["calls", "show", "CA00000000000000000000000000000000"]).status.success());

    // and a record that was tampered with is told from one that was not
    let file = host.record_of(&report.call_sid);
    let record = std::fs::read_to_string(&file).expect("a record");
    std::fs::write(&file, record.replacen("lets turn 2", "lets turn 3", 1)).expect("a record");
    let other = replay();
    assert!(!other.status.success() && words(&other).contains("something else was decided"), "{}", words(&other));

    // half a line at the end is what a kill leaves, but one in the middle hides decisions
    std::fs::write(&file, format!("{record}{{\"at\":")).expect("a record");
    assert!(replay().status.success(), "{}", words(&replay()));
    let lines: Vec<_> = record.lines().collect();
    let (before, behind) = lines.split_at(lines.len() / 2);
    std::fs::write(&file, format!("{}\n{{\"at\":\n{}\n", before.join("\n"), behind.join("\n"))).expect("a record");
    let damaged = replay();
    let lost = behind.len() + 1;
    assert!(!damaged.status.success() && words(&damaged).contains(&format!("up to {lost} damaged lines")), "{}", words(&damaged));
    let shown = words(&host.voiced(&["calls", "show", &report.call_sid]));
    assert!(shown.contains(&format!("its last {lost} lines cannot be told")), "{shown}");

    // nor is one left out of the list without a word
    std::fs::write(&file, format!("{{\"at\n{}\n", lines[1..].join("\n"))).expect("a record");
    let list = host.voiced(&["calls", "list"]);
    assert!(!words(&list).contains(&report.call_sid) && String::from_utf8_lossy(&list.stderr).contains("its first line is damaged"), "{list:?}");
    host.restart().await;
    let list: Value = serde_json::from_str(&host.get("/calls").await.1).unwrap();
    assert_eq!((list["calls"].as_array().map(Vec::len), list["unreadable"].as_u64()), (Some(1), Some(1)), "{list:#}");
}
