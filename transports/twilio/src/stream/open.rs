//! The opening of a stream: from the upgrade to a call that has its line.

use super::FROM_LINE_MAX;
use super::frame::Received;
use super::socket::Socket;
use crate::counters::count;
use crate::message::{self, Count, Message, Start};
use crate::switchboard::{Accepted, Desk, IncomingCall, Refused};
use crate::token::{self, BadToken};
use crate::webhook::{is_sid, now_s};
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use voiced_core::line::FromLine;

/// A stream whose call has its line.
pub(super) struct Opened {
    pub(super) stream_sid: String,
    pub(super) from: mpsc::Sender<FromLine>,
    pub(super) call: Accepted,
    /// Held as long as the stream lives.
    pub(super) _live: Live,
}

/// Why a stream does not open.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotOpened {
    #[error("no start in time")]
    Late,
    #[error("something else than connected and start came first")]
    Garbage,
    #[error("start is of another call than the URL, or of another account")]
    OtherCall,
    #[error("the media format is not mono mu-law at 8 kHz")]
    Format,
    #[error(transparent)]
    Token(#[from] BadToken),
    #[error("the call has a stream already")]
    Second,
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Waits for `start`, checks it, and hands the call its line.
pub(super) async fn open(desk: &Arc<Desk>, call_sid: &str, socket: &mut Socket) -> Result<Opened, NotOpened> {
    let limit = Duration::from_secs(desk.settings.start_timeout_s);
    let start = timeout(limit, start(socket)).await.map_err(|_| NotOpened::Late)??;
    check(desk, call_sid, &start)?;
    let (token, expiry_s) = desk.tokens.redeem(now_s(), call_sid, &start.custom_parameters)?;
    if desk.switchboard.was_used(token, expiry_s).await {
        return Err(BadToken::Replayed.into());
    }
    admit(desk, call_sid, start)
}

/// `connected`, then `start`: nothing else is accepted before. What comes after stays with the socket.
async fn start(socket: &mut Socket) -> Result<Start, NotOpened> {
    let (mut connected, mut messages_left) = (false, OPENING_MESSAGES_MAX);
    loop {
        let flow = socket.receive(|received| {
            if messages_left == 0 {
                return ControlFlow::Break(Err(NotOpened::Garbage));
            }
            messages_left -= 1;
            match received {
                Received::Text(text) => match message::parse(text, None) {
                    Ok(Message::Connected) if !connected => connected = true,
                    Ok(Message::Start(start)) => return ControlFlow::Break(Ok(start)),
                    Ok(_) | Err(_) => return ControlFlow::Break(Err(NotOpened::Garbage)),
                },
                Received::Ping(_) | Received::Pong | Received::Piece => {}
                Received::Binary | Received::Close(_) => return ControlFlow::Break(Err(NotOpened::Garbage)),
            }
            ControlFlow::Continue(())
        });
        if let ControlFlow::Break(start) = flow.await.map_err(|_| NotOpened::Garbage)? {
            return start;
        }
        if let Some(pong) = socket.owed() {
            socket.send(&pong).await.map_err(|_| NotOpened::Garbage)?;
        }
    }
}

/// Messages until `start` at most: `connected`, `start`, and pings of a proxy.
const OPENING_MESSAGES_MAX: usize = 16;

fn check(desk: &Desk, call_sid: &str, start: &Start) -> Result<(), NotOpened> {
    let account = desk.settings.account_sid.as_deref();
    let ours = account.is_none_or(|account| account == start.account_sid);
    if start.call_sid != call_sid || !is_sid(&start.stream_sid) || !ours {
        return Err(NotOpened::OtherCall);
    }
    let format = &start.media_format;
    if format.encoding != "audio/x-mulaw" || format.sample_rate != Count(8_000) || format.channels != Count(1) {
        return Err(NotOpened::Format);
    }
    Ok(())
}

fn admit(desk: &Arc<Desk>, call_sid: &str, start: Start) -> Result<Opened, NotOpened> {
    let live = Live::claim(desk, call_sid).ok_or(NotOpened::Second)?;
    let (from_sender, from) = mpsc::channel(FROM_LINE_MAX);
    let stream_sid = start.stream_sid.clone();
    let taken = desk.switchboard.connected(incoming(start), from);
    desk.promised.settle(call_sid); // now that its place is counted, or was refused
    let call = taken?;
    count(&desk.counters.streams);
    tracing::info!(call_sid, stream_sid, "stream started");
    Ok(Opened { stream_sid, from: from_sender, call, _live: live })
}

fn incoming(start: Start) -> IncomingCall {
    let mut custom = start.custom_parameters;
    custom.remove(token::TOKEN);
    let mut take = |name| custom.remove(name).unwrap_or_default();
    let (from, to, direction) = (take("from"), take("to"), take("direction"));
    let (call_sid, stream_sid, account_sid) = (start.call_sid, start.stream_sid, start.account_sid);
    IncomingCall { call_sid, stream_sid, account_sid, from, to, direction, custom }
}

/// A CallSid's claim on being the only stream of its call; given up on drop.
pub(super) struct Live {
    desk: Arc<Desk>,
    call_sid: String,
}

impl Live {
    fn claim(desk: &Arc<Desk>, call_sid: &str) -> Option<Self> {
        let claimed = lock(&desk.live).insert(call_sid.to_owned());
        claimed.then(|| Self { desk: Arc::clone(desk), call_sid: call_sid.to_owned() })
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        lock(&self.desk.live).remove(&self.call_sid);
    }
}

fn lock(live: &Mutex<HashSet<String>>) -> std::sync::MutexGuard<'_, HashSet<String>> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}
