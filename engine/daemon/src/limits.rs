//! What the process denies itself.

use anyhow::{Context, Result};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// No crash leaves an image of the memory, and no other process of this user reads it: it holds keys and callers' words. The
/// limit alone would not do, as a dump that is piped to a program knows no limit.
pub fn no_core_dumps() -> Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("core dumps cannot be switched off (server.core_dumps)")?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).context("core dumps cannot be limited (server.core_dumps)")
}
