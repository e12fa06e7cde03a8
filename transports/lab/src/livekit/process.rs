//! A child process: dead when dropped, its output read by threads, its last words kept for the error that explains it.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Lines kept of what a process said: enough to see why it ended.
const LINES_MAX: usize = 40;
/// Characters kept of a line.
const LINE_CHARS_MAX: usize = 500;

/// A running child.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) log: Tail,
}

impl Process {
    /// Starts it with all three streams piped. Stderr goes to the log; stdin and stdout are the caller's to take.
    pub(super) fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let log = Tail::default();
        let stderr = child.stderr.take();
        let process = Self { child, log };
        if let Some(stderr) = stderr {
            process.follow(stderr)?;
        }
        Ok(process)
    }

    /// Reads a stream into the log until its end, so that the child never waits for a full pipe.
    pub(super) fn follow(&self, stream: impl Read + Send + 'static) -> io::Result<()> {
        let log = self.log.clone();
        each_line(stream, move |line| log.push(&line))
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Kills it, as a crash would. Nothing when it is dead already.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // a child that cannot be killed is gone, and nobody is left to tell
        let _ = self.kill();
    }
}

/// Hands each line of a stream to `take`, on a thread of its own, until the stream ends.
pub(super) fn each_line(stream: impl Read + Send + 'static, mut take: impl FnMut(String) + Send + 'static) -> io::Result<()> {
    let read = move || {
        let mut lines = BufReader::new(stream).lines();
        while let Some(Ok(line)) = lines.next() {
            take(line);
        }
    };
    thread::Builder::new().name("lab-lines".to_owned()).spawn(read).map(drop)
}

/// The tail of a log, shared with the threads that read it.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line.chars().take(LINE_CHARS_MAX).collect());
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}
