//! Text streams: texts cut into data packets, and put together again.
//!
//! A header opens a stream (its topic, attributes, id), chunks bring its text in order, a trailer closes it. One-shot
//! texts are such streams written at once. What comes in is bounded in texts and bytes, per room.

use livekit_protocol as proto;
use proto::data_packet::Value;
use proto::data_stream::{Chunk, Header, TextHeader, Trailer, header::ContentHeader};
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of text per packet: a data channel message stays below 16 KiB.
const CHUNK_BYTES: usize = 15_000;
/// Longest text taken in, in bytes: some 10 000 words, which is more than anyone types or says at once.
pub(super) const TEXT_BYTES_MAX: usize = 64 * 1_024;
/// Texts coming in at the same time.
const TEXTS_OPEN_MAX: usize = 64;

/// How a text is to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextOptions {
    /// What the text is about, such as `lk.transcription` or `lk.chat`.
    pub topic: String,
    /// Key and value pairs that go with it.
    pub attributes: HashMap<String, String>,
    /// The identities it is for; everyone when empty.
    pub to: Vec<String>,
    /// The identity whose words these are, when not one's own: agents may name the caller in transcripts.
    pub speaker: Option<String>,
}

/// The packet that opens a text stream.
pub(super) fn header(id: &str, options: &TextOptions, total_bytes: Option<usize>) -> Value {
    let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    Value::StreamHeader(Header {
        stream_id: id.to_owned(),
        timestamp,
        topic: options.topic.clone(),
        mime_type: "text/plain".to_owned(),
        total_length: total_bytes.map(|bytes| bytes as u64),
        attributes: options.attributes.clone(),
        content_header: Some(ContentHeader::TextHeader(TextHeader::default())),
        ..Header::default()
    })
}

/// The packets of a piece of text, the first of them numbered `index`.
pub(super) fn chunks<'a>(id: &'a str, index: u64, text: &'a str) -> impl Iterator<Item = Value> + 'a {
    (index..)
        .zip(pieces(text))
        .map(|(chunk_index, piece)| Value::StreamChunk(Chunk { stream_id: id.to_owned(), chunk_index, content: piece.as_bytes().to_vec(), ..Chunk::default() }))
}

/// The packet that closes a text stream.
pub(super) fn trailer(id: &str) -> Value {
    Value::StreamTrailer(Trailer { stream_id: id.to_owned(), ..Trailer::default() })
}

/// Cuts a text between characters.
fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (piece, rest) = text.split_at(text.floor_char_boundary(CHUNK_BYTES));
        text = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// A text that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub id: String,
    pub from: String,
    pub topic: String,
    pub attributes: HashMap<String, String>,
    pub content: String,
    pub complete: bool,
}

/// Texts that are coming in, by their stream's id.
#[derive(Debug, Default)]
pub(super) struct Texts {
    open: HashMap<String, Opened>,
}

#[derive(Debug)]
struct Opened {
    from: String,
    topic: String,
    attributes: HashMap<String, String>,
    bytes: Vec<u8>,
    next: u64,
    total: Option<u64>,
    whole: bool,
}

impl Texts {
    /// A stream begins; streams of bytes are not for us, nor is one too many.
    pub fn open(&mut self, from: &str, header: Header) {
        if !matches!(header.content_header, Some(ContentHeader::TextHeader(_))) {
            return;
        }
        if self.open.len() >= TEXTS_OPEN_MAX {
            tracing::debug!(from, "too many texts at once");
            return;
        }
        let Header { stream_id, topic, attributes, total_length: total, inline_content, .. } = header;
        let mut opened = Opened { from: from.to_owned(), topic, attributes, bytes: Vec::new(), next: 0, total, whole: true };
        opened.push(&inline_content.unwrap_or_default());
        self.open.insert(stream_id, opened);
    }

    /// A stream goes on.
    pub fn push(&mut self, chunk: &Chunk) {
        // a resume may send a chunk twice
        if let Some(opened) = self.open.get_mut(&chunk.stream_id).filter(|opened| chunk.chunk_index >= opened.next) {
            opened.whole &= chunk.chunk_index == opened.next;
            opened.next = chunk.chunk_index.saturating_add(1);
            opened.push(&chunk.content);
        }
    }

    /// A stream ends, and the text is there.
    pub fn close(&mut self, trailer: Trailer) -> Option<Text> {
        let mut opened = self.open.remove(&trailer.stream_id)?;
        opened.attributes.extend(trailer.attributes);
        let complete = opened.whole && trailer.reason.is_empty() && opened.total.is_none_or(|total| total == opened.bytes.len() as u64);
        let content = String::from_utf8_lossy(&opened.bytes).into_owned();
        Some(Text { id: trailer.stream_id, from: opened.from, topic: opened.topic, attributes: opened.attributes, content, complete })
    }

    /// Someone left: what they began will not end.
    pub fn forget(&mut self, from: &str) {
        self.open.retain(|_, opened| opened.from != from);
    }
}

impl Opened {
    fn push(&mut self, content: &[u8]) {
        let room = TEXT_BYTES_MAX - self.bytes.len();
        self.whole &= content.len() <= room;
        self.bytes.extend_from_slice(&content[..content.len().min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carry(packets: impl IntoIterator<Item = Value>) -> Vec<Text> {
        let mut texts = Texts::default();
        packets
            .into_iter()
            .filter_map(|packet| match packet {
                Value::StreamHeader(header) => {
                    texts.open("ann", header);
                    None
                }
                Value::StreamChunk(chunk) => {
                    texts.push(&chunk);
                    None
                }
                Value::StreamTrailer(trailer) => texts.close(trailer),
                _ => None,
            })
            .collect()
    }

    fn packets(text: &str) -> Vec<Value> {
        let options = TextOptions { topic: "lk.chat".into(), ..TextOptions::default() };
        [header("s", &options, Some(text.len()))].into_iter().chain(chunks("s", 0, text)).chain([trailer("s")]).collect()
    }

    #[test]
    fn a_long_text_arrives_as_it_was_sent() {
        let text = "ünïcödé ".repeat(4_000);
        let sent = packets(&text);
        assert!(sent.len() > 4, "cut into several packets");
        let received = carry(sent);
        assert_eq!(received.len(), 1);
        assert_eq!((received[0].content.as_str(), received[0].topic.as_str(), received[0].complete), (text.as_str(), "lk.chat", true));
    }

    #[test]
    fn a_text_with_a_hole_or_without_end_is_not_complete() {
        let mut sent = packets(&"a".repeat(40_000));
        sent.remove(2);
        assert!(!carry(sent)[0].complete);
        let endless = carry(packets(&"a".repeat(TEXT_BYTES_MAX + 1)));
        assert_eq!((endless[0].content.len(), endless[0].complete), (TEXT_BYTES_MAX, false));
    }

    #[test]
    fn a_chunk_that_comes_twice_counts_once() {
        let mut sent = packets("twice");
        sent.insert(1, sent[1].clone());
        assert_eq!(carry(sent)[0].content, "twice");
    }
}
