//! The lab: a phone that speaks Twilio's protocol, a caller in a `LiveKit` room, fake providers, an EMA receiver, and a
//! `LiveKit` server with peers on the official SDK and a bad road to it.

mod dialogue;
pub mod ema;
pub mod livekit;
mod measure;
pub mod phone;
pub mod providers;
pub mod room;
