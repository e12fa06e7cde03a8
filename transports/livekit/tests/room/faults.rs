//! What a participant makes of faults between it and the server, through a proxy that makes them.

use crate::person::{Person, options};
use crate::server::{Server, until};
use crate::{livekit, two_by};
use livekit_protocol as proto;
use proto::leave_request::Action;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use proto::simulate_scenario::Scenario;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use voiced_core::packet::Codec;
use voiced_lab::livekit::{AccessToken, Door, SignalProxy, Visit};
use voiced_livekit::{DisconnectReason, JoinError, LiveKit, RoomEvent, TextOptions};

/// Packets that a resume may cost: half a second. It is 0 to 2 on a quiet machine.
const LOST_IN_RESUME_MAX: u32 = 25;

/// What a knock is answered by.
type Answer = fn(&Visit) -> Door;

/// A server, a proxy before it, ann who has come through the proxy, and bob who has not. They hear each other.
struct Scene {
    server: Server,
    proxy: SignalProxy,
    livekit: LiveKit,
    ann: Person,
    bob: Person,
}

impl Scene {
    async fn set() -> Option<Self> {
        let (server, proxy, livekit) = doorway().await?;
        let [ann, bob] = two_by(&livekit, &proxy.url(), &server, Codec::Opus).await;
        ann.hear(10).await;
        bob.hear(10).await;
        Some(Self { server, proxy, livekit, ann, bob })
    }

    fn counted(&self, name: &str) -> u64 {
        self.livekit.counters().read().into_iter().find(|(counter, _)| *counter == name).map_or(0, |(_, count)| count)
    }

    /// Sound and texts go both ways.
    async fn talk_on(&mut self) {
        self.ann.hear(30).await;
        self.bob.hear(30).await;
        let chat = || TextOptions { topic: "lk.chat".into(), ..TextOptions::default() };
        assert!(self.ann.room.send_text(chat(), "from ann") && self.bob.room.send_text(chat(), "from bob"));
        for (person, words) in [(&mut self.ann, "from bob"), (&mut self.bob, "from ann")] {
            person.until("a text", |event| matches!(event, RoomEvent::Text { text, .. } if text == words).then_some(())).await;
        }
    }
}

async fn doorway() -> Option<(Server, SignalProxy, LiveKit)> {
    let server = Server::start(None).await?;
    let proxy = SignalProxy::to(server.url().as_str()).await.expect("a proxy");
    Some((server, proxy, livekit()))
}

fn leave(action: Action, reason: proto::DisconnectReason) -> Response {
    Response::Leave(proto::LeaveRequest { action: action as i32, reason: reason as i32, ..Default::default() })
}

fn simulate(scenario: Scenario) -> Request {
    Request::Simulate(proto::SimulateScenario { scenario: Some(scenario) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_at_the_join_is_told_whether_to_try_again() {
    let Some((server, proxy, livekit)) = doorway().await else { return };
    let join = || livekit.join(options(&proxy.url(), &server.token("room", "ann"), "ann", Codec::Opus));
    let doors: [(Answer, bool); 5] = [
        (|_| Door::Refuse(401), false),
        (|_| Door::Refuse(404), false),
        (|_| Door::Refuse(429), true),
        (|_| Door::Refuse(503), true),
        (|_| Door::Silent, true),
    ];
    for (index, (door, again)) in doors.into_iter().enumerate() {
        proxy.door(door);
        let error = join().await.expect_err("refused");
        assert_eq!(matches!(error, JoinError::Unreachable(_)), again, "door {index}: {error}");
        assert!(!error.to_string().contains("eyJ"), "no token in {error}");
    }
    assert_eq!(proxy.visits().len(), doors.len(), "a join is one try");
    proxy.door(|_| Door::Slow(Duration::from_secs(1)));
    join().await.expect("a slow server lets in too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_breaks_is_resumed_while_sound_goes_on() {
    let Some(mut scene) = Scene::set().await else { return };
    let sid = scene.ann.room.local().sid;
    scene.proxy.cut();
    assert!(!scene.ann.returned().await, "resumed");
    assert_eq!(scene.ann.room.local().sid, sid);
    for person in [&scene.ann, &scene.bob] {
        let heard = person.heard.lock().expect("not poisoned").clone();
        let missing: u32 = heard.windows(2).map(|pair| pair[1].sequence.wrapping_sub(pair[0].sequence).saturating_sub(1)).sum();
        // the server forgets its way to us while it looks for a new one
        assert!(missing < LOST_IN_RESUME_MAX, "{missing} packets lost over the cut");
    }
    // signalling works again, both ways
    assert!(scene.ann.room.set_attributes([("after".to_owned(), "cut".to_owned())].into()));
    scene.bob.until("an attribute", |event| matches!(event, RoomEvent::ParticipantChanged(ann) if ann.attributes.contains_key("after")).then_some(())).await;
    scene.talk_on().await;
    assert_eq!((scene.counted("resumes"), scene.counted("rejoins")), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_says_whether_to_resume_or_to_join_anew() {
    let Some(mut scene) = Scene::set().await else { return };
    for (action, anew) in [(Action::Resume, false), (Action::Reconnect, true)] {
        scene.proxy.say(leave(action, proto::DisconnectReason::UnknownReason));
        assert_eq!(scene.ann.returned().await, anew, "{action:?}");
        scene.talk_on().await;
    }
    // a node that fails says nothing, and the next one does not know us
    scene.proxy.say_to_server(simulate(Scenario::NodeFailure(true)));
    assert!(scene.ann.returned().await, "joined anew");
    scene.talk_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_that_the_server_breaks_off_is_tried_again() {
    let Some(mut scene) = Scene::set().await else { return };
    for scenario in [Scenario::DisconnectSignalOnResume(true), Scenario::DisconnectSignalOnResumeNoMessages(true)] {
        let before = scene.proxy.visits().len();
        scene.proxy.say_to_server(simulate(scenario));
        // the server has to have heard it before the socket breaks
        scene.talk_on().await;
        scene.proxy.cut();
        scene.ann.returned().await;
        assert!(scene.proxy.visits().len() >= before + 2, "{scenario:?}");
        scene.talk_on().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_sent_away_stays_away_and_knows_why() {
    let Some(mut scene) = Scene::set().await else { return };
    let visits = scene.proxy.visits().len();
    scene.proxy.say(leave(Action::Disconnect, proto::DisconnectReason::ParticipantRemoved));
    assert_eq!(scene.ann.ended().await, DisconnectReason::Removed);
    assert_eq!(scene.proxy.visits().len(), visits);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_busy_for_a_while_is_asked_with_pauses_until_it_answers() {
    let Some(mut scene) = Scene::set().await else { return };
    let before = scene.proxy.visits().len();
    scene.proxy.door(|_| Door::Refuse(503));
    scene.proxy.cut();
    until("several tries", async || scene.proxy.visits().len() >= before + 6).await;
    scene.proxy.door(|_| Door::Open);
    scene.ann.returned().await;
    scene.talk_on().await;
    let visits = &scene.proxy.visits()[before..];
    let pauses: Vec<_> = visits.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(pauses.iter().skip(1).all(|pause| *pause >= Duration::from_millis(50)), "{pauses:?}");
    assert!(pauses.last() > pauses.first(), "pauses grow: {pauses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_breaks_again_and_again_is_not_asked_again_at_once() {
    let Some(mut scene) = Scene::set().await else { return };
    let before = scene.proxy.visits().len();
    for _ in 0..4 {
        scene.proxy.cut();
        scene.ann.returned().await;
    }
    let visits = &scene.proxy.visits()[before..];
    assert!(visits[3].at - visits[2].at >= Duration::from_millis(100), "the third loss in a row waits for longer");
    scene.talk_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_resume_is_refused_or_never_answered_the_room_is_joined_anew() {
    let Some(mut scene) = Scene::set().await else { return };
    let doors: [fn(&Visit) -> Door; 2] =
        [|visit| if visit.resume { Door::Refuse(404) } else { Door::Open }, |visit| if visit.resume { Door::Silent } else { Door::Open }];
    for door in doors {
        scene.proxy.door(door);
        scene.proxy.cut();
        assert!(scene.ann.returned().await, "joined anew");
        scene.talk_on().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_after_a_loss_is_told_so_at_once() {
    let Some(mut scene) = Scene::set().await else { return };
    scene.proxy.door(|_| Door::Refuse(401));
    scene.proxy.cut();
    assert_eq!(scene.ann.ended().await, DisconnectReason::Refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_refreshed_token_does_not_end_the_conversation_while_the_first_one_holds() {
    let Some(mut scene) = Scene::set().await else { return };
    let stale = AccessToken::with_api_key(scene.server.0.api_key(), "a secret that the server had before its restart");
    scene.proxy.say(Response::RefreshToken(stale.with_identity("ann").to_jwt().expect("a token")));
    scene.proxy.say(leave(Action::Reconnect, proto::DisconnectReason::UnknownReason));
    assert!(scene.ann.returned().await, "joined anew");
    scene.talk_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_passed_over_and_a_message_too_large_costs_the_socket_only() {
    let Some(mut scene) = Scene::set().await else { return };
    let mut short = proto::SignalResponse { message: Some(Response::Join(proto::JoinResponse { alternative_url: "x".repeat(100), ..Default::default() })) };
    let mut cut_off = prost::Message::encode_to_vec(&short);
    cut_off.truncate(50);
    short.message = None;
    for garbage in [vec![0xFF; 100], Vec::new(), cut_off, prost::Message::encode_to_vec(&short)] {
        scene.proxy.say_bytes(garbage);
    }
    for nonsense in [
        Response::Offer(proto::SessionDescription { r#type: "offer".into(), sdp: "v=0\r\nnonsense".into(), ..Default::default() }),
        Response::Answer(proto::SessionDescription { r#type: "answer".into(), sdp: String::new(), ..Default::default() }),
        Response::Trickle(proto::TrickleRequest { candidate_init: "{\"candidate\": 7".into(), ..Default::default() }),
        Response::Mute(proto::MuteTrackRequest { sid: "TR_nobody".into(), muted: true }),
        Response::RoomMoved(proto::RoomMovedResponse::default()),
    ] {
        scene.proxy.say(nonsense);
    }
    scene.proxy.say_bytes(vec![0; 17 * 1024 * 1024]);
    scene.ann.returned().await;
    scene.ann.hear(30).await;
    scene.bob.hear(30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ice_restart_of_the_server_keeps_the_sound_and_the_stay() {
    let Some(mut scene) = Scene::set().await else { return };
    let sid = scene.ann.room.local().sid;
    let ufrags = |proxy: &SignalProxy| {
        let offers = proxy.from_server().into_iter().filter_map(|signal| if let Response::Offer(offer) = signal { Some(offer.sdp) } else { None });
        let ufrag = |sdp: String| sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:").map(str::to_owned));
        offers.filter_map(ufrag).collect::<std::collections::BTreeSet<_>>()
    };
    let before = ufrags(&scene.proxy).len();
    // the server offers new credentials, and leaves UDP for TCP
    let tcp = proto::CandidateProtocol::Tcp as i32;
    scene.proxy.say_to_server(simulate(Scenario::SwitchCandidateProtocol(tcp)));
    until("an offer with new credentials", async || ufrags(&scene.proxy).len() > before).await;
    scene.talk_on().await;
    assert_eq!(scene.ann.room.local().sid, sid);
    assert_eq!(scene.counted("rejoins"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reliable_data_arrives_once_and_in_order_over_resumes() {
    let Some(mut scene) = Scene::set().await else { return };
    // the server says that it has seen less than it has, so that there is something to send again
    scene.proxy.alter(|message| match message {
        Response::Reconnect(mut response) => {
            response.last_message_seq = response.last_message_seq.saturating_sub(20);
            Some(Response::Reconnect(response))
        }
        other => Some(other),
    });
    let speaking = Arc::new(AtomicBool::new(true));
    let sent = tokio::spawn({
        let (room, speaking) = (scene.ann.room.clone(), speaking.clone());
        async move {
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            let mut number = 0u32;
            while speaking.load(Ordering::Relaxed) {
                tick.tick().await;
                if room.publish_data("count", number.to_be_bytes().to_vec(), &[], true) {
                    number += 1;
                }
            }
            number
        }
    });
    for _ in 0..2 {
        scene.proxy.cut();
        assert!(!scene.ann.returned().await, "resumed");
    }
    speaking.store(false, Ordering::Relaxed);
    let sent = sent.await.expect("sent");
    let number = |event| match event {
        RoomEvent::Data { topic, payload, .. } if topic == "count" => Some(u32::from_be_bytes(payload.try_into().expect("four bytes"))),
        _ => None,
    };
    for expected in 0..sent {
        assert_eq!(scene.bob.until("a number", number).await, expected);
    }
    let states = scene.proxy.from_participants().into_iter().filter(|signal| matches!(signal, Request::SyncState(_))).count();
    assert_eq!(states, 2);
    scene.talk_on().await;
}
