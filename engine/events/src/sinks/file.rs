//! A JSON-lines file: an event a line, appended.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use voiced_core::event::CallEvent;

use super::Outcome;

/// The file.
pub struct JsonLines {
    path: PathBuf,
}

impl JsonLines {
    /// Appends to `path`, made when missing. It is opened for each event, so that log rotation just works.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// One try.
    pub fn deliver(&self, event: &CallEvent) -> Outcome {
        let append = || -> std::io::Result<()> {
            let mut line = serde_json::to_vec(event)?;
            line.push(b'\n');
            OpenOptions::new().create(true).append(true).open(&self.path)?.write_all(&line)
        };
        match append() {
            Ok(()) => Outcome::Sent,
            Err(error) => Outcome::Later(format!("{}: {error}", self.path.display())),
        }
    }
}
