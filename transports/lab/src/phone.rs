//! A phone that speaks Twilio's protocol as Twilio does.
//!
//! A call asks the voice webhook, signed, and follows the TwiML it gets. Into the media stream go 20 ms of the
//! caller's sound every 20 ms, silence included; what comes back is queued and played at the telephone's pace, with
//! marks and clear as Twilio documents them. A script says when the caller speaks. Everything reported is measured
//! afterwards from what was sent and what was played: the two channels of the recording.

mod answer;
mod call;
mod playout;
mod wire;

pub use crate::dialogue::{CallScript, Line, PAUSE_MS, Sign, Step};
pub use crate::measure::{BargeInReport, CallReport, Counts, Outcome, Recording, UtteranceReport};

use std::sync::atomic::{AtomicU64, Ordering};
use url::Url;

/// Where the phone calls and who it is.
#[derive(Clone, Debug)]
pub struct PhoneSettings {
    /// Where the daemon listens, e.g. `http://127.0.0.1:8080`.
    pub base_url: Url,
    /// Signs every request, as Twilio does.
    pub auth_token: String,
    /// Twilio's name of the account.
    pub account_sid: String,
    /// The caller's number.
    pub from: String,
    /// The number called.
    pub to: String,
    /// The daemon's public base, which signatures are made over, e.g. `https://voice.example.com`.
    pub public_url: Url,
}

/// A phone, good for any number of calls at once.
#[derive(Debug)]
pub struct Phone {
    settings: PhoneSettings,
    http: reqwest::Client,
    calls: AtomicU64,
}

/// Told of each event, with its time in ms since the stream started. Called from the call's task: be quick.
pub type Observer<'a> = dyn Fn(u64, PhoneEvent<'_>) + Send + Sync + 'a;

/// A line of the live timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhoneEvent<'a> {
    /// The stream is open.
    Connected,
    /// The caller begins to say what has this label.
    CallerStarted(&'a str),
    /// The caller has said it.
    CallerStopped(&'a str),
    /// The agent became audible after a pause.
    AgentStarted,
    /// The agent has been quiet for [`PAUSE_MS`].
    AgentStopped,
    /// The agent's queued sound was dropped.
    Cleared,
    /// The caller pressed a key.
    Dtmf(char),
    /// A `Listen` ran into its limit.
    ListenedInVain,
    /// A message that Twilio would warn of: 31950, 31951 or 31931.
    Warned(u32),
    /// The call is over.
    Over(Outcome),
}

/// Why there was no call.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The webhook could not be asked.
    #[error("the voice webhook does not answer: {0}")]
    Webhook(#[from] reqwest::Error),
    /// The webhook refused.
    #[error("the voice webhook answered {0}")]
    Refused(u16),
    /// The TwiML is not what Twilio would take.
    #[error("the TwiML is bad: {0}")]
    Twiml(String),
    /// The stream's URL is not one that Twilio would dial.
    #[error("the stream's URL is bad: {0}")]
    StreamUrl(String),
    /// The WebSocket handshake failed.
    #[error("the stream does not open: {0}")]
    Handshake(String),
}

impl Phone {
    /// A phone at rest.
    pub fn new(settings: PhoneSettings) -> Self {
        Self { settings, http: reqwest::Client::new(), calls: AtomicU64::new(rand::random::<u64>() >> 1) }
    }

    /// Places a call, plays the script, and reports. One task, however long the call.
    pub async fn call(&self, script: CallScript, observer: &Observer<'_>) -> Result<CallReport, CallError> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let call_sid = format!("CA{number:032x}");
        let report = match wire::ask(&self.http, &self.settings, &call_sid).await? {
            answer::Answer::Apology => CallReport::unanswered(&call_sid),
            answer::Answer::Stream { url, parameters } => {
                let stream_sid = format!("MZ{number:032x}");
                let buffers_little = script.steps.iter().any(|step| matches!(step, Step::Deaf { .. }));
                let socket = wire::dial(&self.settings, &url, buffers_little).await?;
                let names = wire::Names { stream_sid: &stream_sid, call_sid: &call_sid, settings: &self.settings };
                call::run(socket, names, &parameters, script, observer).await
            }
        };
        wire::tell_completed(&self.http, &self.settings, &call_sid, report.duration_ms).await;
        Ok(report)
    }
}
