//! Providers in a chain: one that goes wrong in the middle of a call is left, and the caller's words and the agent's
//! answer are whole all the same.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use voiced_lab::phone::{Outcome, PhoneEvent};
use voiced_lab::providers::{Answer, Fake, FakeProviders, Fault, Latency, Script};

use crate::caller::{call, conversation};
use crate::host::{AUTH_TOKEN, Host};
use crate::proxy::{Certificate, Proxy};
use crate::story::{self, Story};
use crate::stranger;
use crate::until;

const ANSWER: &str = "Thank you. The plumber will come to your house at nine tomorrow morning.";
const LINE: &str = "My kitchen sink is leaking.";
const STT: (&str, &str) = ("VOICED_AGENT__STT", "deepgram/nova-3:en, local/whisper-tiny.en");
const LLM: (&str, &str) = ("VOICED_AGENT__LLM", "openai/gpt-4o-mini, local/script");
const TTS: (&str, &str) = ("VOICED_AGENT__TTS", "cartesia/sonic-3:lab, local/piper");

async fn host(chain: (&str, &str)) -> Host {
    let agent = |_: &serde_json::Value| Answer::text(ANSWER);
    Host::start(Script { agent: Arc::new(agent), ..Script::default() }, &[chain]).await
}

#[tokio::test]
async fn speech_to_text_that_goes_wrong_loses_no_word_the_caller_has_said() {
    for fault in [Fault::HalfOpen, Fault::ServerError] {
        let host = host(STT).await;
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
        let host = host(LLM).await;
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
        let host = host(TTS).await;
        host.fakes.cartesia.fault.set(fault);
        let report = call(&host.phone(), conversation(&[LINE])).await;
        let story = story::of(&host, &report.call_sid).await;
        assert_eq!(story.agent(), ["Hello.", ANSWER], "{fault:?}");
    }
}

/// How the first provider of a chain goes wrong.
#[derive(Clone, Debug)]
enum Way {
    Fault(Fault),
    /// Its address leads nowhere, or to a server that speaks no TLS.
    At(String),
}

/// The ways that are not in the tests above.
fn ways(faults: &[Fault], plain: &str) -> Vec<Way> {
    let addresses = ["http://nobody.invalid".to_owned(), plain.replace("http:", "https:")];
    faults.iter().map(|&fault| Way::Fault(fault)).chain(addresses.into_iter().map(Way::At)).collect()
}

/// Calls with one line at once, some at a time, each with a host of its own whose provider goes wrong in one way.
async fn told_each(chain: (&str, &str), address: &str, fake: fn(&Host) -> &Fake, ways: Vec<Way>, check: fn(&Way, &Story)) {
    let calls = ways.into_iter().map(async |way| {
        let answer = |_: &serde_json::Value| Answer::text(ANSWER);
        let elsewhere = if let Way::At(url) = &way { Some((address, url.as_str())) } else { None };
        let settings: Vec<_> = std::iter::once(chain).chain(elsewhere).collect();
        let host = Host::start(Script { agent: Arc::new(answer), ..Script::default() }, &settings).await;
        if let Way::Fault(fault) = way {
            fake(&host).fault.set(fault);
        }
        let report = call(&host.phone(), conversation(&[LINE])).await;
        assert_eq!(report.outcome, Outcome::CallerHungUp, "{way:?}");
        check(&way, &story::of(&host, &report.call_sid).await);
    });
    stream::iter(calls).buffer_unordered(CALLS_AT_ONCE).collect::<()>().await;
}

/// As many as a small machine has voices and ears for.
const CALLS_AT_ONCE: usize = 3;

#[tokio::test]
async fn however_a_provider_goes_wrong_the_next_of_its_chain_makes_up_for_it() {
    use Fault::{DiesMidReply, Drips, Garbage, HalfOpen, NeverAnswers, ServerError, StallsMidReply, TooManyRequests, Unavailable, WrongContentType};
    let plain = FakeProviders::start(Latency::default(), Script::default()).await.expect("ports");
    let plain = &plain.deepgram.base_url;
    let heard = |way: &Way, story: &Story| {
        let said = story.said();
        let line = said.iter().find(|(speaker, _)| *speaker == "tenant").map(|(_, text)| text.to_lowercase()).unwrap_or_default();
        assert!(line.contains("kitchen") && line.contains("leaking"), "{way:?}: {said:?}");
    };
    let faults = [Garbage, WrongContentType, TooManyRequests, Unavailable(30), DiesMidReply, StallsMidReply, NeverAnswers, Drips];
    told_each(STT, "DEEPGRAM_BASE_URL", |host| &host.fakes.deepgram, ways(&faults, plain), heard).await;

    let answered = |way: &Way, story: &Story| {
        let agent = story.agent();
        assert!(agent.len() == 2 && !agent[1].contains("something went wrong"), "{way:?}: {agent:?}");
    };
    let faults = [Garbage, WrongContentType, Unavailable(30), HalfOpen, Drips, DiesMidReply, StallsMidReply];
    told_each(LLM, "OPENAI_BASE_URL", |host| &host.fakes.openai_chat, ways(&faults, plain), answered).await;

    // the caller may cut into a greeting that drips
    let spoken = |way: &Way, story: &Story| assert_eq!(story.agent().last(), Some(&ANSWER), "{way:?}");
    let faults = [Garbage, WrongContentType, HalfOpen, Drips, ServerError, TooManyRequests, Unavailable(30)];
    told_each(TTS, "CARTESIA_BASE_URL", |host| &host.fakes.cartesia, ways(&faults, plain), spoken).await;
}

#[tokio::test]
async fn nobody_waits_until_a_provider_may_be_asked_again_where_another_can_take_over() {
    let host = host(STT).await;
    host.fakes.deepgram.fault.set(Fault::Unavailable(2));
    let report = call(&host.phone(), conversation(&[LINE])).await;
    assert_whole(&story::of(&host, &report.call_sid).await, 1);
    assert_eq!(host.fakes.deepgram.seen().borrow().requests, 1);
}

const ROLES: [&str; 3] = ["stt deepgram/nova-3:en", "llm openai/gpt-4o-mini", "tts cartesia/sonic-3:lab"];

/// A host whose providers are elsewhere, behind these proxies, and are each followed by a local one.
async fn host_behind(proxies: &[Proxy; 3], settings: &[(&str, &str)]) -> Host {
    let [stt, llm, tts] = proxies;
    let own = [STT, LLM, TTS, ("DEEPGRAM_BASE_URL", stt.url()), ("OPENAI_BASE_URL", llm.url()), ("CARTESIA_BASE_URL", tts.url())];
    Host::start(Script::default(), &[&own[..], settings].concat()).await
}

async fn providers_elsewhere() -> FakeProviders {
    let agent = |_: &serde_json::Value| Answer::text(ANSWER);
    FakeProviders::start(Latency::default(), Script { agent: Arc::new(agent), ..Script::default() }).await.expect("ports")
}

fn proxies_before(fakes: &FakeProviders, certificate: Option<&Certificate>) -> [Proxy; 3] {
    [&fakes.deepgram, &fakes.openai_chat, &fakes.cartesia].map(|fake| Proxy::before(&fake.base_url, certificate))
}

fn set_up(proxies: &[Proxy; 3], up: bool) {
    for proxy in proxies {
        proxy.set_up(up);
    }
}

#[tokio::test]
async fn providers_that_restart_amid_a_call_cost_it_nothing_and_serve_again_once_they_are_back() {
    let fakes = providers_elsewhere().await;
    let proxies = proxies_before(&fakes, None);
    let host = host_behind(&proxies, &[]).await;
    let state = async |role: &str| host.metric(&format!("voiced_provider_state{{provider=\"{role}\"}}")).await;
    let all_go = |_: u64, event: PhoneEvent<'_>| {
        if matches!(event, PhoneEvent::CallerStarted(_)) {
            set_up(&proxies, false);
        }
    };
    let report = host.phone().call(conversation(&[LINE, LINE]), &all_go).await.expect("a call");
    let story = story::of(&host, &report.call_sid).await;
    assert_eq!(report.outcome, Outcome::CallerHungUp);
    assert_whole(&story, 2);
    let agent = story.agent();
    assert!(agent.len() == 3 && agent.iter().all(|text| *text != ANSWER && !text.contains("something went wrong")), "{agent:?}");
    // speech to text is left for good in that call: its second failure is the next one's
    call(&host.phone(), conversation(&[])).await;
    for role in ROLES {
        assert_eq!(state(role).await, 2, "{role}");
    }
    set_up(&proxies, true);
    until("a call is served as before", async || {
        let report = call(&host.phone(), conversation(&[LINE])).await;
        let story = story::of(&host, &report.call_sid).await;
        let mut all_well = story.agent() == ["Hello.", ANSWER];
        for role in ROLES {
            all_well &= state(role).await == 0;
        }
        all_well
    })
    .await;
}

#[tokio::test]
async fn a_provider_is_left_for_the_next_where_nobody_vouches_for_its_certificate() {
    let certificate = Certificate::new();
    let trusted = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(trusted.path(), &certificate.pem).expect("a file");
    let trust = ("SSL_CERT_FILE", trusted.path().to_str().expect("a path in UTF-8"));
    for (trusts, settings) in [(false, &[][..]), (true, &[trust])] {
        let fakes = providers_elsewhere().await;
        let proxies = proxies_before(&fakes, Some(&certificate));
        let host = host_behind(&proxies, settings).await;
        let report = call(&host.phone(), conversation(&[LINE])).await;
        let story = story::of(&host, &report.call_sid).await;
        assert_eq!(story.agent().get(1) == Some(&ANSWER), trusts, "{:?}", story.said());
        if !trusts {
            assert_whole(&story, 1);
        }
        for fake in [&fakes.deepgram, &fakes.openai_chat, &fakes.cartesia] {
            assert_eq!(fake.seen().borrow().requests > 0, trusts, "{}", fake.base_url);
        }
    }
}

/// The caller's lines were heard whole by somebody who understands speech, and each was answered.
fn assert_whole(story: &Story, lines: usize) {
    let said = story.said();
    let heard: Vec<_> = said.iter().filter(|(speaker, _)| *speaker == "tenant").map(|(_, text)| text.to_lowercase()).collect();
    assert!(heard.len() == lines && heard.iter().all(|text| text.contains("kitchen") && text.contains("leaking")), "{said:?}");
    assert_eq!(story.agent().len(), lines + 1, "{said:?}");
}

#[tokio::test]
async fn while_it_rings_the_voices_and_the_models_connections_are_made_and_the_call_begins_on_them() {
    let host = host(("VOICED_AGENT__GREETING", "Hello.")).await;
    let (voice, model) = (host.fakes.cartesia.seen(), host.fakes.openai_chat.seen());
    stranger::post(&host, "/twilio/voice", &[("CallSid", "CA1"), ("From", "+15550001111")], AUTH_TOKEN).await;
    until("connections without a call", async || (voice.borrow().connections, model.borrow().connections) == (1, 1)).await;
    assert_eq!((voice.borrow().requests, model.borrow().requests), (0, 0));
    let report = call(&host.phone(), conversation(&[LINE])).await;
    assert_eq!(story::of(&host, &report.call_sid).await.agent(), ["Hello.", ANSWER]);
    assert_eq!((voice.borrow().connections_at_first, model.borrow().connections_at_first), (1, 1));
}

/// Longest quiet, in ms: 2 s are promised, the rest is a busy machine's.
const QUIET_MS_MAX: u64 = 2_500;

#[tokio::test]
async fn the_caller_is_not_left_in_silence_while_a_provider_is_changed() {
    type OfHost = fn(&Host) -> &Fake;
    let (stt, llm, tts): (OfHost, OfHost, OfHost) = (|host| &host.fakes.deepgram, |host| &host.fakes.openai_chat, |host| &host.fakes.cartesia);
    let slowest = [(STT, stt, Fault::StallsMidReply), (STT, stt, Fault::Drips), (LLM, llm, Fault::HalfOpen), (TTS, tts, Fault::HalfOpen)];
    let calls = slowest.into_iter().map(async |(chain, fake, fault)| {
        let host = host(chain).await;
        fake(&host).fault.set(fault);
        let report = call(&host.phone(), conversation(&[LINE])).await;
        let quiet_ms = report.longest_quiet_ms(0);
        assert!(quiet_ms.is_some_and(|quiet_ms| quiet_ms <= QUIET_MS_MAX), "{chain:?} {fault:?}: {quiet_ms:?}");
    });
    stream::iter(calls).buffer_unordered(CALLS_AT_ONCE).collect::<()>().await;
}
