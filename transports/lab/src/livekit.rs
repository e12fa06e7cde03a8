//! `LiveKit` for tests: the real server, and peers on the official SDK.
//!
//! `make tools` puts both under `target/tools`: livekit-server, and a Python environment with `LiveKit`'s SDK. A test starts
//! a [`Server`] on free ports and lets [`Peer`]s join its rooms: each is a process of its own that speaks WAV files, keeps
//! what it hears, and tells what it sees. Where the tools are missing, [`or_skip`] says so in one line; in CI it fails.
//! `make tools-browser` adds a Chromium with `LiveKit`'s browser client. What goes wrong between a participant and the
//! server, a [`SignalProxy`] makes go wrong; a [`Road`] loses some of what is sent on it.

mod event;
mod peer;
mod process;
mod road;
mod server;
mod signal_proxy;
mod tools;

pub use event::PeerEvent;
pub use livekit_token::AccessToken;
pub use peer::{Command, Peer, PeerError, PeerSettings};
pub use road::Road;
pub use server::{Server, ServerError, ServerSettings};
pub use signal_proxy::{Door, SignalProxy, Visit};
pub use tools::{Missing, or_skip};
