//! Models that run on this host: voice activity, noise cancellation, end of turn, speech to text, text to speech.

pub mod denoise;
pub mod end_of_turn;
mod exp;
mod lanes;
pub mod onnx;
pub mod onnx_tensors;
pub mod stt;
pub mod tts;
pub mod vad;
pub mod weights;
