//! A phone call in a room: people listen in, talk to the caller, whisper to the agent and take its place.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use voiced_core::codec::opus::{ENCODED_LEN, OpusEncoder};
use voiced_core::codec::sample_from_mulaw;
use voiced_lab::livekit::{Command, Peer};
use voiced_lab::phone::{CallReport, Sign, Step};
use voiced_lab::providers::{Answer, Script};

use crate::caller::{call, listen, say, script, wait_for};
use crate::host::Host;
use crate::rooms::{SILENCE, Talk, free_port};
use crate::story;
use crate::until;
use crate::venue::{API_KEY, Venue, agent_is_ready, agent_sounds, post};

/// 20 ms of a phone line.
const FRAME_BYTES: usize = 160;
const FRAME_MS: usize = 20;

/// What the model was asked, newest last.
type Asked = Arc<Mutex<Vec<String>>>;

fn listening(asked: &Asked) -> Script {
    let asked = Arc::clone(asked);
    let agent = move |request: &Value| {
        asked.lock().expect("nobody panicked").push(request["messages"].to_string());
        Answer { text: "I have written that down for you.".into(), stage: None, hang_up: false, ..Answer::default() }
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

/// How much sound the caller heard before `until_ms` of the call, in ms.
fn heard_by_caller(report: &CallReport, until_ms: u64) -> usize {
    let frames = report.recording.agent.chunks(FRAME_BYTES).take(until_ms as usize / FRAME_MS);
    frames.filter(|frame| frame.iter().map(|&byte| i64::from(sample_from_mulaw(byte)).pow(2)).sum::<i64>() > FRAME_BYTES as i64 * 10_000).count() * FRAME_MS
}

#[tokio::test]
async fn people_in_the_room_hear_both_and_are_heard_by_the_caller() {
    let port = free_port();
    let Some(venue) = Venue::telling(Some(port)).await else { return };
    let asked = Asked::default();
    let host = Arc::new(venue.host(listening(&asked), &[("VOICED_LIVEKIT__BRIDGE_ENABLED", "true"), ("PORT", &port.to_string())]).await);
    let (spoken, heard, hello) = (Sign::default(), Sign::default(), venue.line("Hello, this is Bob from the office."));
    let steps = vec![listen(), wait_for(&spoken), say("My kitchen sink is leaking."), listen(), wait_for(&heard), Step::HangUp];
    let (report, room) = phone_call(&host, steps).await;
    let mut bob = venue.enters(venue.server.token(&room, "bob")).await;
    let caller = bob.wait_for("participant_joined", |event| event.text("kind") == "sip").await.expect("the caller is there");
    assert_eq!(caller.attribute("sip.phoneNumber"), Some("+15550001111"));
    bob.send(&hello).expect("bob speaks");
    bob.wait_for("played", |_| true).await.expect("bob has spoken");
    spoken.give();
    hears(&mut bob, "caller-").await;
    agent_sounds(&mut bob, true).await;
    heard.give();
    let events = bob.leave().await.expect("bob leaves");
    assert!(events.iter().any(|event| event.event == "sound"));
    let report = report.await.expect("the call ends");
    // before the caller's own line there are one word of greeting, 300 ms, and two seconds of bob, whose first words may be
    // over before the agent has subscribed to them
    let heard_ms = heard_by_caller(&report, report.utterances[0].from_ms);
    assert!(heard_ms > 800, "the caller heard {heard_ms} ms before speaking: no bob");
    let by_room = format!("/telephony/calls/by-room/{room}");
    let told: Value = reqwest::Client::new().get(host.url(&by_room)).bearer_auth(API_KEY).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!((&told["callId"], &told["from"]), (&json!(report.call_sid), &json!("+15550001111")), "the webhooks' call: {told}");
    story::of(&host, &report.call_sid).await;
}

#[tokio::test]
async fn a_supervisor_whispers_to_the_agent_and_takes_its_place() {
    let Some(venue) = Venue::open().await else { return };
    let asked = Asked::default();
    let host = Arc::new(venue.host(listening(&asked), &[("VOICED_LIVEKIT__BRIDGE_ENABLED", "true"), ("VOICED_TURN__SILENCE_MS", "0")]).await);
    let (whispered, taken_over, discount) = (Sign::default(), Sign::default(), venue.line("Offer her a discount."));
    let called_back = Sign::default();
    let line = || say("My kitchen sink is leaking.");
    // two turns: the words of a spoken whisper come a pause and a transcript later, perhaps behind the first question
    let talk = [
        listen(),
        wait_for(&whispered),
        line(),
        listen(),
        line(),
        listen(),
        wait_for(&taken_over),
        line(),
        Step::Wait { ms: 3_000 },
        wait_for(&called_back),
        line(),
        listen(),
        Step::HangUp,
    ];
    let (report, room) = phone_call(&host, talk.into()).await;
    let mut bob = venue.enters(venue.server.token(&room, "bob")).await;
    bob.wait_for("participant_joined", |event| event.text("kind") == "sip").await.expect("the caller is there");
    agent_is_ready(&mut bob).await;
    supervise(&host, &room, "bob", "whisper").await;
    bob.send(&Command::Chat("Be brief.".into())).expect("bob writes");
    bob.send(&discount).expect("bob whispers");
    bob.wait_for("played", |_| true).await.expect("bob has whispered");
    whispered.give();
    for whisper in ["unheard by the caller: Be brief.", "discount"] {
        until(whisper, async || asked.lock().expect("nobody panicked").iter().any(|messages| messages.contains(whisper))).await;
    }
    for _ in 0..2 {
        agent_sounds(&mut bob, false).await;
    }
    supervise(&host, &room, "bob", "takeover").await;
    let before = asked.lock().expect("nobody panicked").len();
    taken_over.give();
    let spoken = || story::taken(&host, room.trim_start_matches("twilio-")).into_iter().filter(|event| event.body["data"]["speaker"] == "tenant").count();
    until("the caller's line to bob is told", async || spoken() == 3).await;
    let asked_so_far = || asked.lock().expect("nobody panicked").len();
    assert_eq!(before, asked_so_far(), "the agent was asked although bob had taken over");
    let present = async || post(&host, "/room/join", json!({ "roomName": room, "participantIdentity": "eve" })).await.1["agentPresent"].clone();
    assert_eq!(present().await, false);
    assert_eq!(post(&host, &format!("/room/{room}/agent"), json!({ "enable": true })).await.0, 200);
    assert_eq!(present().await, true);
    called_back.give();
    let report = report.await.expect("the call ends");
    assert_eq!(before + 1, asked_so_far(), "it was called back");
    let story = story::of(&host, &report.call_sid).await;
    assert!(!story.said().iter().any(|(_, text)| text.contains("discount")), "{:?}", story.said());
}

#[tokio::test]
async fn an_agent_that_is_sent_out_of_a_phone_call_is_silent_until_it_is_called_back() {
    let Some(venue) = Venue::open().await else { return };
    let asked = Asked::default();
    let host = Arc::new(venue.host(listening(&asked), &[("VOICED_LIVEKIT__BRIDGE_ENABLED", "true"), ("VOICED_TURN__SILENCE_MS", "0")]).await);
    let (out, back) = (Sign::default(), Sign::default());
    let line = || say("My kitchen sink is leaking.");
    let steps = vec![listen(), wait_for(&out), line(), Step::Wait { ms: 3_000 }, wait_for(&back), line(), listen(), Step::HangUp];
    let (report, room) = phone_call(&host, steps).await;
    let agent = async |enable: bool| post(&host, &format!("/room/{room}/agent"), json!({ "enable": enable })).await;
    // the greeting first: an agent that is out says none
    until("the agent has greeted", async || story::taken(&host, room.trim_start_matches("twilio-")).len() == 2).await;
    until("the room is there and its agent out", async || agent(false).await.0 == 200).await;
    out.give();
    let story = async || story::taken(&host, room.trim_start_matches("twilio-")).into_iter().filter(|event| event.body["event_type"] == "utterance").count();
    until("the caller's line is told", async || story().await == 2).await;
    assert!(asked.lock().expect("nobody panicked").is_empty(), "the agent was asked although it was out");
    assert_eq!(agent(true).await, (200, json!({ "roomName": room, "enabled": true })));
    back.give();
    let report = report.await.expect("the call ends");
    assert_eq!(asked.lock().expect("nobody panicked").len(), 1, "it was called back");
    let story = story::of(&host, &report.call_sid).await;
    assert_eq!(story.agent().len(), 2, "the greeting, and the answer: {:?}", story.said());
}

/// 20 ms of a tone as Opus.
fn tone() -> Vec<u8> {
    let mut encoder = OpusEncoder::new().expect("an encoder");
    let mut packet = [0; 512];
    let mut len = 0;
    // the first packets are still rising
    for start in (0..).step_by(ENCODED_LEN).take(10) {
        let sound: Vec<i16> = (start..start + ENCODED_LEN).map(|at| ((at as f32 * 440.0 * std::f32::consts::TAU / 48_000.0).sin() * 12_000.0) as i16).collect();
        len = encoder.encode(&sound, &mut packet);
    }
    packet[..len].to_vec()
}

#[tokio::test]
async fn a_supervisor_who_changes_the_microphone_is_heard_on_and_one_told_to_whisper_is_not_heard_after_the_room_was_lost() {
    let Some(venue) = Venue::open().await else { return };
    let asked = Asked::default();
    let host = Arc::new(venue.host(listening(&asked), &[("VOICED_LIVEKIT__BRIDGE_ENABLED", "true"), ("VOICED_TURN__SILENCE_MS", "0")]).await);
    let done = Sign::default();
    let (report, room) = phone_call(&host, vec![listen(), wait_for(&done), Step::HangUp]).await;
    let join = async || post(&host, "/room/join", json!({ "roomName": room, "participantIdentity": "bob" })).await;
    until("the agent is there", async || join().await.1["agentPresent"] == true).await;
    let token = || venue.server.token(&room, "bob").to_jwt().expect("a token");
    let mut bob = Talk::join(&venue, token()).await;
    bob.say([true, true], 100, &SILENCE).await;
    for (muted, on) in [(1, [true, false]), (0, [false, true])] {
        assert!(bob.room.mute(muted, true) && bob.room.mute(1 - muted, false));
        bob.say(on, 100, &tone()).await;
    }
    supervise(&host, &room, "bob", "whisper").await;
    until("the room ends", async || post(&host, "/session/end", json!({ "roomName": room })).await.0 == 204).await;
    until("the call is out of it", async || join().await.1["agentPresent"] != true).await;
    until("the call is in its room again", async || join().await.1["agentPresent"] == true).await;
    let mut bob = Talk::join(&venue, token()).await;
    bob.say([true, true], 100, &SILENCE).await;
    bob.say([true, true], 200, &tone()).await;
    done.give();
    // besides the greeting two seconds by each microphone, and nothing of the four that were whispered
    let heard_ms = heard_by_caller(&report.await.expect("the call ends"), u64::MAX);
    assert!((3_500..5_500).contains(&heard_ms), "the caller heard {heard_ms} ms");
}

/// An agent that was sent out of a call whose room is then lost, orderly or not, answers the caller again.
async fn room_is_lost_without_the_agent(orderly: bool) {
    let Some(mut venue) = Venue::open().await else { return };
    let asked = Asked::default();
    let host = Arc::new(venue.host(listening(&asked), &[("VOICED_LIVEKIT__BRIDGE_ENABLED", "true"), ("VOICED_TURN__SILENCE_MS", "0")]).await);
    let lost = Sign::default();
    // the server may come back for some seconds
    let steps = vec![listen(), wait_for(&lost), Step::Wait { ms: 7_000 }, say("My kitchen sink is leaking."), listen(), Step::HangUp];
    let (report, room) = phone_call(&host, steps).await;
    until("the agent has greeted", async || story::taken(&host, room.trim_start_matches("twilio-")).len() == 2).await;
    until("the room is there and its agent out", async || post(&host, &format!("/room/{room}/agent"), json!({ "enable": false })).await.0 == 200).await;
    if orderly {
        assert_eq!(post(&host, "/session/end", json!({ "roomName": room })).await.0, 204);
    }
    venue.server.kill().expect("it dies");
    lost.give();
    let report = report.await.expect("the call ends");
    let story = story::of(&host, &report.call_sid).await;
    assert_eq!(story.agent().len(), 2, "{:?}", story.said());
}

#[tokio::test]
async fn a_caller_whose_agent_was_sent_out_is_answered_again_when_the_room_has_ended_and_does_not_come_back() {
    room_is_lost_without_the_agent(true).await;
}

#[tokio::test]
async fn a_caller_whose_agent_was_sent_out_is_answered_again_while_the_server_is_away() {
    room_is_lost_without_the_agent(false).await;
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
