//! Tools of the operator's own: what a language model has done for the caller, and what becomes of it when they fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use voiced_lab::phone::{Outcome, Step};
use voiced_lab::providers::tool::ToolServer;
use voiced_lab::providers::{Answer, Fault, Script};

use crate::caller::{call, conversation, listen, say, script};
use crate::host::Host;
use crate::story;
use crate::until;

const LINE: &str = "My kitchen sink is leaking.";

/// What the last message of a request is, when it is a tool's.
fn told(request: &Value) -> Option<&str> {
    let last = request["messages"].as_array()?.last()?;
    (last["role"] == "tool").then(|| last["content"].as_str()).flatten()
}

/// A model that calls `book` with these arguments at the first question of a call, and says what it was told.
fn books(arguments: &'static str) -> Script {
    let agent = move |request: &Value| match told(request) {
        Some(text) if text.contains("error") => Answer::text("I could not book that, sorry."),
        Some(text) => {
            Answer::text(format!("You are booked for {}.", serde_json::from_str::<Value>(text).unwrap_or_default()["at"].as_str().unwrap_or("nothing")))
        }
        None if request["messages"].to_string().contains("booked") || request["messages"].to_string().contains("could not") => Answer::text("Goodbye for now."),
        None => Answer::call("book", arguments),
    };
    Script { agent: Arc::new(agent), ..Script::default() }
}

async fn host(server: &ToolServer, script: Script) -> Host {
    let tool = format!(
        r#"[{{ name = "book", description = "Books a plumber.", url = "{}", timeout_ms = 4000, headers = {{ Authorization = "Bearer ${{CRM_TOKEN}}" }},
            parameters = {{ type = "object", required = ["day"], properties = {{ day = {{ type = "string" }} }} }} }}]"#,
        server.tool.url()
    );
    Host::start(script, &[("VOICED_AGENT__TOOLS", &tool.replace('\n', " ")), ("CRM_TOKEN", "key-of-the-crm")]).await
}

#[tokio::test]
async fn what_a_tool_answers_is_spoken_recorded_and_the_same_when_run_again() {
    let server = ToolServer::start(json!({"at": "nine on Tuesday"})).await.expect("a port");
    let host = host(&server, books(r#"{"day":"Tuesday"}"#)).await;
    let report = call(&host.phone(), conversation(&[LINE, LINE])).await;
    let story = story::of(&host, &report.call_sid).await;
    assert_eq!(report.outcome, Outcome::CallerHungUp);
    assert_eq!(story.agent(), ["Hello.", "You are booked for nine on Tuesday.", "Goodbye for now."]);
    let called = server.tool.called();
    assert_eq!(called.len(), 1, "{called:?}");
    assert_eq!((&called[0].body["arguments"]["day"], &called[0].body["call_sid"]), (&json!("Tuesday"), &json!(report.call_sid)));
    assert_eq!(called[0].authorization.as_deref(), Some("Bearer key-of-the-crm"));
    assert!(called[0].idempotency_key.as_deref().is_some_and(|key| key.contains(&report.call_sid)));
    assert_eq!(host.metric("voiced_tool_calls_total{tool=\"book\",outcome=\"ok\"}").await, 1);
    let replay = || String::from_utf8_lossy(&host.voiced(&["calls", "replay", &report.call_sid]).stdout).into_owned();
    until("the record is whole", async || replay().contains("the same decisions")).await;
    assert!(replay().contains("tool call 0 is answered"), "{}", replay());
}

#[tokio::test]
async fn a_tool_that_never_returns_costs_a_filler_and_a_sensible_sentence() {
    let server = ToolServer::start(json!({})).await.expect("a port");
    server.tool.fault.set(Fault::NeverAnswers);
    let host = host(&server, books(r#"{"day":"Tuesday"}"#)).await;
    // a caller who is patient behind the filler
    let report = call(&host.phone(), script([listen(), say(LINE), Step::Wait { ms: 9_000 }, say(LINE), listen()])).await;
    let story = story::of(&host, &report.call_sid).await;
    assert_eq!(report.outcome, Outcome::CallerHungUp);
    let agent = story.agent().join(" ");
    assert!(agent.contains("One moment.") && agent.contains("I could not book that, sorry."), "{agent}");
    assert!(agent.ends_with("Goodbye for now."), "the call goes on: {agent}");
    assert_eq!(host.metric("voiced_tool_calls_total{tool=\"book\",outcome=\"timeout\"}").await, 1);
}

#[tokio::test]
async fn arguments_that_do_not_fit_never_reach_the_tool() {
    let server = ToolServer::start(json!({"at": "nine"})).await.expect("a port");
    let host = host(&server, books(r#"{"day": 7"#)).await;
    let report = call(&host.phone(), conversation(&[LINE])).await;
    let story = story::of(&host, &report.call_sid).await;
    assert_eq!(story.agent(), ["Hello.", "I could not book that, sorry."]);
    assert!(server.tool.called().is_empty());
    assert_eq!(host.metric("voiced_tool_calls_total{tool=\"book\",outcome=\"bad_arguments\"}").await, 1);
}

#[tokio::test]
async fn no_tool_runs_for_a_guess_that_is_thrown_away() {
    let server = ToolServer::start(json!({"at": "nine"})).await.expect("a port");
    let asked = Arc::new(AtomicUsize::new(0));
    let script = books(r#"{"day":"Tuesday"}"#);
    let counting = {
        let (asked, agent) = (Arc::clone(&asked), Arc::clone(&script.agent));
        move |request: &Value| {
            asked.fetch_add(1, Ordering::Relaxed);
            agent(request)
        }
    };
    // the words change while the turn's end is open: the model is asked with each
    let caller = |_, utterance| format!("I need a plumber please number {utterance}");
    let host = host(&server, Script { agent: Arc::new(counting), caller: Arc::new(caller), caller_word_ms: 120, ..script }).await;
    let report = call(&host.phone(), conversation(&[LINE])).await;
    let story = story::of(&host, &report.call_sid).await;
    assert_eq!(story.agent(), ["Hello.", "You are booked for nine."]);
    let record: Value = serde_json::from_str(&host.get(&format!("/calls/{}", report.call_sid)).await.1).expect("a record");
    let moments = record["moments"].to_string();
    let guesses = moments.matches("asks the model, turn").count();
    assert_eq!((server.tool.called().len(), moments.matches("calls book").count()), (1, 1), "{guesses} guesses, {} questions", asked.load(Ordering::Relaxed));
}
