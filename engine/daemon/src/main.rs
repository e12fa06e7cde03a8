//! The `voiced` daemon: settings → build → serve → drain.

mod agent;
mod backlog;
mod call;
mod captions;
mod cli;
mod cpu;
mod demo;
mod dirs;
mod flight;
mod headroom;
mod http;
mod inference;
mod lab;
mod limits;
mod linger;
mod listen;
mod live;
mod local;
#[cfg(test)]
mod memory;
mod metrics;
mod notify;
mod providers;
mod recording;
mod replies;
mod rooms;
mod serve;
mod sessions;
mod soak;
mod traces;

use std::process::ExitCode;

/// In tests, one that counts: `memory`.
#[cfg(not(test))]
#[global_allocator]
static HEAP: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // two are linked, by different crates, and rustls refuses to choose; it can only be chosen once, which is here
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    cli::run()
}
