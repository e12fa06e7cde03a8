//! The media stream's socket.
//!
//! The upgrade's signature is checked first, then `start` must come soon and carry a token that holds. From then on
//! one loop waits for four things (a message, something to say, silence, old age) and applies each. However it ends,
//! the call learns of it by `Gone` and the socket is closed. A bad message is counted and ignored; too many, or one
//! too long, or a flood of any, and the client is cut off.

mod allowance;
pub(crate) mod frame;
mod handshake;
mod open;
mod socket;
pub(crate) mod sound;

use crate::counters::{TwilioCounters, count};
use crate::message::{self, BadMessage, Message};
use crate::signature;
use crate::switchboard::{Accepted, Desk};
use crate::webhook::{is_sid, refuse};
use allowance::Allowance;
use axum::extract::{OriginalUri, Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use frame::Received;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use open::Opened;
use socket::{Ended, Socket};
use sound::Splitter;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use voiced_core::line::{FromLine, Gone, LineSource, PacketSink, Said, ToLine};

/// `GET /twilio/stream/{CallSid}`: checks the upgrade's signature and takes the socket.
pub(crate) async fn upgrade(State(desk): State<Arc<Desk>>, Path(call_sid): Path<String>, OriginalUri(uri): OriginalUri, request: Request) -> Response {
    let (mut request, _) = request.into_parts();
    let response = match handshake::accept(&request) {
        Ok(response) => response,
        Err(reason) => return (StatusCode::BAD_REQUEST, reason.to_string()).into_response(),
    };
    if !is_sid(&call_sid) {
        return refuse(&desk, uri.path(), &"the CallSid is malformed");
    }
    let url = desk.settings.stream_url(&call_sid);
    if let Err(reason) = signature::verify(&desk.settings, &request.headers, &url, &Vec::new()) {
        return refuse(&desk, uri.path(), &reason);
    }
    let Some(upgrade) = request.extensions.remove::<OnUpgrade>() else { return StatusCode::UPGRADE_REQUIRED.into_response() };
    tokio::spawn(async move {
        // an error is a client that left before it had its answer
        if let Ok(connection) = upgrade.await {
            let socket = Socket::new(TokioIo::new(connection), desk.settings.message_bytes_max);
            run(desk, call_sid, socket).await;
        }
    });
    response
}

/// Lives as long as the stream.
async fn run(desk: Arc<Desk>, call_sid: String, mut socket: Socket) {
    let end = match open::open(&desk, &call_sid, &mut socket).await {
        Ok(opened) => {
            let gone = talk(&desk, opened, &mut socket).await;
            tracing::info!(call_sid, ?gone, "stream ended");
            gone
        }
        Err(reason) => {
            count(&desk.counters.refused_streams);
            tracing::warn!(call_sid, %reason, "stream refused");
            None
        }
    };
    // a client that no longer reads cannot hold the task
    let _ = timeout(SEND_TIMEOUT, socket.close(end.is_none())).await;
}

/// A client that does not take a message for this long, with its socket buffers full, has stopped reading.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);
/// A call that does not take its `Gone` for this long is stuck itself.
const GONE_TIMEOUT: Duration = Duration::from_secs(1);
/// Messages to the call that wait at most: 5 s of sound. More means that the call has stalled: sound is dropped.
const FROM_LINE_MAX: usize = 256;
/// Places kept free of sound, for marks and keys.
const FROM_LINE_KEPT: usize = 32;

/// The loop. Returns why the line ended, the call having been told.
async fn talk(desk: &Desk, opened: Opened, socket: &mut Socket) -> Option<Gone> {
    let Opened { stream_sid, from, call: Accepted { packets, mut to }, .. } = opened;
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
            heard = ear.listen(socket) => {
                if heard == Step::Heard {
                    silent_at = Instant::now() + idle;
                }
                match (heard, socket.owed()) {
                    (Step::Heard | Step::Ignored, Some(pong)) => send(socket, &pong, Step::Ignored, &desk.counters).await,
                    (step, _) => step,
                }
            }
            said = poll_fn(&mut to) => say(&stream_sid, &said, &mut to, socket, &desk.counters).await,
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
    packets: Option<PacketSink>,
    splitter: Splitter,
    sound: Vec<u8>,
}

impl Ear<'_> {
    /// Waits for messages and applies all that have come.
    async fn listen(&mut self, socket: &mut Socket) -> Step {
        let (mut read_at, mut heard) = (None, Step::Ignored);
        let flow = socket.receive(|received| match self.apply(&received, *read_at.get_or_insert_with(Instant::now)) {
            Step::End(end) => ControlFlow::Break(end),
            Step::Heard => {
                heard = Step::Heard;
                ControlFlow::Continue(())
            }
            Step::Ignored => ControlFlow::Continue(()),
        });
        match flow.await {
            Ok(ControlFlow::Continue(())) => heard,
            Ok(ControlFlow::Break(end)) => Step::End(end),
            Err(Ended::Broken(broken)) => {
                tracing::warn!(stream_sid = self.stream_sid, %broken, "what came is no WebSocket");
                Step::End(Some(Gone::Misbehaved))
            }
            Err(Ended::Lost) => Step::End(Some(Gone::Lost)),
        }
    }

    fn apply(&mut self, received: &Received<'_>, now: Instant) -> Step {
        if !self.allowance.take(now) {
            tracing::warn!(stream_sid = self.stream_sid, "more messages than a telephone sends");
            return Step::End(Some(Gone::Misbehaved));
        }
        match received {
            Received::Text(text) => match message::parse(text, Some(self.stream_sid)) {
                Ok(message) => self.hear(&message),
                Err(bad) => self.forgive(&bad),
            },
            Received::Binary => self.forgive(&BadMessage::Binary),
            Received::Ping(_) | Received::Pong | Received::Piece => Step::Ignored,
            Received::Close(_) => Step::End(Some(Gone::Lost)),
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
                        Some(packets) => packets(&packet),
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

/// Sound in one message at most, in bytes: 400 ms. What is longer follows in the next.
const MEDIA_BYTES_MAX: usize = 3_200;
/// Sent at once, in bytes, when more is waiting than that: a quarter of what may wait.
const SENT_BYTES_MAX: usize = 16 * 1_024;

/// Sends this and whatever else is waiting, at once. Packets that follow each other make one message: Twilio plays any
/// length, and each message costs both ends more than what is in it.
async fn say(stream_sid: &str, said: &Said, to: &mut LineSource, socket: &mut Socket, counters: &TwilioCounters) -> Step {
    let (mut next, mut sound, mut frames) = (*said, Vec::new(), Vec::new());
    let (mut cleared_at, mut due_at) = (None, None);
    let step = loop {
        due_at = due_at.or(next.due_at);
        let text = match next.what {
            ToLine::Audio(packet) => {
                sound.extend_from_slice(packet.payload());
                None
            }
            ToLine::Mark(number) => Some(message::mark(stream_sid, number)),
            ToLine::Clear => {
                cleared_at = cleared_at.or(Some(next.said_at));
                Some(message::clear(stream_sid))
            }
            // no verb follows the stream in our TwiML: closing the socket ends the call
            ToLine::HangUp => break Step::End(None),
        };
        let more = if frames.len() < SENT_BYTES_MAX { waiting(to).await } else { None };
        let goes_on = text.is_none() && matches!(more, Some(Said { what: ToLine::Audio(_), .. })) && sound.len() < MEDIA_BYTES_MAX;
        if !sound.is_empty() && !goes_on {
            frame::text(&message::media(stream_sid, &sound), &mut frames);
            sound.clear();
        }
        if let Some(text) = text {
            frame::text(&text, &mut frames);
        }
        match more {
            Some(more) => next = more,
            None => break Step::Ignored,
        }
    };
    let step = send(socket, &frames, step, counters).await;
    for (since, delays) in [(cleared_at, &counters.clear_sent), (due_at, &counters.reply_sent)] {
        if let Some(since) = since {
            delays.observe(since.elapsed());
        }
    }
    step
}

/// What there is to say now, without waiting.
async fn waiting(to: &mut LineSource) -> Option<Said> {
    poll_fn(|context| {
        Poll::Ready(match to(context) {
            Poll::Ready(said) => Some(said),
            Poll::Pending => None,
        })
    })
    .await
}

/// Sends, and goes on with `step` if the client takes it.
async fn send(socket: &mut Socket, frames: &[u8], step: Step, counters: &TwilioCounters) -> Step {
    match timeout(SEND_TIMEOUT, socket.send(frames)).await {
        Ok(Ok(())) => step,
        Ok(Err(_)) => Step::End(Some(Gone::Lost)),
        Err(_) => {
            count(&counters.timed_out);
            Step::End(Some(Gone::Lost))
        }
    }
}
