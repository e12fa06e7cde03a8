//! Where the tools are, and what a test does without them.

use std::env;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A tool that is not there.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what} is missing: run `make {target}`, or set {variable}")]
pub struct Missing {
    what: &'static str,
    target: &'static str,
    variable: &'static str,
}

/// What a test does without its tools: none, after one line that says so; where `CI` is set, a panic, since a check that
/// nobody sees being skipped is no check.
pub fn or_skip<T>(found: Result<T, Missing>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(missing) if env::var_os("CI").is_some_and(|set| !set.is_empty()) => panic!("{missing}"),
        Err(missing) => {
            // not by println, which the test harness keeps to itself where a test passes
            let _ = writeln!(io::stderr(), "skipped: {missing}");
            None
        }
    }
}

/// The file that the environment names, else the one that `make TARGET` makes.
pub(super) fn find(what: &'static str, target: &'static str, variable: &'static str, made: &str) -> Result<PathBuf, Missing> {
    let path = env::var_os(variable).map_or_else(|| workspace().join("target/tools").join(made), PathBuf::from);
    if path.is_file() { Ok(path) } else { Err(Missing { what, target, variable }) }
}

/// A script of this crate's `peers`.
pub(super) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
