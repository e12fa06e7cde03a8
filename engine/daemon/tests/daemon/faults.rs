//! Providers that go wrong cost a reply, or at worst the call, but never its orderly end.

use std::sync::Arc;

use voiced_lab::phone::{CallReport, CallScript, Outcome, PhoneEvent, Step};
use voiced_lab::providers::{Answer, Fault, Script};

use crate::caller::{call, conversation, listen, say, script};
use crate::host::Host;
use crate::story::{self, Story};
use crate::until;

const APOLOGY: &str = "Sorry, please repeat.";
const ANSWER: &str = "Thank you, this is noted.";
const FIRST: &str = "My kitchen sink is leaking.";
const AGAIN: &str = "It is in the kitchen.";

async fn host() -> Host {
    let agent = |_: &serde_json::Value| Answer::text(ANSWER);
    Host::start(Script { agent: Arc::new(agent), ..Script::default() }, &[("VOICED_AGENT__APOLOGY", APOLOGY), ("VOICED_AGENT__FILLERS", "[]")]).await
}

/// A provider goes wrong when the caller first speaks, and is well again when the caller speaks for the second time.
async fn call_with(host: &Host, script: CallScript, goes_wrong: impl Fn() + Send + Sync, is_well: impl Fn() + Send + Sync) -> (CallReport, Story) {
    let observer = |_: u64, event: PhoneEvent<'_>| match event {
        PhoneEvent::CallerStarted(FIRST) => goes_wrong(),
        PhoneEvent::CallerStarted(AGAIN) => is_well(),
        _ => {}
    };
    let report = host.phone().call(script, &observer).await.expect("a call");
    let story = story::of(host, &report.call_sid).await;
    until("the place is free again", async || host.metric("voiced_calls{thread=\"0\"}").await == 0).await;
    (report, story)
}

#[tokio::test]
async fn a_provider_that_never_answers_costs_an_apology_or_ends_the_call() {
    tokio::join!(speech_to_text_never_answers(), model(Fault::NeverAnswers), voice_never_answers());
}

#[tokio::test]
async fn a_provider_that_dies_amid_its_work_is_made_up_for() {
    tokio::join!(speech_to_text_dies(), model(Fault::DiesMidReply), voice_dies());
}

/// Nobody can be understood: the agent says so and hangs up.
async fn speech_to_text_never_answers() {
    let host = host().await;
    host.fakes.deepgram.fault.set(Fault::NeverAnswers);
    let report = call(&host.phone(), script([listen(), say(FIRST), Step::Wait { ms: 40_000 }])).await;
    let story = story::of(&host, &report.call_sid).await;
    assert_eq!(report.outcome, Outcome::AgentHungUp);
    // between them the agent may have asked whether anybody is there: it heard no word
    assert_eq!((story.agent().first(), story.agent().last()), (Some(&"Hello."), Some(&"I will hang up now. Goodbye.")));
}

/// Another connection takes over, and no word is lost.
async fn speech_to_text_dies() {
    let host = host().await;
    host.fakes.deepgram.fault.set_for(1, Fault::DiesMidReply);
    let report = call(&host.phone(), conversation(&[FIRST])).await;
    let story = story::of(&host, &report.call_sid).await;
    assert_eq!(report.outcome, Outcome::CallerHungUp);
    assert_eq!(story.agent(), ["Hello.", ANSWER]);
    assert!(host.fakes.deepgram.seen().borrow().requests > 1);
}

/// The agent apologises, behind what it has said already, and answers the next time.
async fn model(fault: Fault) {
    let host = host().await;
    let switch = &host.fakes.openai_chat.fault;
    let (report, story) = call_with(&host, conversation(&[FIRST, AGAIN]), || switch.set(fault), || switch.set(Fault::None)).await;
    assert_eq!(report.outcome, Outcome::CallerHungUp, "{fault:?}");
    let agent = story.agent();
    assert!(agent.len() == 3 && agent[1].ends_with(APOLOGY) && agent[2] == ANSWER, "{fault:?} {agent:?}");
}

/// There is no way to talk: the call ends.
async fn voice_never_answers() {
    let host = host().await;
    let silent = || host.fakes.cartesia.fault.set(Fault::HalfOpen);
    let (report, story) = call_with(&host, script([listen(), say(FIRST), Step::Wait { ms: 45_000 }]), silent, || {}).await;
    assert_eq!(report.outcome, Outcome::AgentHungUp);
    assert_eq!(story.agent(), ["Hello."], "words that were never heard are not reported");
}

/// It speaks on with another connection, behind the words that had sound.
async fn voice_dies() {
    let host = host().await;
    let dies = || host.fakes.cartesia.fault.set_for(1, Fault::DiesMidReply);
    let (report, story) = call_with(&host, conversation(&[FIRST, AGAIN]), dies, || {}).await;
    assert_eq!(report.outcome, Outcome::CallerHungUp);
    let agent = story.agent();
    assert_eq!(agent, ["Hello.", ANSWER, ANSWER]);
}
