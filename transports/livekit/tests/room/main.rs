//! Rooms on a real livekit-server; without one these tests say so and pass.

mod faults;
mod person;
mod relay;
#[path = "../server/mod.rs"]
mod server;

use person::Person;
use server::Server;
use std::time::Duration;
use voiced_core::packet::Codec;
use voiced_lab::livekit::ServerSettings;
use voiced_livekit::token::{Grants, ParticipantToken};
use voiced_livekit::{DisconnectReason, LiveKit, MediaSettings, RoomEvent, RpcError, TextOptions};

fn livekit() -> LiveKit {
    LiveKit::start(MediaSettings::default()).expect("media threads")
}

/// Two people who hear each other.
async fn two(livekit: &LiveKit, server: &Server, codec: Codec) -> [Person; 2] {
    two_by(livekit, server.url().as_str(), server, codec).await
}

/// As [`two`], ann by another way to the server.
async fn two_by(livekit: &LiveKit, url: &str, server: &Server, codec: Codec) -> [Person; 2] {
    let mut ann = Person::join_by(livekit, url, server, "ann", codec).await;
    let mut bob = Person::join(livekit, server, "bob", codec).await;
    ann.speak(codec);
    bob.speak(codec);
    ann.listen_to("bob").await;
    bob.listen_to("ann").await;
    [ann, bob]
}

async fn hear_each_other(settings: ServerSettings, codec: Codec, mime: &str) {
    let without_red = settings.without_red;
    let Some(server) = Server::start_with(settings).await else { return };
    let livekit = livekit();
    let [ann, bob] = two(&livekit, &server, codec).await;
    for person in [&ann, &bob] {
        let heard = person.hear(60).await;
        for pair in heard.windows(2) {
            let [(before, earlier), (after, later)] = pair else { unreachable!() };
            assert_eq!(after.wrapping_sub(*before), 1, "in order, nothing lost");
            assert_eq!(later.sequence.wrapping_sub(earlier.sequence), 1);
            assert_eq!(later.timestamp_ms.wrapping_sub(earlier.timestamp_ms), 20);
        }
        assert!(heard.iter().all(|(_, packet)| packet.codec == codec && packet.payload()[4..].iter().all(|byte| *byte == 0x5A)));
        let others = person.room.participants();
        assert_eq!(others.len(), 1);
        assert_eq!(others[0].tracks[0].mime.to_lowercase(), mime);
        assert_eq!(person.room.takes_red(), !without_red);
        assert_eq!(person.room.stats().lost, 0);
    }
    assert!(livekit.counters().read().contains(&("oversize", 0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_participants_hear_each_other_in_opus() {
    hear_each_other(ServerSettings::default(), Codec::Opus, "audio/red").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_red_is_sent_opus_alone() {
    for without_red in [true, false] {
        let Some(server) = Server::start_with(ServerSettings { without_red, ..ServerSettings::default() }).await else { return };
        let options = person::options(server.url().as_str(), &server.token("room", "ann"), "ann", Codec::Opus);
        let (room, _events) = livekit().join(options).await.expect("let in");
        assert_eq!(room.takes_red(), !without_red, "known from the join, for whoever is called at once");
    }
    hear_each_other(ServerSettings { without_red: true, ..ServerSettings::default() }, Codec::Opus, "audio/opus").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_track_of_mu_law_arrives_as_mu_law() {
    hear_each_other(ServerSettings::default(), Codec::Mulaw, "audio/pcmu").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_subscribe_is_connected_and_stays() {
    let Some(server) = Server::start(None).await else { return };
    let livekit = livekit();
    let token = ParticipantToken { grants: Grants { subscribe: false, ..Grants::default() }, ..ParticipantToken::new("room", "ann") };
    let token = server.keys().participant_token(&token).expect("a token");
    let options = person::options(server.url().as_str(), token.expose(), "ann", Codec::Mulaw);
    let (_room, mut events) = livekit.join(options).await.expect("let in");
    let connected = async {
        loop {
            match events.recv().await.expect("ann is in the room") {
                RoomEvent::Connected => return,
                RoomEvent::Reconnected { .. } => panic!("taken for lost"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(person::PATIENCE, connected).await.expect("connected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_udp_is_blocked_sound_goes_over_tcp() {
    let Some(server) = Server::start_with(ServerSettings { force_tcp: true, ..ServerSettings::default() }).await else { return };
    let livekit = livekit();
    let people = two(&livekit, &server, Codec::Opus).await;
    for person in &people {
        person.hear(60).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_keys_attributes_and_questions_reach_the_other() {
    let Some(server) = Server::start(None).await else { return };
    let livekit = livekit();
    let [mut ann, mut bob] = two(&livekit, &server, Codec::Opus).await;
    assert_eq!(bob.room.participants()[0].attributes.get("role").map(String::as_str), Some("ann"), "set at the join");

    let long = "one two three ".repeat(3_000);
    let options = TextOptions { topic: "lk.chat".into(), attributes: [("kind".to_owned(), "typed".to_owned())].into(), ..TextOptions::default() };
    assert!(ann.room.send_text(options, &long));
    let (from, attributes, text) = bob
        .until("a text", |event| match event {
            RoomEvent::Text { topic, from, attributes, text, complete: true, .. } if topic == "lk.chat" => Some((from, attributes, text)),
            _ => None,
        })
        .await;
    assert_eq!((from.as_str(), attributes["kind"].as_str(), text == long), ("ann", "typed", true));

    let mut written = ann.room.open_text(TextOptions { topic: "lk.transcription".into(), to: vec!["bob".into()], ..TextOptions::default() });
    assert!(written.write("bit ") && written.write("by ") && written.write("bit") && written.close());
    let text = bob.until("a written text", |event| if let RoomEvent::Text { text, .. } = event { Some(text) } else { None }).await;
    assert_eq!(text, "bit by bit");

    assert!(ann.room.publish_dtmf('#') && !ann.room.publish_dtmf('x'));
    let digit = bob.until("a key", |event| if let RoomEvent::Dtmf { digit, .. } = event { Some(digit) } else { None }).await;
    assert_eq!(digit, "#");

    assert!(ann.room.set_attributes([("lk.agent.state".to_owned(), "thinking".to_owned())].into()));
    bob.until("an attribute", |event| match event {
        RoomEvent::ParticipantChanged(ann) => (ann.attributes.get("lk.agent.state")? == "thinking" && ann.attributes["role"] == "ann").then_some(()),
        _ => None,
    })
    .await;

    let asked = tokio::spawn({
        let room = ann.room.clone();
        async move { (room.perform_rpc("bob", "greet", "ann", person::PATIENCE).await, room.perform_rpc("bob", "sing", "", person::PATIENCE).await) }
    });
    for _ in 0..2 {
        let request = bob.until("a question", |event| if let RoomEvent::RpcRequest(request) = event { Some(request) } else { None }).await;
        let answer = if request.method == "greet" { Ok(format!("hello {}", request.payload)) } else { Err(RpcError::unsupported_method()) };
        assert!(bob.room.answer_rpc(&request, answer));
    }
    let (greeted, sung) = asked.await.expect("asked");
    assert_eq!((greeted, sung.map_err(|error| error.code)), (Ok("hello ann".to_owned()), Err(1400)));

    assert!(bob.room.mute(0, true));
    ann.until("silence", |event| matches!(event, RoomEvent::TrackMuted { muted: true, .. }).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_and_comes_back_is_heard_again() {
    let Some(server) = Server::start(None).await else { return };
    let livekit = livekit();
    let [mut ann, mut bob] = two(&livekit, &server, Codec::Opus).await;
    bob.hear(10).await;
    ann.room.leave(DisconnectReason::Left);
    assert_eq!(ann.ended().await, DisconnectReason::Left);
    assert!(ann.events.recv().await.is_none(), "nothing comes after the end");
    let (identity, reason) =
        bob.until("ann to leave", |event| if let RoomEvent::ParticipantLeft { identity, reason } = event { Some((identity, reason)) } else { None }).await;
    assert_eq!((identity.as_str(), reason), ("ann", DisconnectReason::Left));

    let again = Person::join(&livekit, &server, "ann", Codec::Opus).await;
    again.speak(Codec::Opus);
    bob.listen_to("ann").await;
    bob.hear(30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_and_returns_is_joined_anew_by_all() {
    let Some(mut server) = Server::start(None).await else { return };
    let livekit = livekit();
    let [mut ann, mut bob] = two(&livekit, &server, Codec::Opus).await;
    ann.hear(10).await;
    server.kill();
    server.start_again().await;
    for person in [&mut ann, &mut bob] {
        assert!(person.returned().await);
    }
    // the listeners of before hear the new tracks
    ann.hear(30).await;
    bob.hear(30).await;
    assert!(ann.room.send_text(TextOptions { topic: "lk.chat".into(), ..TextOptions::default() }, "still here"));
    bob.until("a text", |event| matches!(event, RoomEvent::Text { text, .. } if text == "still here").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stays_away_ends_the_room() {
    let Some(mut server) = Server::start(None).await else { return };
    let livekit = livekit();
    let mut ann = Person::join(&livekit, &server, "ann", Codec::Opus).await;
    ann.until("a connection", |event| (event == RoomEvent::Connected).then_some(())).await;
    server.kill();
    ann.until("a loss", |event| (event == RoomEvent::Reconnecting).then_some(())).await;
    // leaving does not wait for the server
    ann.room.leave(DisconnectReason::Left);
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), ann.ended()).await, Ok(DisconnectReason::Left));
}
