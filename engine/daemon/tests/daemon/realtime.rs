//! A speech-to-speech model hears, answers and speaks; where it fails the chains go on.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use voiced_lab::phone::{CallReport, Outcome, PhoneEvent, Step};
use voiced_lab::providers::{Answer, Fault, Script};

use crate::caller::{call, conversation, listen, say, script, spoken};
use crate::host::Host;
use crate::story;
use crate::venue::{Venue, agent_sounds, post, reads, session};

const LINE: &str = "My kitchen sink is leaking.";
const AGAIN: &str = "It is in the kitchen.";
const LONG: &str = "I am sorry to hear that. We will send somebody who knows about sinks and pipes and taps. Where do you live please?";
const REALTIME: [(&str, &str); 2] = [("VOICED_AGENT__REALTIME", "true"), ("VOICED_AGENT__REALTIME_MODEL", "openai/gpt-realtime-2.1")];

/// What the model was asked with, each time.
type Asked = Arc<Mutex<Vec<Value>>>;

/// The model answers at length to the first line, and to what follows shortly, by its tools.
fn repairs() -> (Script, Asked) {
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    let agent = move |request: &Value| {
        let messages = request["messages"].clone();
        let is_first = !messages.to_string().contains("line 1");
        seen.lock().expect("the requests").push(messages);
        let (text, stage) = if is_first { (LONG, "issue") } else { ("Thank you, noted.", "address") };
        Answer { text: text.into(), stage: Some(stage.into()), ..Answer::default() }
    };
    // a new connection goes on where the one before was
    let caller = |stream: usize, utterance: usize| format!("line {} of what I say", stream + utterance);
    (Script { caller: Arc::new(caller), agent: Arc::new(agent), utterance_gap_ms: 800, ..Script::default() }, asked)
}

/// A call that was not answered by anybody but the realtime model.
fn heard_realtime_alone(host: &Host) {
    let seen = |fake: &voiced_lab::providers::Fake| fake.seen().borrow().requests;
    assert_eq!([seen(&host.fakes.deepgram), seen(&host.fakes.openai_chat)], [0; 2]);
}

#[tokio::test]
async fn a_realtime_model_has_a_dialogue_and_knows_only_what_was_heard() {
    let (lines, asked) = repairs();
    let host = Host::start(lines, &REALTIME).await;
    // the caller cuts in while the long answer is heard
    let over = Step::SayOver { after_agent_ms: 1_500, pcm8k: spoken(AGAIN), label: AGAIN.to_owned() };
    let steps = script([listen(), say(LINE), over, listen()]);
    let clears = Mutex::new(0);
    let observer = |_: u64, event: PhoneEvent<'_>| {
        if matches!(event, PhoneEvent::Cleared) {
            *clears.lock().expect("a count") += 1;
        }
    };
    let report: CallReport = host.phone().call(steps, &observer).await.expect("a call");
    assert_eq!(report.outcome, Outcome::CallerHungUp);
    let story = story::of(&host, &report.call_sid).await;
    let agent = story.agent();
    assert_eq!((agent.len(), agent[0], agent[2]), (3, "Hello.", "Thank you, noted."), "{agent:?}");
    assert!(!agent[1].is_empty() && LONG.starts_with(agent[1]) && agent[1].len() < LONG.len() / 2, "only what was heard: {agent:?}");
    assert_eq!(*clears.lock().expect("a count"), 1);
    let expected = [("agent", "welcome"), ("tenant", "welcome"), ("agent", "issue"), ("tenant", "issue"), ("agent", "address")];
    assert_eq!(story.stages(), expected, "{:?}", story.said());
    heard_realtime_alone(&host);

    let asked = asked.lock().expect("the requests").clone();
    let last = asked.last().and_then(Value::as_array).expect("messages");
    let of = |role: &str| -> Vec<&str> { last.iter().filter(|message| message["role"] == role).filter_map(|message| message["content"].as_str()).collect() };
    let said = of("user").join(" ");
    assert!(said.starts_with("line 0") && said.contains("line 1"), "{said}");
    let [greeting, answer] = of("assistant")[..] else { panic!("a greeting and one answer: {last:#?}") };
    assert_eq!(greeting, "Hello.");
    // a word more or less than was reported: what a word's share of the sound is, nobody tells
    assert!(!answer.is_empty() && LONG.starts_with(answer) && answer.len() < LONG.len() / 2, "{answer:?} {agent:?}");
}

#[tokio::test]
async fn a_realtime_model_that_breaks_costs_no_call_and_no_word() {
    for fault in [Fault::DiesMidReply, Fault::HalfOpen, Fault::ServerError, Fault::Garbage] {
        let (lines, _) = repairs();
        let host = Host::start(lines, &REALTIME).await;
        let breaks = |_: u64, event: PhoneEvent<'_>| {
            if matches!(event, PhoneEvent::CallerStarted(LINE)) {
                host.fakes.openai_realtime.fault.set_for(1, fault);
            }
        };
        let report = host.phone().call(conversation(&[LINE, AGAIN]), &breaks).await.expect("a call");
        let story = story::of(&host, &report.call_sid).await;
        assert_eq!(report.outcome, Outcome::CallerHungUp, "{fault:?}");
        let agent = story.agent();
        assert!(agent.len() >= 3 && agent.iter().all(|text| !text.contains("something went wrong")), "{fault:?} {:?}", story.said());
        assert_eq!(agent.last(), Some(&"Thank you, noted."), "{fault:?} {:?}", story.said());
    }
}

#[tokio::test]
async fn a_realtime_model_that_cannot_be_had_leaves_the_call_to_the_chains() {
    let (lines, _) = repairs();
    let host = Host::start(lines, &REALTIME).await;
    host.fakes.openai_realtime.fault.set(Fault::ServerError);
    let report = call(&host.phone(), conversation(&[LINE])).await;
    let story = story::of(&host, &report.call_sid).await;
    assert_eq!(story.agent(), ["Hello.", LONG]);
    assert_eq!(story.said().len(), 3, "{:?}", story.said());
}

#[tokio::test]
async fn settings_that_want_a_realtime_model_without_a_key_are_told() {
    let (lines, _) = repairs();
    let mut host = Host::start(lines, &REALTIME).await;
    host.set(&[("OPENAI_API_KEY", ""), ("OPENAI_BASE_URL", ""), ("VOICED_AGENT__LLM", "local/script")]);
    let checked = host.voiced(&["check"]);
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(said.contains("agent.realtime: openai/gpt-realtime-2.1 needs OPENAI_API_KEY"), "{said}");
}

#[tokio::test]
async fn a_job_in_a_room_may_wish_for_a_realtime_model() {
    let Some(venue) = Venue::open().await else { return };
    let (lines, _) = repairs();
    let host = venue.host(lines, &[]).await;
    let sink = venue.line(LINE);
    let wish = json!({"realtime": true, "realtime_model": "openai/gpt-realtime-2.1", "greeting": "Good day."});
    let (room, token) = session(&host, "ann", wish).await;
    let mut ann = venue.joins(token).await;
    reads(&mut ann, "Good day.").await;
    agent_sounds(&mut ann, true).await;
    agent_sounds(&mut ann, false).await;
    ann.send(&sink).expect("ann speaks");
    reads(&mut ann, "line 0").await;
    agent_sounds(&mut ann, true).await;
    reads(&mut ann, "I am sorry").await;
    ann.leave().await.expect("ann leaves");
    assert_eq!(post(&host, "/session/end", json!({ "roomName": room })).await.0, 204);
    story::of_session(&host, &format!("room-{room}")).await;
    heard_realtime_alone(&host);
}
