//! Providers in a chain: one that goes wrong in the middle of a call is left, and the caller's words and the agent's
//! answer are whole all the same.

use std::sync::Arc;

use voiced_lab::phone::Outcome;
use voiced_lab::providers::{Answer, Fault, Script};

use crate::caller::{call, conversation};
use crate::host::Host;
use crate::story;
use crate::until;

const ANSWER: &str = "Thank you. The plumber will come to your house at nine tomorrow morning.";
const LINE: &str = "My kitchen sink is leaking.";

async fn host(chain: (&str, &str)) -> Host {
    let agent = |_: &serde_json::Value| Answer::text(ANSWER);
    Host::start(Script { agent: Arc::new(agent), ..Script::default() }, &[chain]).await
}

#[tokio::test]
async fn speech_to_text_that_goes_wrong_loses_no_word_the_caller_has_said() {
    for fault in [Fault::HalfOpen, Fault::ServerError] {
        let host = host(("VOICED_AGENT__STT", "deepgram/nova-3:en, local/whisper-tiny.en")).await;
        host.fakes.deepgram.fault.set(fault);
        let report = call(&host.phone(), conversation(&[LINE, LINE])).await;
        let story = story::of(&host, &report.call_sid).await;
        assert_eq!(report.outcome, Outcome::CallerHungUp);
        let heard: Vec<_> = story.said().into_iter().filter(|(speaker, _)| *speaker == "tenant").map(|(_, text)| text.to_lowercase()).collect();
        assert!(heard.len() == 2 && heard.iter().all(|text| text.contains("kitchen") && text.contains("leaking")), "{fault:?} {heard:?}");
        assert_eq!(host.metric("voiced_stt_switched_total").await, 1, "the rest of the call stays with who hears");
    }
}

#[tokio::test]
async fn a_model_that_goes_wrong_is_answered_for_by_the_next_and_left_alone_by_later_calls() {
    for fault in [Fault::ServerError, Fault::NeverAnswers, Fault::TooManyRequests] {
        let host = host(("VOICED_AGENT__LLM", "openai/gpt-4o-mini, local/script")).await;
        host.fakes.openai_chat.fault.set(fault);
        let report = call(&host.phone(), conversation(&[LINE, LINE])).await;
        let story = story::of(&host, &report.call_sid).await;
        let agent = story.agent();
        assert!(agent.len() == 3 && agent.iter().all(|text| !text.contains("something went wrong")), "{fault:?} {agent:?}");
        assert_eq!(host.metric("voiced_provider_state{provider=\"llm openai/gpt-4o-mini\"}").await, 2, "{fault:?}");
        let asked = host.fakes.openai_chat.seen().borrow().requests;
        call(&host.phone(), conversation(&[LINE])).await;
        assert!(host.fakes.openai_chat.seen().borrow().requests <= asked + 1, "a probe at most");
    }
}

#[tokio::test]
async fn a_voice_that_goes_wrong_in_the_middle_of_a_reply_is_followed_by_the_next() {
    for fault in [Fault::DiesMidReply, Fault::StallsMidReply, Fault::NeverAnswers] {
        let host = host(("VOICED_AGENT__TTS", "cartesia/sonic-3:lab, local/piper")).await;
        host.fakes.cartesia.fault.set(fault);
        let report = call(&host.phone(), conversation(&[LINE])).await;
        let story = story::of(&host, &report.call_sid).await;
        assert_eq!(story.agent(), ["Hello.", ANSWER], "{fault:?}");
    }
}

#[tokio::test]
async fn the_voices_connection_is_there_before_the_greeting_is_said() {
    let host = host(("VOICED_AGENT__GREETING", "Hello.")).await;
    let report = call(&host.phone(), conversation(&[])).await;
    story::of(&host, &report.call_sid).await;
    // one that was opened while it rang, and the greeting on it
    until("one connection was enough", async || host.fakes.cartesia.seen().borrow().completed == 1).await;
    assert_eq!(host.fakes.cartesia.seen().borrow().requests, 1);
}
