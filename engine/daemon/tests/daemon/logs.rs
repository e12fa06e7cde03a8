//! What the daemon logs of a call at `info`: its story in a handful of lines, each to be found by the call's id.

use serde_json::Value;
use voiced_lab::providers::Script;

use crate::caller::{call, conversation};
use crate::host::Host;
use crate::{story, until};

const LINES: [&str; 2] = ["My kitchen sink is leaking.", "It is in the kitchen."];
/// Of a call with two turns: taken, stream, greeting; of each turn the words of both and when it was answered; ended twice.
const LINES_MAX: usize = 12;

/// What is logged from a call of two turns to its end.
async fn lines_of_a_call(settings: &[(&str, &str)]) -> (String, Vec<String>) {
    let host = Host::start(Script::default(), settings).await;
    let begun = host.log().lines().count();
    let call_sid = call(&host.phone(), conversation(&LINES)).await.call_sid;
    story::of(&host, &call_sid).await;
    until("the log tells both ends", async || ["call ended", "stream ended"].iter().all(|end| host.log().contains(end))).await;
    (call_sid, host.log().lines().skip(begun).map(str::to_owned).collect())
}

#[tokio::test]
async fn a_call_is_a_handful_of_lines_with_its_id_and_turns() {
    let (call_sid, lines) = lines_of_a_call(&[]).await;
    let told = lines.join("\n");
    assert!(lines.len() <= LINES_MAX, "{} lines:\n{told}", lines.len());
    assert!(lines.iter().all(|line| line.contains(&call_sid)), "whose line is it?\n{told}");
    let turn = |line: &str| line.split(" turn=").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse::<u32>().ok());
    let of = |what: &str| -> Vec<Option<u32>> { lines.iter().filter(|line| line.contains(what)).map(|line| turn(line)).collect() };
    let (caller, agent, answered) = (of("speaker=Tenant"), of("speaker=Agent"), of(" answered "));
    assert!(caller.len() == 2 && caller[0] < caller[1] && caller.iter().all(Option::is_some), "{caller:?}\n{told}");
    assert_eq!((&agent[1..], &answered), (&caller[..], &caller), "a turn's lines have its number\n{told}");
}

#[tokio::test]
async fn as_json_each_line_is_an_object_with_the_same_names() {
    let (call_sid, lines) = lines_of_a_call(&[("VOICED_LOG_JSON", "true")]).await;
    let objects: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    assert!(objects.iter().all(|object| object["level"] == "INFO" && object["timestamp"].is_string()), "{objects:#?}");
    let said = objects.iter().filter(|object| object["message"] == "said" && object["speaker"] == "Tenant");
    let said: Vec<_> = said.map(|object| (object["session"].as_str().unwrap_or_default().to_owned(), object["turn"].is_u64())).collect();
    assert_eq!(said, vec![(format!("phone-{call_sid}"), true); 2], "{objects:#?}");
}
