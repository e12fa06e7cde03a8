//! The lab: a phone that speaks Twilio's protocol, a caller in a `LiveKit` room, fake providers, an EMA receiver, and a
//! `LiveKit` server with peers on the official SDK and a bad road to it.

mod dialogue;
pub mod ema;
pub mod livekit;
mod measure;
pub mod phone;
pub mod providers;
pub mod room;

/// Read at once from a WebSocket; the default of 128 KiB is cleared at each read, and hundreds of calls share a core.
const READ_BUFFER_BYTES: usize = 8_192;
