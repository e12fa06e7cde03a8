//! Data packets: texts, questions, keys, and messages of the application.
//!
//! Reliable packets are numbered by their sender, so that one which a resume brings twice counts once.

use super::event::RoomEvent;
use super::membership::Out;
use super::rpc::{self, Question, Questions};
use super::text::{Text, Texts};
use crate::media::Order;
use livekit_protocol as proto;
use prost::Message as _;
use proto::data_packet::Value;
use std::collections::HashMap;
use std::time::Instant;

/// Senders whose last number is remembered: more people than a room with an agent has at once.
const SENDERS_MAX: usize = 1_024;

/// What is on its way in and out.
#[derive(Debug, Default)]
pub(super) struct Mail {
    texts: Texts,
    questions: Questions,
    sequence: u32,
    heard: HashMap<String, u32>,
}

impl Mail {
    /// Puts a packet on its way.
    pub fn send(&mut self, value: Value, to: Vec<String>, speaker: Option<String>, reliable: bool, out: &mut Out) {
        let participant_identity = speaker.unwrap_or_default();
        let mut packet = proto::DataPacket { destination_identities: to, participant_identity, value: Some(value), ..Default::default() };
        if reliable {
            self.sequence += 1;
            packet.sequence = self.sequence;
        }
        out.orders.push(Order::Data { reliable, message: packet.encode_to_vec() });
    }

    /// Puts a question on its way.
    pub fn ask(&mut self, id: String, question: Question, out: &mut Out) {
        if let Some((to, value)) = self.questions.ask(id, question) {
            self.send(value, vec![to], None, true, out);
        }
    }

    /// Takes in a packet.
    pub fn receive(&mut self, bytes: &[u8], now: Instant, out: &mut Out) {
        let Ok(proto::DataPacket { participant_identity: from, participant_sid, sequence, value: Some(value), .. }) = proto::DataPacket::decode(bytes) else {
            tracing::debug!(bytes = bytes.len(), "data packet not understood");
            return;
        };
        if sequence > 0 && !self.is_new(&participant_sid, sequence) {
            return;
        }
        match value {
            Value::StreamHeader(header) => self.texts.open(&from, header),
            Value::StreamChunk(chunk) => self.texts.push(&chunk),
            Value::StreamTrailer(trailer) => {
                if let Some(Text { id, from, topic, attributes, content: text, complete }) = self.texts.close(trailer) {
                    out.events.push(RoomEvent::Text { topic, from, id, attributes, text, complete });
                }
            }
            Value::ChatMessage(proto::ChatMessage { id, message: text, .. }) => {
                out.events.push(RoomEvent::Text { topic: "lk.chat".to_owned(), from, id, attributes: HashMap::new(), text, complete: true });
            }
            Value::User(proto::UserPacket { topic, payload, .. }) => out.events.push(RoomEvent::Data { from, topic: topic.unwrap_or_default(), payload }),
            Value::SipDtmf(proto::SipDtmf { digit, .. }) => out.events.push(RoomEvent::Dtmf { from, digit }),
            Value::RpcRequest(request) => {
                self.send(rpc::acknowledgement(&request.id), vec![from.clone()], None, true, out);
                out.events.push(RoomEvent::RpcRequest(rpc::request(&from, request, now)));
            }
            Value::RpcResponse(response) => self.questions.answer(response),
            _ => {}
        }
    }

    /// Someone left: what they began will not end, what they were asked will not be answered.
    pub fn forget(&mut self, identity: &str) {
        self.texts.forget(identity);
        self.questions.forget(identity);
    }

    /// Senders count from one again.
    pub fn rejoined(&mut self) {
        self.heard.clear();
    }

    fn is_new(&mut self, sender_sid: &str, sequence: u32) -> bool {
        if self.heard.len() >= SENDERS_MAX {
            self.heard.clear();
        }
        let last = self.heard.entry(sender_sid.to_owned()).or_default();
        let new = sequence > *last;
        *last = sequence.max(*last);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reliable_packet_that_comes_twice_counts_once() {
        let (mut ann, mut bob) = (Mail::default(), Mail::default());
        let mut sent = Out::default();
        for digit in ["1", "2"] {
            ann.send(Value::SipDtmf(proto::SipDtmf { code: 1, digit: digit.to_owned() }), Vec::new(), None, true, &mut sent);
        }
        let mut received = Out::default();
        for order in sent.orders.iter().chain(&sent.orders) {
            let Order::Data { message, .. } = order else { continue };
            bob.receive(message, Instant::now(), &mut received);
        }
        let key = |digit: &str| RoomEvent::Dtmf { from: String::new(), digit: digit.to_owned() };
        assert_eq!(received.events, [key("1"), key("2")]);
    }

    #[test]
    fn what_is_no_packet_is_ignored() {
        let mut out = Out::default();
        for bytes in [&b""[..], b"\xFF\xFF\xFF", &[0x0A, 0xFF, 1]] {
            Mail::default().receive(bytes, Instant::now(), &mut out);
        }
        assert_eq!(out.events, []);
    }
}
