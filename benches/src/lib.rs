//! Benches: ring, codec, resample, voice activity, tick. Here is what they share.

mod speech;

pub use speech::Speech;
