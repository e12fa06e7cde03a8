//! Phonemes from the `espeak-ng` program.
//!
//! It runs as a separate process, once per phrase, and is never linked: it is GPL-3. Text goes in by stdin only, so
//! nothing that a caller or a language model says can become an option or a command. All clauses of a phrase share
//! one run. `espeak-ng` prints a line per clause as *it* sees clauses, so after each of ours goes a fixed phoneme
//! that no word has, and its line in the output marks where our clause ends.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Longest run that is waited for. A phrase takes about 16 ms; a host that needs this long cannot speak in time anyway.
const RUN_MAX: Duration = Duration::from_secs(3);
/// Longest output that is read, far above the IPA of the longest text.
const OUTPUT_BYTES_MAX: u64 = 256 * 1024;
/// The clause mark as phoneme input; text cannot hold it, since brackets are dropped before.
const CLAUSE_MARK: &str = "[[bbbb]]";
/// The clause mark as it comes back.
const CLAUSE_MARK_IPA: &str = "bbbb";

/// Why there are no phonemes.
#[derive(Debug, thiserror::Error)]
pub enum EspeakError {
    /// The program is not on the path.
    #[error("espeak-ng is not installed, and the local voice needs it: apt-get install espeak-ng")]
    Missing,
    /// The program could not be run or read.
    #[error("cannot run espeak-ng: {0}")]
    Io(#[from] io::Error),
    /// The program refused.
    #[error("espeak-ng failed: {0}")]
    Failed(String),
    /// The program hung and was ended.
    #[error("espeak-ng gave no answer within {} s", RUN_MAX.as_secs())]
    TimedOut,
}

/// The IPA of each clause, in order.
pub fn clause_phonemes(voice: &str, clauses: &[&str]) -> Result<Vec<String>, EspeakError> {
    let mut text = String::new();
    for clause in clauses {
        // an empty line ends a clause for espeak-ng
        text.extend([clause, "\n\n", CLAUSE_MARK, "\n\n"]);
    }
    let phonemes = clauses_of(&run(voice, text)?);
    if phonemes.len() == clauses.len() { Ok(phonemes) } else { Err(EspeakError::Failed(format!("{} clauses in, {} out", clauses.len(), phonemes.len()))) }
}

fn clauses_of(output: &str) -> Vec<String> {
    let mut clauses = Vec::new();
    let mut clause = String::new();
    for line in output.lines().map(str::trim) {
        if line == CLAUSE_MARK_IPA {
            clauses.push(std::mem::take(&mut clause));
        } else if !line.is_empty() {
            if !clause.is_empty() {
                clause.push(' ');
            }
            clause.push_str(line);
        }
    }
    clauses
}

fn run(voice: &str, text: String) -> Result<String, EspeakError> {
    let mut child = Command::new("espeak-ng")
        .args(["-q", "--ipa", "-b", "1", "-v", voice, "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| if error.kind() == io::ErrorKind::NotFound { EspeakError::Missing } else { error.into() })?;
    let result = exchange(&mut child, text);
    if result.is_err() {
        let _ = child.kill();
    }
    // reaps the child, ended by itself or by the kill, so that no zombie stays
    let status = child.wait()?;
    let (output, complaint) = result?;
    if status.success() { Ok(output) } else { Err(EspeakError::Failed(complaint.trim().to_owned())) }
}

/// Writes the text and reads both outputs, each on a thread of its own so that no full pipe can block another.
fn exchange(child: &mut Child, text: String) -> Result<(String, String), EspeakError> {
    if let Some(mut stdin) = child.stdin.take() {
        // a child that ends early breaks this pipe; its status tells why
        thread::spawn(move || stdin.write_all(text.as_bytes()));
    }
    let output = read_all(child.stdout.take());
    let complaint = read_all(child.stderr.take());
    let wait = |from: mpsc::Receiver<io::Result<String>>| match from.recv_timeout(RUN_MAX) {
        Ok(text) => Ok(text?),
        Err(_) => Err(EspeakError::TimedOut),
    };
    Ok((wait(output)?, wait(complaint)?))
}

fn read_all(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<io::Result<String>> {
    let (done, result) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = pipe.map_or(Ok(0), |pipe| pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes));
        // nobody waits any more after a time-out
        let _ = done.send(read.map(|_| String::from_utf8_lossy(&bytes).into_owned()));
    });
    result
}
