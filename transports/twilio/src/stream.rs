//! The media stream's socket.
//!
//! The upgrade's signature is checked first, then `start` must come soon and carry a token that holds. From then on
//! one loop waits for four things (a message, something to say, silence, old age) and applies each. However it ends,
//! the call learns of it by `Gone` and the socket is closed. A bad message is counted and ignored; too many, or one
//! too long, or a flood of any, and the client is cut off.

mod allowance;
mod open;
mod sound;

use crate::counters::{TwilioCounters, count};
use crate::message::{self, BadMessage, Message};
use crate::signature;
use crate::switchboard::Desk;
use crate::webhook::{is_sid, refuse};
use allowance::Allowance;
use axum::extract::ws::{self, WebSocket, WebSocketUpgrade};
use axum::extract::{OriginalUri, Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::SinkExt;
use open::Opened;
use rtrb::Producer;
use sound::Splitter;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite;
use voiced_core::line::{FromLine, Gone, ToLine};
use voiced_core::packet::Packet;

/// `GET /twilio/stream/{CallSid}`: checks the upgrade's signature and takes the socket.
pub(crate) async fn upgrade(
    State(desk): State<Arc<Desk>>,
    Path(call_sid): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    if !is_sid(&call_sid) {
        return refuse(&desk, uri.path(), &"the CallSid is malformed");
    }
    let url = desk.settings.stream_url(&call_sid);
    if let Err(reason) = signature::verify(&desk.settings, &headers, &url, &Vec::new()) {
        return refuse(&desk, uri.path(), &reason);
    }
    let bytes_max = desk.settings.message_bytes_max;
    upgrade.read_buffer_size(READ_BUFFER_BYTES).max_message_size(bytes_max).max_frame_size(bytes_max).on_upgrade(move |socket| run(desk, call_sid, socket))
}

/// Read at once from a socket: some three messages, more than mostly wait. The default of 128 KiB is cleared at each read
/// and held by each call.
const READ_BUFFER_BYTES: usize = 1_024;

/// Lives as long as the stream.
async fn run(desk: Arc<Desk>, call_sid: String, mut socket: WebSocket) {
    match open::open(&desk, &call_sid, &mut socket).await {
        Ok(opened) => {
            let gone = talk(&desk, opened, &mut socket).await;
            tracing::info!(call_sid, ?gone, "stream ended");
        }
        Err(reason) => {
            count(&desk.counters.refused_streams);
            tracing::warn!(call_sid, %reason, "stream refused");
        }
    }
    // a client that no longer reads cannot hold the task
    let _ = timeout(SEND_TIMEOUT, socket.close()).await;
}

/// A client that does not take a message for this long, with its socket buffers full, has stopped reading.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);
/// A call that does not take its `Gone` for this long is stuck itself.
const GONE_TIMEOUT: Duration = Duration::from_secs(1);
/// Messages to the call that wait at most: 5 s of sound. More means that the call has stalled: sound is dropped.
const FROM_LINE_MAX: usize = 256;
/// Places kept free of sound, for marks and keys.
const FROM_LINE_KEPT: usize = 32;
/// Messages to the client that wait at most: 5 s of sound; the call sees a full queue and counts what it drops.
const TO_LINE_MAX: usize = 256;

/// The loop. Returns why the line ended, the call having been told.
async fn talk(desk: &Desk, opened: Opened, socket: &mut WebSocket) -> Option<Gone> {
    let Opened { stream_sid, from, mut to, packets, .. } = opened;
    let idle = Duration::from_secs(desk.settings.idle_timeout_s);
    let end_at = Instant::now() + Duration::from_secs(desk.settings.max_duration_s);
    let mut silent_at = Instant::now() + idle;
    let mut ear = Ear {
        counters: &desk.counters,
        bad_left: desk.settings.bad_messages_max,
        allowance: Allowance::new(desk.settings.messages_per_s_max, Instant::now()),
        stream_sid: &stream_sid,
        from: &from,
        packets,
        splitter: Splitter::default(),
        sound: Vec::new(),
    };
    // one timer for the whole call, set again only where it finds that the caller was heard meanwhile
    let look = sleep_until(silent_at.min(end_at));
    tokio::pin!(look);
    let end = loop {
        let step = tokio::select! {
            // the caller's messages first, and nothing else is looked at while there are any: they are bounded by the allowance
            biased;
            received = socket.recv() => {
                let step = ear.apply(received);
                if step == Step::Heard {
                    silent_at = Instant::now() + idle;
                }
                step
            }
            said = to.recv() => say(&stream_sid, said.as_ref(), &mut to, socket).await,
            () = &mut look => {
                let due = silent_at.min(end_at);
                look.as_mut().reset(due);
                if Instant::now() < due { Step::Ignored } else { Step::End(Some(Gone::Lost)) }
            }
        };
        if let Step::End(end) = step {
            break end;
        }
    };
    if end == Some(Gone::Misbehaved) {
        count(&desk.counters.cut_off);
    }
    let now = Instant::now();
    if end == Some(Gone::Lost) && (now >= silent_at || now >= end_at) {
        count(&desk.counters.timed_out);
    }
    // after our own hang-up the call has nothing left to learn, but it is told all the same
    let _ = timeout(GONE_TIMEOUT, from.send(FromLine::Gone(end.unwrap_or(Gone::HungUp)))).await;
    end
}

/// What an input leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A good message: the client lives.
    Heard,
    /// Nothing of note.
    Ignored,
    /// The line has ended; `None` when we hung up.
    End(Option<Gone>),
}

/// What turns messages into [`FromLine`].
struct Ear<'a> {
    counters: &'a TwilioCounters,
    bad_left: u32,
    allowance: Allowance,
    stream_sid: &'a str,
    from: &'a mpsc::Sender<FromLine>,
    packets: Option<Producer<Packet>>,
    splitter: Splitter,
    sound: Vec<u8>,
}

impl Ear<'_> {
    fn apply(&mut self, received: Option<Result<ws::Message, axum::Error>>) -> Step {
        if !self.allowance.take(Instant::now()) {
            tracing::warn!(stream_sid = self.stream_sid, "more messages than a telephone sends");
            return Step::End(Some(Gone::Misbehaved));
        }
        match received {
            Some(Ok(ws::Message::Text(text))) => match message::parse(&text, Some(self.stream_sid)) {
                Ok(message) => self.hear(&message),
                Err(bad) => self.forgive(&bad),
            },
            Some(Ok(ws::Message::Binary(_))) => self.forgive(&BadMessage::Binary),
            Some(Ok(ws::Message::Ping(_) | ws::Message::Pong(_))) => Step::Ignored,
            Some(Err(error)) if is_misbehaviour(&error) => Step::End(Some(Gone::Misbehaved)),
            Some(Ok(ws::Message::Close(_)) | Err(_)) | None => Step::End(Some(Gone::Lost)),
        }
    }

    fn hear(&mut self, message: &Message<'_>) -> Step {
        match message {
            Message::Media(media) if media.track != "inbound" => return Step::Heard,
            Message::Media(media) => {
                if let Err(bad) = media.decode(&mut self.sound) {
                    return self.forgive(&bad);
                }
                let (from, packets, counters) = (self.from, &mut self.packets, self.counters);
                let fresh = self.splitter.split(media.chunk, media.timestamp, &self.sound, |packet| {
                    let taken = match packets {
                        Some(packets) => packets.push(packet).is_ok(),
                        None => from.capacity() > FROM_LINE_KEPT && from.try_send(FromLine::Audio(packet)).is_ok(),
                    };
                    if !taken {
                        count(&counters.dropped_packets);
                    }
                });
                if !fresh {
                    count(&self.counters.stale_media);
                }
            }
            Message::Dtmf(key) => self.tell(FromLine::Dtmf(*key)),
            Message::Mark(name) => match name.parse() {
                Ok(number) => self.tell(FromLine::Mark(number)),
                Err(_) => count(&self.counters.unknown_messages),
            },
            Message::Stop => return Step::End(Some(Gone::HungUp)),
            Message::Connected | Message::Start(_) => return self.forgive(&BadMessage::Empty("a second start")),
            Message::Unknown => count(&self.counters.unknown_messages),
        }
        Step::Heard
    }

    fn tell(&self, from_line: FromLine) {
        if self.from.try_send(from_line).is_err() {
            count(&self.counters.dropped_packets);
        }
    }

    fn forgive(&mut self, bad: &BadMessage) -> Step {
        count(&self.counters.bad_messages);
        tracing::debug!(stream_sid = self.stream_sid, %bad, "bad message");
        match self.bad_left.checked_sub(1) {
            Some(left) => {
                self.bad_left = left;
                Step::Ignored
            }
            None => Step::End(Some(Gone::Misbehaved)),
        }
    }
}

/// An oversize or malformed frame, as against a socket that died.
fn is_misbehaviour(error: &axum::Error) -> bool {
    use tungstenite::error::{Error, ProtocolError};
    match std::error::Error::source(error).and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => false,
        Some(Error::Capacity(_) | Error::Protocol(_) | Error::Utf8(_)) => true,
        _ => false,
    }
}

/// Sound in one message at most, in bytes: 400 ms. What is longer follows in the next.
const MEDIA_BYTES_MAX: usize = 3_200;

/// Sends this and whatever else is waiting, then flushes once. Packets that follow each other make one message: Twilio
/// plays any length, and each message costs both ends more than what is in it.
async fn say(stream_sid: &str, said: Option<&ToLine>, to: &mut mpsc::Receiver<ToLine>, socket: &mut WebSocket) -> Step {
    let mut next = said.copied();
    let mut sound: Vec<u8> = Vec::new();
    let sending = async {
        loop {
            let text = match next {
                Some(ToLine::Audio(packet)) => {
                    sound.extend_from_slice(packet.payload());
                    None
                }
                Some(ToLine::Mark(number)) => Some(message::mark(stream_sid, number)),
                Some(ToLine::Clear) => Some(message::clear(stream_sid)),
                // no verb follows the stream in our TwiML: closing the socket ends the call
                Some(ToLine::HangUp) | None => return socket.flush().await.map(|()| Step::End(None)),
            };
            let more = to.try_recv();
            let goes_on = text.is_none() && matches!(more, Ok(ToLine::Audio(_))) && sound.len() < MEDIA_BYTES_MAX;
            if !sound.is_empty() && !goes_on {
                socket.feed(ws::Message::Text(message::media(stream_sid, &sound).into())).await?;
                sound.clear();
            }
            if let Some(text) = text {
                socket.feed(ws::Message::Text(text.into())).await?;
            }
            match more {
                Ok(more) => next = Some(more),
                Err(_) => return socket.flush().await.map(|()| Step::Ignored),
            }
        }
    };
    match timeout(SEND_TIMEOUT, sending).await {
        Ok(Ok(step)) => step,
        Ok(Err(_)) | Err(_) => Step::End(Some(Gone::Lost)),
    }
}
