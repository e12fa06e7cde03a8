//! Benches: ring, codec, resample, voice activity, tick.
