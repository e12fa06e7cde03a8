//! What a provider may send, without a socket: the entrances for fuzzing. Nothing here panics or grows beyond its input,
//! whatever the bytes are.

use crate::account::{DEEPGRAM, OPENAI};
use crate::descriptor::{Descriptor, Role};
use crate::http::refusal;
use crate::pcm::PcmDecoder;
use crate::sse::SseDecoder;
use crate::tools::Round;
use crate::{cartesia, deepgram, openai_chat, realtime};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};

/// A message of Deepgram.
pub fn deepgram(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = deepgram::decode(text);
    }
}

/// A message of Cartesia, and its sound.
pub fn cartesia(bytes: &[u8]) {
    if let Ok(cartesia::Message::Audio { bytes: sound, .. }) = cartesia::decode(&String::from_utf8_lossy(bytes)) {
        assert!(PcmDecoder::default().push(&sound).len() <= bytes.len());
    }
}

/// A message of a realtime model.
pub fn realtime(bytes: &[u8]) {
    let _ = realtime::decode(&String::from_utf8_lossy(bytes));
}

/// A chat completion's stream, cut into pieces whose length the first byte says.
pub fn openai_chat(bytes: &[u8]) {
    let Some((size, stream)) = bytes.split_first() else { return };
    let (mut sse, mut events, mut round) = (SseDecoder::default(), Vec::new(), Round::default());
    for piece in stream.chunks(usize::from(*size) + 1) {
        if sse.push(piece, &mut events).is_err() {
            return;
        }
    }
    events.extend(sse.finish());
    for event in events {
        if let Ok(delta) = openai_chat::decode(&event) {
            round.add(&delta.tools);
        }
    }
}

/// A refusal: its status in two bytes, a line for `Retry-After`, the body.
pub fn refused(bytes: &[u8]) {
    let Some((status, rest)) = bytes.split_first_chunk() else { return };
    let Ok(status) = StatusCode::from_u16(u16::from_be_bytes(*status) % 1_000) else { return };
    let (after, body) = rest.split_at(rest.iter().position(|byte| *byte == b'\n').unwrap_or(0));
    let after = HeaderValue::from_bytes(after).map(|after| HeaderMap::from_iter([(RETRY_AFTER, after)])).unwrap_or_default();
    for vendor in [OPENAI, DEEPGRAM] {
        let told = refusal(vendor, status, &after, &String::from_utf8_lossy(body)).to_string();
        assert!(told.len() < 2_000 && !told.contains('\n'), "{told}");
    }
}

/// What names a provider in settings, in a job and in a request.
pub fn descriptor(bytes: &[u8]) {
    for role in [Role::Stt, Role::Llm, Role::Tts] {
        let _ = Descriptor::parse(role, &String::from_utf8_lossy(bytes));
    }
}
