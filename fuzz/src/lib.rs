//! Every parser that touches the network, by name, as a function of bytes that must not panic.
//!
//! The same list is run in two ways. `cargo test` feeds each parser its seeds (written messages and the golden files of the
//! providers) and some thousands of seeded mutations of them. `make fuzz` lets libFuzzer look for inputs that reach new code,
//! from the same seeds; what it finds is added to them. The bodies of the daemon's own HTTP API are fed through its router, in
//! `engine/daemon/src/http/tests`.

mod mutations;
mod parsers;
mod seeds;
mod settings;

pub use mutations::{INPUT_BYTES_MAX, Mutations};
pub use parsers::{PARSERS, Parser, feed};
pub use seeds::seeds;
