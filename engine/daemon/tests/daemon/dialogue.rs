//! What a caller meets who says nothing, and what is reported of one who talks with a language model.

use std::sync::Arc;

use voiced_lab::phone::{Outcome, Step};
use voiced_lab::providers::{Answer, Script};

use crate::caller::{call, conversation, script};
use crate::host::Host;
use crate::story;

#[tokio::test]
async fn a_silent_caller_is_asked_twice_and_then_hung_up_on() {
    let settings =
        [("VOICED_TURN__SILENCE_MS", "600"), ("VOICED_AGENT__SILENCE_PROMPTS", r#"["Still there?", "Hello again?"]"#), ("VOICED_AGENT__GOODBYE", "Goodbye.")];
    let host = Host::start(Script::default(), &settings).await;
    let report = call(&host.phone(), script([Step::Wait { ms: 40_000 }])).await;
    assert_eq!(report.outcome, Outcome::AgentHungUp);
    let story = story::of(&host, &report.call_sid).await;
    assert_eq!(story.agent(), ["Hello.", "Still there?", "Hello again?", "Goodbye."]);
    assert_eq!(story.said().len(), 4, "{:?}", story.said());
    assert_eq!(host.metric("voiced_calls_ended_total{reason=\"idle\"}").await, 1);
}

#[tokio::test]
async fn the_stage_that_a_model_sets_by_its_tool_stands_in_the_events() {
    let to = |request: &serde_json::Value| {
        let asked = request["messages"].to_string();
        let stage = if asked.contains("line 1") { "address" } else { "issue" };
        Answer { text: "Thank you, noted.".into(), stage: Some(stage.into()), hang_up: false, ..Answer::default() }
    };
    let caller = |_: usize, utterance: usize| format!("line {utterance} of what I say");
    let host = Host::start(Script { caller: Arc::new(caller), agent: Arc::new(to), ..Script::default() }, &[]).await;
    let report = call(&host.phone(), conversation(&["My kitchen sink is leaking.", "It is in the kitchen."])).await;
    assert_eq!(report.outcome, Outcome::CallerHungUp);
    let story = story::of(&host, &report.call_sid).await;
    let expected = [("agent", "welcome"), ("tenant", "welcome"), ("agent", "issue"), ("tenant", "issue"), ("agent", "address")];
    assert_eq!(story.stages(), expected, "{:?}", story.said());
    assert_eq!(story.final_stage(), "address");
}
