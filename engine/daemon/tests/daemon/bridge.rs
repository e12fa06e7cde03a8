//! A phone call in a room: people listen in, talk to the caller, whisper to the agent and take its place.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use voiced_core::codec::sample_from_mulaw;
use voiced_lab::livekit::{Command, Peer};
use voiced_lab::phone::{CallReport, Step};
use voiced_lab::providers::{Answer, Script};

use crate::caller::{call, listen, say, script};
use crate::host::Host;
use crate::story;
use crate::until;
use crate::venue::{Venue, agent_sounds, post};

/// What the model was asked, newest last.
type Asked = Arc<Mutex<Vec<String>>>;

fn listening(asked: &Asked) -> Script {
    let asked = Arc::clone(asked);
    let agent = move |request: &Value| {
        asked.lock().expect("nobody panicked").push(request["messages"].to_string());
        Answer { text: "I have written that down for you.".into(), stage: None, hang_up: false }
    };
    // the first stream is the caller's, later ones are whispers
    let said = |stream: usize, _: usize| if stream == 0 { "My kitchen sink is leaking." } else { "Offer her a discount." }.to_owned();
    Script { caller: Arc::new(said), agent: Arc::new(agent), caller_word_ms: 100, ..Script::default() }
}

/// A phone call that talks for a while, and its room.
async fn phone_call(host: &Arc<Host>, steps: Vec<Step>) -> (tokio::task::JoinHandle<CallReport>, String) {
    let calling = Arc::clone(host);
    let report = tokio::spawn(async move { call(&calling.phone(), script(steps)).await });
    let mut sid = String::new();
    until("the call is up", async || {
        sid = host.calls().await.into_iter().next().unwrap_or_default();
        !sid.is_empty()
    })
    .await;
    (report, format!("twilio-{sid}"))
}

async fn supervise(host: &Host, room: &str, identity: &str, mode: &str) {
    let (status, body) = post(host, &format!("/room/{room}/supervisor"), json!({ "identity": identity, "mode": mode })).await;
    assert!((200..300).contains(&status), "{status}: {body}");
}

async fn hears(peer: &mut Peer, who: &'static str) {
    peer.wait_for("sound", move |event| event.text("identity").starts_with(who) && event.is("on")).await.unwrap_or_else(|error| panic!("{who}: {error}"));
}

/// Mean square of the agent's channel, as the caller heard it, from one moment to another, in ms of the call.
fn heard_by_caller(report: &CallReport, from_ms: u64, to_ms: u64) -> f64 {
    let channel = &report.recording.agent;
    let part = &channel[channel.len().min(from_ms as usize * 8)..channel.len().min(to_ms as usize * 8)];
    part.iter().map(|&byte| f64::from(sample_from_mulaw(byte)).powi(2)).sum::<f64>() / part.len().max(1) as f64
}

#[tokio::test]
async fn people_in_the_room_hear_both_and_are_heard_by_the_caller() {
    let Some(venue) = Venue::open().await else { return };
    let asked = Asked::default();
    let host = Arc::new(venue.host(listening(&asked), &[("VOICED_LIVEKIT__BRIDGE_ENABLED", "true")]).await);
    let steps = vec![listen(), Step::Wait { ms: 6_000 }, say("My kitchen sink is leaking."), listen(), Step::Wait { ms: 3_000 }, Step::HangUp];
    let (report, room) = phone_call(&host, steps).await;
    let mut bob = venue.enters(venue.server.token(&room, "bob")).await;
    let caller = bob.wait_for("participant_joined", |event| event.text("kind") == "sip").await.expect("the caller is there");
    assert_eq!(caller.attribute("sip.phoneNumber"), Some("+15550001111"));
    bob.send(&venue.line("Hello, this is Bob from the office.")).expect("bob speaks");
    hears(&mut bob, "caller-").await;
    agent_sounds(&mut bob, true).await;
    let events = bob.leave().await.expect("bob leaves");
    assert!(events.iter().any(|event| event.event == "sound"));
    let report = report.await.expect("the call ends");
    // nobody but bob speaks between the greeting and the caller's line
    assert!(heard_by_caller(&report, 2_500, 6_000) > 10_000.0, "the caller heard bob");
    story::of(&host, &report.call_sid).await;
}

#[tokio::test]
async fn a_supervisor_whispers_to_the_agent_and_takes_its_place() {
    let Some(venue) = Venue::open().await else { return };
    let asked = Asked::default();
    let host = Arc::new(venue.host(listening(&asked), &[("VOICED_LIVEKIT__BRIDGE_ENABLED", "true"), ("VOICED_TURN__SILENCE_MS", "0")]).await);
    let wait = |ms| Step::Wait { ms };
    let line = || say("My kitchen sink is leaking.");
    let steps = vec![listen(), wait(5_000), line(), listen(), wait(4_000), line(), wait(4_000), Step::HangUp];
    let (report, room) = phone_call(&host, steps).await;
    let mut bob = venue.enters(venue.server.token(&room, "bob")).await;
    bob.wait_for("participant_joined", |event| event.text("kind") == "sip").await.expect("the caller is there");
    supervise(&host, &room, "bob", "whisper").await;
    bob.send(&Command::Chat("Be brief.".into())).expect("bob writes");
    bob.send(&venue.line("Offer her a discount.")).expect("bob whispers");
    for whisper in ["unheard by the caller: Be brief.", "discount"] {
        until(whisper, async || asked.lock().expect("nobody panicked").iter().any(|messages| messages.contains(whisper))).await;
    }
    agent_sounds(&mut bob, false).await;
    supervise(&host, &room, "bob", "takeover").await;
    let before = asked.lock().expect("nobody panicked").len();
    let report = report.await.expect("the call ends");
    let after = asked.lock().expect("nobody panicked").len();
    assert_eq!(before, after, "the agent was asked although bob had taken over");
    let story = story::of(&host, &report.call_sid).await;
    assert!(!story.said().iter().any(|(_, text)| text.contains("discount")), "{:?}", story.said());
}

#[tokio::test]
async fn a_room_that_cannot_be_reached_does_not_cost_the_caller_the_call() {
    let Some(venue) = Venue::open().await else { return };
    let asked = Asked::default();
    let mut venue = venue;
    let host = Arc::new(venue.host(listening(&asked), &[("VOICED_LIVEKIT__BRIDGE_ENABLED", "true")]).await);
    venue.server.kill().expect("it dies");
    let report = call(&host.phone(), script([listen(), say("My kitchen sink is leaking."), listen(), Step::HangUp])).await;
    let story = story::of(&host, &report.call_sid).await;
    assert_eq!(story.agent().len(), 2, "{:?}", story.said());
}
