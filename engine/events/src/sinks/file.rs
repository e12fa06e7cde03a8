//! A JSON-lines file: an event a line, appended.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

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
            // one that is not there yet, or may only be written, is taken as whole
            let mut line = if is_cut_off(&self.path).unwrap_or(false) { vec![b'\n'] } else { Vec::new() };
            serde_json::to_writer(&mut line, event)?;
            line.push(b'\n');
            OpenOptions::new().create(true).append(true).open(&self.path)?.write_all(&line)
        };
        match append() {
            Ok(()) => Outcome::Sent,
            Err(error) => Outcome::Later(format!("{}: {error}", self.path.display())),
        }
    }
}

/// True behind a line of which a full disk took only a part: its event comes again, and must not be glued to it. The part
/// stays, since another process may have appended behind it.
fn is_cut_off(path: &Path) -> std::io::Result<bool> {
    if !std::fs::metadata(path)?.is_file() {
        return Ok(false); // a pipe has no end to look at
    }
    let (mut file, mut last) = (File::open(path)?, [b'\n']);
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    Ok(last != *b"\n")
}
