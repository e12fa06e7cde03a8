//! Telephone callers: who gets the agent, and what is remembered of calls.

use serde_json::{Value, json};

use super::double::{Front, until};
use crate::http::rooms::Kind;
use crate::http::telephony::WAITING_MAX;

#[tokio::test]
async fn a_telephone_meets_the_agent_once_however_often_it_is_told() {
    let front = Front::start(&[]).await;
    let told = front.telephone("call-1", "sip_15550001111");
    let answers = [(); 20].map(|()| front.webhook(&told));
    for answer in futures_util::future::join_all(answers).await {
        assert_eq!(answer, 200);
    }
    until("the agent is sent", || front.rooms.dispatches("call-1") > 0).await;
    assert_eq!(front.webhook(&told).await, 200);
    assert_eq!(front.rooms.rooms()["call-1"].dispatches, ["{}"]);
}

#[tokio::test]
async fn only_telephones_meet_the_agent_unless_anyone_shall() {
    let front = Front::start(&[("TELEPHONY_SIP_IDENTITY_PREFIX", "tel_"), ("VOICED_LIVEKIT__BRIDGE_ENABLED", "true")]).await;
    let someone = |room: &str, identity: &str| json!({ "event": "participant_joined", "room": room, "identity": identity, "kind": "STANDARD" });
    for (room, identity) in [("people", "anna"), ("telephone", "tel_1")] {
        front.rooms.enters(room, identity, Kind::Standard);
        assert_eq!(front.webhook(&someone(room, identity)).await, 200);
    }
    let bridged = front.telephone("twilio-CA1", "tel_2");
    assert_eq!(front.webhook(&bridged).await, 200);
    let gone = front.telephone("late", "tel_3");
    front.rooms.rooms().remove("late");
    assert_eq!(front.webhook(&gone).await, 200);
    until("the one with the prefix meets the agent", || front.rooms.dispatches("telephone") == 1).await;
    let last = front.telephone("last", "tel_4");
    assert_eq!(front.webhook(&last).await, 200);
    until("what was told later is done", || front.rooms.dispatches("last") == 1).await;
    let met: Vec<_> = front.rooms.rooms().iter().filter(|(_, room)| !room.dispatches.is_empty()).map(|(name, _)| name.clone()).collect();
    assert_eq!(met, ["last", "telephone"], "people, bridged calls and callers who have gone get none");

    let front = Front::start(&[("TELEPHONY_DISPATCH_ON_ANY_PARTICIPANT_JOIN", "true")]).await;
    for kind in ["EGRESS", "AGENT"] {
        front.rooms.enters("machines", kind, Kind::Other);
        assert_eq!(front.webhook(&json!({ "event": "participant_joined", "room": "machines", "identity": kind, "kind": kind })).await, 200);
    }
    front.rooms.enters("people", "anna", Kind::Standard);
    assert_eq!(front.webhook(&someone("people", "anna")).await, 200);
    until("anyone meets the agent", || front.rooms.dispatches("people") == 1).await;
    assert_eq!(front.rooms.dispatches("machines"), 0, "recorders and agents are not anyone");
}

#[tokio::test]
async fn a_caller_gets_the_agent_though_the_server_fails_at_first() {
    let front = Front::start(&[]).await;
    let told = front.telephone("call-1", "sip_1");
    *front.rooms.failures.lock().unwrap() = 1;
    assert_eq!(front.webhook(&told).await, 200);
    until("the agent is sent at the second try", || front.rooms.dispatches("call-1") == 1).await;
}

#[tokio::test]
async fn more_callers_than_can_wait_are_told_again_later() {
    let front = Front::start(&[]).await;
    let held = front.rooms.answers.acquire_many(1_000).await.unwrap();
    for number in 0..WAITING_MAX {
        let told = front.telephone(&format!("call-{number}"), "sip_1");
        assert_eq!(front.webhook(&told).await, 200, "{number}");
    }
    let mut told = front.telephone("one-more", "sip_1");
    told["id"] = json!("EV_1");
    assert_eq!(front.webhook(&told).await, 503);
    drop(held);
    until("all before meet the agent", || (0..WAITING_MAX).all(|number| front.rooms.dispatches(&format!("call-{number}")) == 1)).await;
    let mut tellings = 1; // places become free a moment after the last agent was sent
    while front.webhook(&told).await == 503 {
        tellings += 1;
        assert!(tellings < 1_000, "no place becomes free");
        tokio::task::yield_now().await;
    }
    until("it meets the agent when it is told again", || front.rooms.dispatches("one-more") == 1).await;
}

#[tokio::test]
async fn calls_are_found_by_id_and_room_until_forgotten_and_never_in_production() {
    let front = Front::start(&[]).await;
    let mut told = front.telephone("call-1", "sip_1");
    told["attributes"] =
        json!({ "sip.callID": "SCL_1", "sip.phoneNumber": "+15550001111", "sip.trunkPhoneNumber": "+15552223333", "sip.callStatus": "active" });
    assert_eq!(front.webhook(&told).await, 200);
    let expected = json!({
        "callId": "SCL_1", "roomName": "call-1", "participantIdentity": "sip_1", "from": "+15550001111", "to": "+15552223333",
        "state": "active", "startedAtUnixMs": 1_000, "endedAtUnixMs": Value::Null,
    });
    assert_eq!(front.get("/telephony/calls/SCL_1").await, (200, expected.clone()));
    assert_eq!(front.get("/telephony/calls/by-room/call-1").await, (200, expected));

    let left = json!({ "event": "participant_left", "room": "call-1", "identity": "sip_1", "kind": "SIP", "at": 5_000 });
    assert_eq!(front.webhook(&left).await, 200);
    assert_eq!(front.webhook(&told).await, 200, "told late once more");
    let (_, call) = front.get("/telephony/calls/SCL_1").await;
    assert_eq!((&call["state"], &call["endedAtUnixMs"]), (&json!("ended"), &json!(5_000)));

    let unnamed = front.telephone("call-2", "sip_2");
    assert_eq!(front.webhook(&unnamed).await, 200);
    assert_eq!(front.webhook(&json!({ "event": "room_finished", "room": "call-2", "at": 6_000 })).await, 200);
    assert_eq!(front.get("/telephony/calls/PA_sip_2").await.1["state"], "ended");
    assert_eq!(front.get("/telephony/calls/SCL_9").await.0, 404);

    for hidden in [("VOICED_HTTP__PRODUCTION", "true"), ("TELEPHONY_ENABLED", "false")] {
        let front = Front::start(&[hidden]).await;
        let told = front.telephone("call-1", "sip_1");
        assert_eq!(front.webhook(&told).await, if hidden.0 == "TELEPHONY_ENABLED" { 404 } else { 200 });
        assert_eq!(front.get("/telephony/calls/PA_sip_1").await.0, 404, "{hidden:?}");
        assert_eq!(front.get("/telephony/calls/by-room/call-1").await.0, 404, "{hidden:?}");
    }
}
