//! The seam to the daemon: who takes a call, and the routes that bring it.

use crate::counters::TwilioCounters;
use crate::promised::Promised;
use crate::settings::TwilioSettings;
use crate::token::Tokens;
use crate::{stream, webhook};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{get, post};
use std::collections::{BTreeMap, HashSet};
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use voiced_core::line::{FromLine, LineSource, PacketSink};

/// The daemon, as this transport sees it.
pub trait Switchboard: Send + Sync + 'static {
    /// Asked at the voice webhook: whether there is room for one more call beside `promised` ones, which were answered but whose
    /// streams have not started. `false` answers with an apology.
    fn may_admit(&self, promised: usize) -> bool;

    /// Asked when it may not be admitted: the voice webhook of another host, to which the call is sent.
    fn elsewhere(&self) -> Option<String> {
        None
    }

    /// True when another process of this host has seen this one-time token, which expires then; from now on this one has.
    fn was_used(&self, _token: String, _expires_unix_s: u64) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(ready(false))
    }

    /// A stream has started and its token holds: take the line, whose last message is `Gone`. An error closes the stream.
    fn connected(&self, call: IncomingCall, from: mpsc::Receiver<FromLine>) -> Result<Accepted, Refused>;

    /// A call's status as Twilio reports it (`completed`, `failed`, …).
    fn status(&self, call_sid: &str, status: &str);
}

/// True for a status after which a call has nothing more to come.
pub fn is_final(status: &str) -> bool {
    matches!(status, "completed" | "busy" | "failed" | "no-answer" | "canceled")
}

/// The daemon does not take the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the call was refused")]
pub struct Refused;

/// A call whose stream has started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingCall {
    /// Twilio's name of the call.
    pub call_sid: String,
    /// Twilio's name of the stream.
    pub stream_sid: String,
    /// The account the call belongs to.
    pub account_sid: String,
    /// Who calls, mostly E.164.
    pub from: String,
    /// The number called.
    pub to: String,
    /// `inbound`, `outbound-api` or `outbound-dial`.
    pub direction: String,
    /// The query of the voice webhook's URL (`?tenant=acme`), as name and value.
    pub custom: BTreeMap<String, String>,
}

/// A call that was taken, as its stream sees it.
pub struct Accepted {
    /// Where the caller's sound goes, so that no task wakes for a packet; with none, into the line like everything else.
    pub packets: Option<PacketSink>,
    /// What goes to the caller.
    pub to: LineSource,
}

/// The routes `POST /twilio/voice`, `POST /twilio/status` and the WebSocket `GET /twilio/stream/{CallSid}`.
pub fn router(settings: TwilioSettings, switchboard: Arc<dyn Switchboard>, counters: Arc<TwilioCounters>) -> Router {
    let tokens = Tokens::new(&settings);
    let desk = Arc::new(Desk { settings, switchboard, counters, tokens, promised: Promised::default(), live: Mutex::default() });
    Router::new()
        .route("/twilio/voice", post(webhook::voice))
        .route("/twilio/status", post(webhook::status))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(map_response(closing))
        .route("/twilio/stream/{call_sid}", get(stream::upgrade))
        .with_state(desk)
}

/// Each webhook has a connection of its own: one kept open would be closed by a restart just as the next call is asked about.
async fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Longest webhook body, in bytes; Twilio's forms have about 1 KiB.
const FORM_BYTES_MAX: usize = 64 * 1_024;

/// What every handler needs.
pub(crate) struct Desk {
    pub(crate) settings: TwilioSettings,
    pub(crate) switchboard: Arc<dyn Switchboard>,
    pub(crate) counters: Arc<TwilioCounters>,
    pub(crate) tokens: Tokens,
    pub(crate) promised: Promised,
    /// Calls, by `CallSid`, that have a stream; as many as the daemon admits.
    pub(crate) live: Mutex<HashSet<String>>,
}
