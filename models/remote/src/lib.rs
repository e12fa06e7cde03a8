//! Providers over the network: speech to text, language models, text to speech.
//!
//! A conversation knows three traits, [`stt::Stt`], [`llm::Llm`] and [`tts::Tts`]. Each opens a session that is two
//! bounded channels and a task on the tokio runtime; dropping the session cancels the task and with it whatever the
//! provider is still doing for us. A vendor is one file of pure functions (what to send, what a message means; golden
//! wire files in `tests/golden`) and one file of its session; sockets, SSE, HTTP and retry rules are shared.
//!
//! Every failure is an event that names the provider and never a key.

pub mod account;
pub mod breaker;
pub mod cartesia;
pub mod chain;
pub mod deepgram;
pub mod descriptor;
pub mod llm;
pub mod openai_chat;
pub mod openai_tts;
pub mod realtime;
pub mod secret;
pub mod stt;
pub mod tool;
pub mod tts;
pub mod untrusted;

mod failure;
mod http;
mod pcm;
mod pool;
mod replay;
mod retry;
mod sse;
mod tools;
mod ws;
