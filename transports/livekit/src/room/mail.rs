//! Data packets: texts, questions, keys, and messages of the application.
//!
//! Reliable packets are numbered by their sender. The last of them are kept: after a resume the server says which it has
//! seen last, and those after it are sent again. One that comes twice counts once.

use super::event::RoomEvent;
use super::membership::Out;
use super::rpc::{self, Question, Questions};
use super::text::{Text, Texts};
use crate::media::{DATA_WAITING_MAX, Order};
use livekit_protocol as proto;
use prost::Message as _;
use proto::data_packet::Value;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// Senders whose last number is remembered: more people than a room with an agent has at once.
const SENDERS_MAX: usize = 1_024;
/// Reliable packets kept for sending again, and their bytes: transcripts of several seconds, which is how long a loss stays
/// unseen.
const KEPT_MAX: usize = DATA_WAITING_MAX;
const KEPT_BYTES_MAX: usize = 128 * 1_024;

/// What is on its way in and out.
#[derive(Debug, Default)]
pub(super) struct Mail {
    texts: Texts,
    questions: Questions,
    sequence: u32,
    kept: VecDeque<(u32, Vec<u8>)>,
    kept_bytes: usize,
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
        let message = packet.encode_to_vec();
        if reliable {
            self.keep(message.clone());
        }
        out.orders.push(Order::Data { reliable, message });
    }

    /// The server took us back and has seen our packets up to `last_seen`: the later ones are sent again, in place of
    /// those that wait, which are among them.
    pub fn resumed(&mut self, last_seen: u32, out: &mut Out) {
        while self.kept.front().is_some_and(|(sequence, _)| *sequence <= last_seen) {
            self.drop_oldest();
        }
        if self.kept.front().is_some_and(|(sequence, _)| *sequence > last_seen + 1) {
            tracing::warn!(last_seen, "data from before the loss cannot be sent again");
        }
        let messages: Vec<_> = self.kept.iter().map(|(_, message)| message.clone()).collect();
        if !messages.is_empty() {
            out.orders.push(Order::Resend(messages));
        }
    }

    /// What was received last from each sender, for the server to go on from there.
    pub fn received(&self) -> Vec<proto::DataChannelReceiveState> {
        self.heard.iter().map(|(sid, last_seq)| proto::DataChannelReceiveState { publisher_sid: sid.clone(), last_seq: *last_seq }).collect()
    }

    fn keep(&mut self, message: Vec<u8>) {
        self.kept_bytes += message.len();
        self.kept.push_back((self.sequence, message));
        while self.kept.len() > KEPT_MAX || self.kept_bytes > KEPT_BYTES_MAX {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, message)) = self.kept.pop_front() {
            self.kept_bytes -= message.len();
        }
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

    /// A new stay: others count from one again, and what of ours the server has seen is not known any more.
    pub fn rejoined(&mut self) {
        self.heard.clear();
        self.kept.clear();
        self.kept_bytes = 0;
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
    fn after_a_resume_only_what_the_server_has_not_seen_is_sent_again() {
        let (mut ann, mut out) = (Mail::default(), Out::default());
        for digit in ["1", "2", "3"] {
            ann.send(Value::SipDtmf(proto::SipDtmf { code: 1, digit: digit.to_owned() }), Vec::new(), None, true, &mut out);
        }
        let sequences = |out: &Out| match out.orders.last() {
            Some(Order::Resend(messages)) => messages.iter().map(|message| proto::DataPacket::decode(&**message).unwrap().sequence).collect(),
            _ => Vec::new(),
        };
        ann.resumed(1, &mut out);
        assert_eq!(sequences(&out), [2, 3]);
        ann.resumed(2, &mut out);
        assert_eq!(sequences(&out), [3], "a second loss right after the first");
        let mut out = Out::default();
        ann.resumed(3, &mut out);
        assert_eq!(sequences(&out), [0; 0], "all of it was seen");
    }

    #[test]
    fn what_is_kept_for_a_resume_is_bounded() {
        let mut ann = Mail::default();
        for bytes in [10, KEPT_BYTES_MAX / 4].into_iter().cycle().take(4 * KEPT_MAX) {
            let user = proto::UserPacket { payload: vec![0; bytes], ..Default::default() };
            ann.send(Value::User(user), Vec::new(), None, true, &mut Out::default());
            assert!(ann.kept.len() <= KEPT_MAX && ann.kept_bytes <= KEPT_BYTES_MAX);
        }
        assert!(ann.kept_bytes > 0);
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
