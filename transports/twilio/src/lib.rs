//! Twilio: webhooks, TwiML and the bidirectional media stream.
//!
//! A call comes in as a signed `POST /twilio/voice`. The answer is TwiML that opens a media stream to
//! `/twilio/stream/{CallSid}` and carries a one-time token. Twilio then dials the stream; once signature and token
//! hold, the daemon's [`Switchboard`] is given the two ends of a line. `POST /twilio/status` tells of calls that ended.

mod counters;
mod message;
mod promised;
mod settings;
mod signature;
mod stream;
mod switchboard;
mod token;
mod twiml;
pub mod untrusted;
mod webhook;

pub use counters::{DELAY_BUCKETS_US, Delays, TwilioCounters};
pub use settings::TwilioSettings;
pub use switchboard::{Accepted, IncomingCall, Refused, Switchboard, is_final, router};
pub use voiced_secret::Secret;
