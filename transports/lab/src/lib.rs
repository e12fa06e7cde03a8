//! The lab: a phone that speaks Twilio's protocol, fake providers, and an EMA receiver.

pub mod ema;
pub mod phone;
pub mod providers;
