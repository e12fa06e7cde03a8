//! Whole streams over real sockets: a client that speaks Twilio's protocol against the router.

mod twilio;
mod websocket;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use twilio::{CALL_SID, Host, STREAM_SID};
use voiced_core::line::{FromLine, Gone, ToLine};
use voiced_core::packet::{Codec, Packet};

#[tokio::test]
async fn a_call_goes_from_webhook_to_stop_and_both_sides_hear_each_other() {
    let mut host = Host::start(|_| {}).await;
    let start = host.start_message().await;
    let (mut socket, call, mut line) = host.call(start).await;
    assert_eq!((call.from.as_str(), call.to.as_str()), ("+5511999990000", "+551130000000"));
    assert_eq!((call.direction.as_str(), call.custom["tenant"].as_str()), ("inbound", "acme"));

    twilio::send(&mut socket, twilio::media(1, 0, 320)).await;
    twilio::send(&mut socket, json!({"event": "dtmf", "streamSid": STREAM_SID, "dtmf": {"digit": "5"}})).await;
    twilio::send(&mut socket, json!({"event": "mark", "streamSid": STREAM_SID, "mark": {"name": "7"}})).await;
    for expected in [(0, 0), (1, 20)] {
        let Some(FromLine::Audio(packet)) = line.from.recv().await else { panic!("no sound") };
        assert_eq!((packet.sequence, packet.timestamp_ms, packet.payload().len()), (expected.0, expected.1, 160));
    }
    assert!(matches!(line.from.recv().await, Some(FromLine::Dtmf('5'))));
    assert!(matches!(line.from.recv().await, Some(FromLine::Mark(7))));

    let packet = Packet::new(Codec::Mulaw, 0, 0, &[0xFF; 160]).expect("a packet");
    // packets that wait together are one message
    for said in [ToLine::Audio(packet), ToLine::Audio(packet), ToLine::Audio(packet), ToLine::Mark(8), ToLine::Clear] {
        line.to.try_send(said).expect("the stream takes it");
    }
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(twilio::receive(&mut socket).await);
    }
    assert_eq!(heard[0]["media"]["payload"].as_str().map(str::len), Some(640));
    assert_eq!(heard[1], json!({"event": "mark", "streamSid": STREAM_SID, "mark": {"name": "8"}}));
    assert_eq!(heard[2], json!({"event": "clear", "streamSid": STREAM_SID}));

    twilio::send(&mut socket, json!({"event": "stop", "streamSid": STREAM_SID, "stop": {}})).await;
    assert!(matches!(line.from.recv().await, Some(FromLine::Gone(Gone::HungUp))));
    assert!(line.from.recv().await.is_none());
}

#[tokio::test]
async fn an_agent_that_hangs_up_closes_the_socket_after_its_last_words() {
    let mut host = Host::start(|_| {}).await;
    let start = host.start_message().await;
    let (mut socket, _, line) = host.call(start).await;
    line.to.send(ToLine::Mark(1)).await.expect("the stream takes it");
    line.to.send(ToLine::HangUp).await.expect("the stream takes it");
    assert_eq!(twilio::receive(&mut socket).await["event"], "mark");
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
}

#[tokio::test]
async fn an_upgrade_without_twilios_signature_is_refused() {
    let host = Host::start(|_| {}).await;
    assert_eq!(host.dial(None).await.err(), Some(403));
    assert_eq!(host.dial(Some("AAAAAAAAAAAAAAAAAAAAAAAAAAA=")).await.err(), Some(403));
    assert_eq!(host.counter("refused_requests"), 2);
}

#[tokio::test]
async fn a_stream_without_a_token_or_with_one_for_something_else_is_closed() {
    let host = Host::start(|_| {}).await;
    let good = host.start_message().await;
    let mut without = good.clone();
    without["start"]["customParameters"] = json!({});
    assert!(host.is_refused(without).await);
    let mut of_another_call = good.clone();
    of_another_call["start"]["callSid"] = json!("CA99999999999999999999999999999999");
    assert!(host.is_refused(of_another_call).await);
    let mut changed = good.clone();
    changed["start"]["customParameters"]["from"] = json!("+1");
    assert!(host.is_refused(changed).await);
    assert_eq!(host.counter("refused_streams"), 3);
}

#[tokio::test]
async fn a_token_is_good_once_and_a_call_has_one_stream() {
    let mut host = Host::start(|_| {}).await;
    let (first, second) = (host.start_message().await, host.start_message().await);
    let (mut socket, _, mut line) = host.call(first.clone()).await;
    assert!(host.is_refused(first.clone()).await, "replayed while the call lives");
    assert!(host.is_refused(second).await, "a second stream for the call");
    twilio::send(&mut socket, json!({"event": "stop"})).await;
    assert!(matches!(line.from.recv().await, Some(FromLine::Gone(Gone::HungUp))));
    assert!(host.is_refused(first).await, "replayed after the call");
}

#[tokio::test]
async fn garbage_is_counted_and_ignored_until_it_is_too_much() {
    let mut host = Host::start(|settings| settings.bad_messages_max = 3).await;
    let start = host.start_message().await;
    let (mut socket, _, mut line) = host.call(start).await;
    socket.send(Message::text("{")).await.expect("sent");
    socket.send(Message::binary(vec![1, 2])).await.expect("sent");
    twilio::send(&mut socket, json!({"event": "media", "streamSid": "MZother", "media": {"payload": ""}})).await;
    twilio::send(&mut socket, twilio::media(1, 0, 160)).await;
    assert!(matches!(line.from.recv().await, Some(FromLine::Audio(_))));
    socket.send(Message::text("[]")).await.expect("sent");
    assert!(matches!(line.from.recv().await, Some(FromLine::Gone(Gone::Misbehaved))));
    assert_eq!((host.counter("bad_messages"), host.counter("cut_off")), (4, 1));
}

#[tokio::test]
async fn an_oversize_message_ends_the_stream() {
    let mut host = Host::start(|settings| settings.message_bytes_max = 4_096).await;
    let start = host.start_message().await;
    let (mut socket, _, mut line) = host.call(start).await;
    twilio::send(&mut socket, twilio::media(1, 0, 8_000)).await;
    assert!(matches!(line.from.recv().await, Some(FromLine::Gone(Gone::Misbehaved))));
}

#[tokio::test]
async fn a_silent_socket_is_lost() {
    let mut host = Host::start(|settings| settings.idle_timeout_s = 1).await;
    let start = host.start_message().await;
    let (_socket, _, mut line) = host.call(start).await;
    assert!(matches!(line.from.recv().await, Some(FromLine::Gone(Gone::Lost))));
    assert_eq!(host.counter("timed_out"), 1);
}

#[tokio::test]
async fn a_dead_socket_is_lost() {
    let mut host = Host::start(|_| {}).await;
    let start = host.start_message().await;
    let (socket, _, mut line) = host.call(start).await;
    drop(socket);
    assert!(matches!(line.from.recv().await, Some(FromLine::Gone(Gone::Lost))));
    assert_eq!(host.counter("timed_out"), 0);
}

#[tokio::test]
async fn a_client_that_never_says_start_is_closed() {
    let host = Host::start(|settings| settings.start_timeout_s = 0).await;
    let mut socket = host.dial_signed().await;
    assert!(twilio::is_closed(&mut socket).await);
}

#[tokio::test]
async fn a_call_that_stalls_loses_sound_but_not_its_marks() {
    let mut host = Host::start(|_| {}).await;
    let start = host.start_message().await;
    let (mut socket, _, mut line) = host.call(start).await;
    for chunk in 1..=400 {
        twilio::send(&mut socket, twilio::media(chunk, chunk * 20, 160)).await;
    }
    twilio::send(&mut socket, json!({"event": "mark", "mark": {"name": "1"}})).await;
    twilio::send(&mut socket, json!({"event": "stop"})).await;
    while host.counter("dropped_packets") < 176 {
        tokio::task::yield_now().await;
    }
    let mut rest = Vec::new();
    while let Some(from_line) = line.from.recv().await {
        rest.push(from_line);
    }
    let sounds = rest.iter().filter(|from_line| matches!(from_line, FromLine::Audio(_))).count();
    assert_eq!(sounds as u64 + host.counter("dropped_packets"), 400);
    assert!(matches!(rest[sounds..], [FromLine::Mark(1), FromLine::Gone(Gone::HungUp)]));
}

#[tokio::test]
async fn webhooks_in_json_are_believed_by_the_hash_that_is_signed() {
    let host = Host::start(|_| {}).await;
    let ringing = json!({"CallSid": CALL_SID, "From": "+5511999990000", "To": "+551130000000", "Direction": "inbound"});
    let (status, twiml) = host.post_json("/twilio/voice", &ringing, &ringing).await;
    assert!(status == 200 && twiml.contains("+5511999990000") && !twiml.contains("bodySHA256"), "{twiml}");
    let completed = json!({"CallSid": CALL_SID, "CallStatus": "completed", "CallDuration": 12});
    assert_eq!(host.post_json("/twilio/status", &completed, &completed).await.0, 204);
    assert_eq!(host.statuses(), [(CALL_SID.to_owned(), "completed".to_owned())]);
    assert_eq!(host.post_json("/twilio/status", &completed, &ringing).await.0, 403, "another body");
}

#[tokio::test]
async fn a_webhook_is_signed_or_refused() {
    let host = Host::start(|_| {}).await;
    let (status, _) = host.post("/twilio/voice?tenant=acme", &[("CallSid", CALL_SID)], Some("AAAA")).await;
    assert_eq!(status, 403);
    let (status, _) = host.post("/twilio/status", &[("CallSid", CALL_SID)], None).await;
    assert_eq!(status, 403);
    let (status, body) = host.post_signed("/twilio/status", &[("CallSid", CALL_SID), ("CallStatus", "completed")]).await;
    assert_eq!((status, body.as_str()), (204, ""));
    assert_eq!(host.statuses(), [(CALL_SID.to_owned(), "completed".to_owned())]);
}

#[tokio::test]
async fn a_full_host_apologises() {
    let host = Host::start(|_| {}).await;
    host.has_places(0);
    let (status, body) = host.post_signed("/twilio/voice", &[("CallSid", CALL_SID), ("AccountSid", twilio::ACCOUNT_SID)]).await;
    assert_eq!(status, 200);
    assert!(body.contains("<Say>") && body.contains("<Hangup/>") && !body.contains("<Stream"), "{body}");
}

#[tokio::test]
async fn of_callers_who_ring_at_once_no_more_are_connected_than_there_are_places() {
    let mut host = Host::start(|_| {}).await;
    host.has_places(1);
    let connects = async |host: &Host, call_sid| host.post_signed("/twilio/voice", &[("CallSid", call_sid)]).await.1.contains("<Stream");
    let start = host.start_message().await;
    assert!(!connects(&host, "CA2").await, "the one place is promised");
    let _call = host.call(start).await;
    assert!(connects(&host, "CA2").await, "whether the first has taken it is for the daemon to count");
    assert!(!connects(&host, "CA3").await);
    host.post_signed("/twilio/status", &[("CallSid", "CA2"), ("CallStatus", "completed")]).await;
    assert!(connects(&host, "CA3").await, "who hung up first needs no place");
}

#[tokio::test]
async fn a_call_of_another_account_is_refused() {
    let host = Host::start(|settings| settings.account_sid = Some("AC1".to_owned())).await;
    let (status, _) = host.post_signed("/twilio/voice", &[("CallSid", CALL_SID), ("AccountSid", "AC2")]).await;
    assert_eq!(status, 403);
}

#[tokio::test]
async fn the_twiml_names_the_stream_of_the_call() {
    let host = Host::start(|_| {}).await;
    let (_, body) = host.voice().await;
    let url = format!("<Stream url=\"wss://voice.example.test/twilio/stream/{CALL_SID}\">");
    assert!(body.starts_with("<?xml") && body.contains(&url), "{body}");
    let parameters: Value = twilio::parameters(&body);
    assert_eq!(parameters["from"], "+5511999990000");
}
