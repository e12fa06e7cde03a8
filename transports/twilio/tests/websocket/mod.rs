//! The stream's WebSocket over real sockets, against another implementation and by hand.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};
use voiced_core::line::{FromLine, Gone, ToLine};

use crate::twilio::{self, Host, Socket};

#[tokio::test]
async fn the_upgrade_proves_itself_and_agrees_upon_no_extension() {
    let host = Host::start(|_| {}).await;
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let asked = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let answer = host.ask_stream(&format!("{asked}{key}")).await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101 ") && answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{answer}");
    assert!(!answer.contains("extensions") && !answer.contains("protocol:"), "{answer}");
    let without_key = asked.to_owned();
    let of_another_version = format!("{}{key}", asked.replace("13", "8"));
    let of_a_short_key = format!("{asked}Sec-WebSocket-Key: AAAA\r\n");
    let for_something_else = format!("{}{key}", asked.replace("WebSocket\r\n", "h2c\r\n"));
    for headers in [without_key, of_another_version, of_a_short_key, for_something_else, String::new()] {
        let answer = host.ask_stream(&headers).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{headers:?}: {answer}");
    }
}

#[tokio::test]
async fn a_message_in_pieces_around_a_ping_is_heard_and_the_ping_is_answered() {
    let mut host = Host::start(|_| {}).await;
    let start = host.start_message().await;
    let (mut socket, _, mut line) = host.call(start).await;
    let media = twilio::media(1, 0, 160).to_string().into_bytes();
    let (begin, rest) = media.split_at(100);
    let (middle, end) = rest.split_at(100);
    send(&mut socket, OpCode::Data(Data::Text), false, begin).await;
    socket.send(Message::Ping("once".into())).await.expect("sent");
    send(&mut socket, OpCode::Data(Data::Continue), false, middle).await;
    send(&mut socket, OpCode::Data(Data::Continue), true, end).await;
    assert!(matches!(line.from.recv().await, Some(FromLine::Audio(packet)) if packet.payload() == [0x7F; 160]));
    assert_eq!(socket.next().await.and_then(Result::ok), Some(Message::Pong("once".into())));
}

#[tokio::test]
async fn a_message_that_arrives_byte_by_byte_is_heard() {
    let mut host = Host::start(|_| {}).await;
    let start = host.start_message().await;
    let (mut socket, _, mut line) = host.call(start).await;
    let text = br##"{"event":"dtmf","dtmf":{"digit":"#"}}"##;
    for byte in [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0][..], text].concat() {
        socket.get_mut().write_all(&[byte]).await.expect("sent");
        socket.get_mut().flush().await.expect("sent");
        tokio::task::yield_now().await;
    }
    assert!(matches!(line.from.recv().await, Some(FromLine::Dtmf('#'))));
}

#[tokio::test]
async fn what_is_no_websocket_is_misbehaviour_and_is_told_why() {
    for (bytes, code) in [
        (&[0x81, 0x02, b'h', b'i'][..], CloseCode::Protocol),
        (&[0xC1, 0x80, 0, 0, 0, 0], CloseCode::Protocol),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xFF], CloseCode::Invalid),
        (&[0x81, 0xFF, 0, 0, 0, 0, 0, 1, 0, 1], CloseCode::Size),
    ] {
        let mut host = Host::start(|_| {}).await;
        let start = host.start_message().await;
        let (mut socket, _, mut line) = host.call(start).await;
        socket.get_mut().write_all(bytes).await.expect("sent");
        assert!(matches!(line.from.recv().await, Some(FromLine::Gone(Gone::Misbehaved))), "{bytes:x?}");
        assert_eq!(host.counter("cut_off"), 1);
        let Some(Ok(Message::Close(Some(close)))) = socket.next().await else { panic!("no goodbye after {bytes:x?}") };
        assert_eq!(close.code, code);
    }
}

#[tokio::test]
async fn a_client_that_says_goodbye_is_answered_and_its_call_is_lost() {
    let mut host = Host::start(|_| {}).await;
    let start = host.start_message().await;
    let (mut socket, _, mut line) = host.call(start).await;
    let goodbye = CloseFrame { code: CloseCode::Away, reason: "later".into() };
    socket.close(Some(goodbye)).await.expect("sent");
    let Some(Ok(Message::Close(Some(answer)))) = socket.next().await else { panic!("no goodbye") };
    assert_eq!(answer.code, CloseCode::Away);
    assert!(matches!(line.from.recv().await, Some(FromLine::Gone(Gone::Lost))));
}

#[tokio::test]
async fn the_last_words_reach_a_client_that_is_still_talking() {
    let mut host = Host::start(|_| {}).await;
    let start = host.start_message().await;
    let (mut socket, _, line) = host.call(start).await;
    line.to.send(ToLine::Mark(1)).await.expect("the stream takes it");
    line.to.send(ToLine::HangUp).await.expect("the stream takes it");
    // sound that the server has no use for any more, and that must not make its kernel throw away what it has sent
    for chunk in 1..=20 {
        let _ = socket.feed(Message::text(twilio::media(chunk, chunk * 20, 160).to_string())).await;
    }
    let _ = socket.flush().await;
    assert_eq!(twilio::receive(&mut socket).await, json!({"event": "mark", "streamSid": twilio::STREAM_SID, "mark": {"name": "1"}}));
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
    assert!(socket.next().await.is_none(), "the connection is closed in order");
}

async fn send(socket: &mut Socket, opcode: OpCode, is_final: bool, payload: &[u8]) {
    let header = FrameHeader { opcode, is_final, ..FrameHeader::default() };
    socket.send(Message::Frame(Frame::from_payload(header, payload.to_vec().into()))).await.expect("sent");
}
