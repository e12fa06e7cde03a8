//! Benches: ring, codec, resample, voice activity, tick, rooms. Here is what they share: sound to send, and rulers for what
//! came back.

mod chirp;
mod heard;
mod spectrum;
mod speech;

pub use chirp::Chirps;
pub use heard::Heard;
pub use spectrum::{Quality, quality};
pub use speech::Speech;
