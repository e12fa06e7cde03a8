//! The lab: a phone that speaks Twilio's protocol, fake providers, an EMA receiver, and a `LiveKit` server with
//! peers on the official SDK.

pub mod ema;
pub mod livekit;
pub mod phone;
pub mod providers;
