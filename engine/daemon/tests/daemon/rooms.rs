//! People in LiveKit rooms meet the agent: on a real server, with the official SDK.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::http::{StatusCode, Uri};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use voiced_core::packet::{Codec, Packet};
use voiced_lab::livekit::Command;
use voiced_lab::providers::{Answer, Script};
use voiced_livekit::{DisconnectReason, JoinOptions, LiveKit, MediaSettings, PublishTrack, Room, RoomEvent};

use crate::PATIENCE;
use crate::disk::file_limit;
use crate::host::Host;
use crate::story;
use crate::until;
use crate::venue::{API_KEY, Venue, agent_sounds, post, reads, session};

/// The caller says lines in order, the model answers so.
pub fn repairs() -> Script {
    let lines = ["My kitchen sink is leaking.", "It is twelve Oak Street."];
    let caller = move |_: usize, utterance: usize| lines[utterance.min(lines.len() - 1)].to_owned();
    let agent = |_: &serde_json::Value| Answer {
        text: "I am sorry to hear that. We will send somebody who knows about sinks. Where do you live?".into(),
        stage: None,
        hang_up: false,
        ..Answer::default()
    };
    // quick words: the offline voice says five in little more than a second
    Script { caller: Arc::new(caller), agent: Arc::new(agent), caller_word_ms: 100, utterance_gap_ms: 600 }
}

#[tokio::test]
async fn a_person_in_a_room_talks_interrupts_and_writes_and_the_events_tell_it() {
    let Some(venue) = Venue::open().await else { return };
    let host = venue.host(repairs(), &[]).await;
    let [sink, street] = ["My kitchen sink is leaking.", "It is twelve Oak Street."].map(|line| venue.line(line));
    let (room, token) = session(&host, "ann", json!({ "greeting": "Good day." })).await;
    let mut ann = venue.joins(token).await;
    reads(&mut ann, "Good day.").await;
    agent_sounds(&mut ann, true).await;
    agent_sounds(&mut ann, false).await;

    ann.send(&sink).expect("ann speaks");
    reads(&mut ann, "My kitchen").await;
    let began = agent_sounds(&mut ann, true).await;
    ann.send(&street).expect("ann interrupts");
    let quiet = agent_sounds(&mut ann, false).await;
    assert!(quiet.at_ms - began.at_ms < 3_000.0, "the agent spoke on for {} ms", quiet.at_ms - began.at_ms);
    agent_sounds(&mut ann, true).await;
    agent_sounds(&mut ann, false).await;

    ann.send(&Command::Chat("How long will it take?".into())).expect("ann writes");
    agent_sounds(&mut ann, true).await;
    ann.leave().await.expect("ann leaves");
    let (status, _) = post(&host, "/session/end", json!({ "roomName": room })).await;
    assert_eq!(status, 204);

    let story = story::of_session(&host, &format!("room-{room}")).await;
    let tenant: Vec<_> = story.said().into_iter().filter(|(who, _)| *who == "tenant").map(|(_, text)| text.to_owned()).collect();
    assert_eq!(tenant.last().map(String::as_str), Some("How long will it take?"), "{tenant:?}");
    assert!(tenant.iter().any(|text| text.starts_with("It is")), "{tenant:?}");
    until("the session is gone", async || host.get(&format!("/sessions/room-{room}")).await.0 == 404).await;
    assert_eq!(post(&host, "/session/end", json!({ "roomName": room })).await.0, 404);
    assert_eq!(post(&host, "/room/join", json!({ "roomName": room, "participantIdentity": "bob" })).await.0, 404);
    assert_eq!(post(&host, &format!("/room/{room}/agent"), json!({ "enable": true })).await.0, 404, "no room is made by that");
}

#[tokio::test]
async fn a_phone_that_enters_a_room_by_sip_is_met_by_the_agent_that_the_webhook_brings() {
    let port = free_port();
    let Some(venue) = Venue::telling(Some(port)).await else { return };
    let silence = [("PORT", port.to_string()), ("VOICED_TURN__SILENCE_MS", "1500".into()), ("VOICED_AGENT__SILENCE_PROMPTS", "[]".into())];
    let silence: Vec<_> = silence.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let host = venue.host(repairs(), &silence).await;
    let token = || {
        let attributes = [("sip.phoneNumber", "+15550001111"), ("sip.callID", "SCL_1")];
        venue.server.token("line-1", "sip_15550001111").with_kind("sip").with_attributes(attributes)
    };
    let mut phone = venue.enters(token()).await;
    reads(&mut phone, "Hello.").await;
    // its gateway joins again, which is no end of the call
    phone = venue.enters(token()).await;
    let (_, sessions) = host.get("/sessions").await;
    let sessions: serde_json::Value = serde_json::from_str(&sessions).expect("JSON");
    assert_eq!((&sessions["byType"]["sip"], &sessions["sessions"][0]["from"]), (&json!(1), &json!("+15550001111")), "{sessions}");
    // nobody says anything: the agent says goodbye and hangs up, and the phone is put out of the room
    phone.wait_for("disconnected", |_| true).await.expect("the phone is hung up on");
    story::of_session(&host, "room-line-1").await;
}

#[tokio::test]
async fn an_agent_that_has_left_a_room_comes_again_when_it_is_asked_for_and_so_does_one_to_a_new_room_of_that_name() {
    let Some(venue) = Venue::open().await else { return };
    let host = venue.host(repairs(), &[("VOICED_TURN__SILENCE_MS", "1500"), ("VOICED_AGENT__SILENCE_PROMPTS", "[]")]).await;
    let asked = json!({ "userIdentity": "ann", "roomName": "desk" });
    for _ in 0..2 {
        let (status, body) = post(&host, "/session", asked.clone()).await;
        assert_eq!(status, 200, "{body}");
        let mut ann = venue.joins(body["userToken"].as_str().expect("a token").to_owned()).await;
        // ann says nothing: the agent says goodbye and leaves, and she stays
        for _ in 0..2 {
            reads(&mut ann, "Hello.").await;
            let join = json!({ "roomName": "desk", "participantIdentity": "bob" });
            until("the agent leaves", async || post(&host, "/room/join", join.clone()).await.1["agentPresent"] == false).await;
            assert_eq!(post(&host, "/room/desk/agent", json!({ "enable": true })).await.0, 200);
        }
        reads(&mut ann, "Hello.").await;
        assert_eq!(post(&host, "/session/end", json!({ "roomName": "desk" })).await.0, 204);
    }
}

#[tokio::test]
async fn twenty_rooms_at_once_are_each_greeted_and_each_told() {
    let Some(venue) = Venue::open().await else { return };
    let host = venue.host(repairs(), &[]).await;
    let media = LiveKit::start(MediaSettings::default()).expect("a media thread");
    let mut people = JoinSet::new();
    let mut names = Vec::new();
    for number in 0..20 {
        let (name, token) = session(&host, &format!("person-{number}"), json!({})).await;
        names.push(name);
        let (media, url) = (media.clone(), venue.server.url());
        people.spawn(async move {
            let microphone = PublishTrack { name: "microphone".into(), codec: Codec::Opus };
            let options = JoinOptions { url, token, publish: vec![microphone], auto_subscribe: true, attributes: HashMap::new() };
            let (room, mut events) = media.join(options).await.expect("in the room");
            let (heard, mut greeting) = mpsc::channel(1_000);
            while let Some(event) = events.recv().await {
                if let RoomEvent::TrackSubscribed { track, .. } = event {
                    let heard = heard.clone();
                    let listener = move |packet| {
                        let _ = heard.try_send(packet); // enough were heard long before it is full
                    };
                    room.listen(&track.sid, Box::new(listener));
                    break;
                }
            }
            // 300 ms of the one word of the greeting
            for _ in 0..15 {
                greeting.recv().await.expect("the agent's voice");
            }
            room
        });
    }
    let rooms = tokio::time::timeout(PATIENCE, people.join_all()).await.expect("all are greeted");
    let (_, sessions) = host.get("/sessions").await;
    assert!(sessions.contains(r#""room":20"#), "{sessions}");
    drop(rooms);
    for name in names {
        assert_eq!(post(&host, "/session/end", json!({ "roomName": name })).await.0, 204);
        story::of_session(&host, &format!("room-{name}")).await;
    }
}

#[tokio::test]
async fn a_recording_that_the_disk_has_cut_short_may_be_begun_anew() {
    let Some(venue) = Venue::open().await else { return };
    let folder = tempfile::TempDir::new().expect("a folder");
    let host = venue.host(repairs(), &[("VOICED_LIVEKIT__RECORDING_DIR", folder.path().to_str().expect("UTF-8"))]).await;
    let (room, token) = session(&host, "ann", json!({})).await;
    let mut ann = venue.joins(token).await;
    agent_sounds(&mut ann, true).await;
    let record = async || assert_eq!(post(&host, &format!("/room/{room}/recording"), json!({ "enable": true })).await.0, 200);
    let recordings = || std::fs::read_dir(folder.path()).expect("the folder").count();
    record().await;
    assert_eq!(recordings(), 1);
    // a second of it; the log is shorter
    file_limit(&host, "64000");
    until("it is cut short", async || host.log().contains("the recording is cut short")).await;
    file_limit(&host, "unlimited");
    until("it is begun anew", async || {
        record().await;
        recordings() == 2
    })
    .await;
}

#[tokio::test]
async fn a_recording_by_egress_that_begins_late_is_known_and_one_that_does_not_end_is_ended_by_the_next_try() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let answer = move |uri: Uri| async move {
        let action = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        let stops = {
            let mut asked = noted.lock().expect("nobody panicked");
            asked.push(action.clone());
            asked.iter().filter(|asked| *asked == "StopEgress").count()
        };
        match (action.as_str(), stops) {
            // longer than the HTTP side waits, shorter than we do
            ("StartRoomCompositeEgress", _) => tokio::time::sleep(std::time::Duration::from_millis(10_500)).await,
            ("StopEgress", 1) => return (StatusCode::SERVICE_UNAVAILABLE, br#"{"code":"unavailable","msg":"try again"}"#.to_vec()),
            ("StopEgress", _) => {}
            _ => return (StatusCode::NOT_FOUND, Vec::new()),
        }
        // an `EgressInfo` with its first field
        (StatusCode::OK, b"\x0a\x04EG_1".to_vec())
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("ws://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    let settings = [
        ("LIVEKIT_URL", url.as_str()),
        ("LIVEKIT_API_KEY", "devkey"),
        ("LIVEKIT_API_SECRET", "made-up-secret-that-is-32-bytes-long!!"),
        ("VOICED_HTTP__API_KEYS", API_KEY),
    ];
    let egress = [("VOICED_LIVEKIT__EGRESS_PATH", "/out/{room}-{time}.ogg")];
    let host = Host::start(repairs(), &[settings.as_slice(), &egress].concat()).await;
    let record = async |enable: bool| post(&host, "/room/desk/recording", json!({ "enable": enable })).await.0;
    assert_eq!(record(true).await, 504);
    assert_eq!(record(false).await, 502, "it began after all, and the service does not end it");
    assert_eq!((record(false).await, record(false).await), (200, 200));
    let asked: Vec<_> = asked.lock().expect("nobody panicked").iter().filter(|asked| asked.ends_with("Egress")).cloned().collect();
    assert_eq!(asked, ["StartRoomCompositeEgress", "StopEgress", "StopEgress"]);
}

#[tokio::test]
async fn a_server_without_egress_says_so_and_the_call_goes_on() {
    let Some(venue) = Venue::open().await else { return };
    let host = venue.host(repairs(), &[("VOICED_LIVEKIT__EGRESS_PATH", "/out/{room}-{time}.ogg")]).await;
    let sink = venue.line("My kitchen sink is leaking.");
    let (room, token) = session(&host, "ann", json!({})).await;
    let mut ann = venue.joins(token).await;
    agent_sounds(&mut ann, true).await;
    agent_sounds(&mut ann, false).await;
    let (status, body) = post(&host, &format!("/room/{room}/recording"), json!({ "enable": true })).await;
    // the server waits for such a service for as long as we wait for the server
    assert!(matches!(status, 503 | 504), "{status} {body}");
    assert!(body.to_string().contains("LiveKit") || body.to_string().contains("egress"), "{body}");
    ann.send(&sink).expect("ann speaks");
    agent_sounds(&mut ann, true).await;
    assert_eq!(post(&host, &format!("/room/{room}/recording"), json!({ "enable": false })).await.0, 200, "nothing is under way");
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

#[tokio::test]
async fn a_call_in_a_room_outlives_the_servers_restart() {
    let Some(mut venue) = Venue::open().await else { return };
    let host = venue.host(repairs(), &[]).await;
    let sink = venue.line("My kitchen sink is leaking.");
    let (_, token) = session(&host, "ann", json!({})).await;
    let mut ann = venue.joins(token).await;
    agent_sounds(&mut ann, true).await;
    agent_sounds(&mut ann, false).await;
    venue.server.restart().await.expect("the server starts again");
    ann.wait_for("reconnected", |_| true).await.expect("the SDK comes back");
    ann.send(&sink).expect("ann speaks");
    agent_sounds(&mut ann, true).await;
}

#[tokio::test]
async fn where_all_are_heard_the_second_person_in_a_room_talks_with_the_agent_as_the_first_does() {
    let Some(venue) = Venue::open().await else { return };
    let host = venue.host(repairs(), &[("VOICED_LIVEKIT__HEAR", "all")]).await;
    let [sink, street] = ["My kitchen sink is leaking.", "It is twelve Oak Street."].map(|line| venue.line(line));
    let (room, token) = session(&host, "ann", json!({})).await;
    let mut ann = venue.joins(token).await;
    agent_sounds(&mut ann, true).await;
    agent_sounds(&mut ann, false).await;
    // more than a call hears at once look in: those who have left take nobody's place
    for number in 0..5 {
        let token = venue.server.token(&room, &format!("visitor-{number}")).to_jwt().expect("a token");
        let mut visitor = Talk::join(&venue, token).await;
        visitor.say([true, false], 40, &SILENCE).await;
        visitor.room.leave(DisconnectReason::Left);
    }
    let mut bob = venue.enters(venue.server.token(&room, "bob")).await;
    bob.send(&sink).expect("bob speaks");
    reads(&mut ann, "My kitchen").await;
    agent_sounds(&mut bob, true).await;
    agent_sounds(&mut bob, false).await;
    ann.send(&street).expect("ann speaks");
    reads(&mut bob, "It is").await;
    agent_sounds(&mut bob, true).await;
    // both at once are one sound to the agent
    bob.send(&sink).expect("bob speaks");
    ann.send(&street).expect("ann speaks");
    agent_sounds(&mut ann, false).await;
    agent_sounds(&mut ann, true).await;
    bob.leave().await.expect("bob leaves");
    assert_eq!(post(&host, "/session/end", json!({ "roomName": room })).await.0, 204);
    story::of_session(&host, &format!("room-{room}")).await;
}

#[tokio::test]
async fn who_changes_the_microphone_is_heard_without_a_gap_and_not_twice() {
    let Some(venue) = Venue::open().await else { return };
    let host = venue.host(repairs(), &[]).await;
    let (name, token) = session(&host, "ann", json!({})).await;
    let mut talk = Talk::join(&venue, token).await;
    let hearing = async || {
        let (_, session) = host.get(&format!("/sessions/room-{name}")).await;
        serde_json::from_str::<serde_json::Value>(&session).map_or(json!(null), |session| session["hearing"].clone())
    };
    // the first until it is heard, then both for three seconds, within which the second is subscribed to on a busy machine
    // too, then the second alone; the server says which of them is the newer
    while hearing().await["packets"].as_u64().unwrap_or(0) < 10 {
        talk.say([true, false], 10, &SILENCE).await;
    }
    let told = async || hearing().await["packets"].as_u64().unwrap_or(0);
    // as many as are sent from here on, besides what of the last round is on its way
    let once = told().await + 300;
    talk.say([true, true], 150, &SILENCE).await;
    assert!(talk.room.mute(0, true), "the room goes on");
    talk.say([false, true], 150, &SILENCE).await;
    // until the mute is known, an older second one may be passed over: for a second at most
    until("the last of them is counted", async || told().await >= once - 60).await;
    let heard = hearing().await;
    // twice would be 150 more
    assert!(heard["packets"].as_u64().is_some_and(|packets| packets <= once + 20), "{heard} of {:?}", talk.sent);
    // a change that is not followed loses ten or more; a busy machine may bring one or two late
    let few = |what: &str| heard[what].as_u64().is_some_and(|packets| packets <= 3);
    assert!(few("lost") && few("late"), "{heard}");
    assert_eq!(post(&host, "/session/end", json!({ "roomName": name })).await.0, 204);
}

/// Somebody with two microphones.
pub struct Talk {
    pub room: Room,
    sent: [u32; 2],
    ticks: tokio::time::Interval,
    _media: LiveKit,
    _events: mpsc::Receiver<RoomEvent>,
}

impl Talk {
    /// Somebody joins with this token.
    pub async fn join(venue: &Venue, token: String) -> Self {
        let media = LiveKit::start(MediaSettings::default()).expect("a media thread");
        let microphone = |name: &str| PublishTrack { name: name.into(), codec: Codec::Opus };
        let publish = vec![microphone("built in"), microphone("headset")];
        let options = JoinOptions { url: venue.server.url(), token, publish, auto_subscribe: true, attributes: HashMap::new() };
        let (room, mut events) = media.join(options).await.expect("in");
        while !matches!(events.recv().await, Some(RoomEvent::Connected)) {}
        Self { room, sent: [0; 2], ticks: tokio::time::interval(std::time::Duration::from_millis(20)), _media: media, _events: events }
    }

    /// Sends packets of 20 ms in time, each of this sound, into the tracks that are on.
    pub async fn say(&mut self, on: [bool; 2], packets: u32, sound: &[u8]) {
        for _ in 0..packets {
            self.ticks.tick().await;
            for track in (0..2).filter(|&track| on[track]) {
                let number = self.sent[track];
                self.sent[track] += 1;
                let packet = Packet::new(Codec::Opus, number, number * 20, sound).expect("it fits");
                self.room.send(track, packet);
            }
        }
    }
}

/// 20 ms of Opus that say nothing.
pub const SILENCE: [u8; 3] = [0xF8, 0xFF, 0xFE];
