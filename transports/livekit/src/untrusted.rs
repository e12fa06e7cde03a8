//! What a LiveKit server and people in its rooms may send, without a socket: the entrances for fuzzing. Nothing here panics
//! or grows beyond its input, whatever the bytes are.

use crate::job::JobSettings;
use crate::room::untrusted::mail;
use crate::token::Keys;
use crate::webhook::{self, WebhookReceiver};
use crate::worker::untrusted::server_message;

/// A job's metadata.
pub fn job(bytes: &[u8]) {
    let (settings, warnings) = JobSettings::parse(&String::from_utf8_lossy(bytes));
    assert!(settings.to_metadata().len() < 1_024 * 1_024 && warnings.len() <= 16);
}

/// A webhook: a line for `Authorization`, then the body, which is read as if it had been believed too.
pub fn webhook(bytes: &[u8]) {
    let (authorization, body) = bytes.split_at(bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0));
    let receiver = WebhookReceiver::new(&Keys::new("APIname", "0123456789abcdef0123456789abcdef"));
    let received = receiver.receive(std::str::from_utf8(authorization).ok(), body);
    assert!(received.is_err(), "a signature was guessed");
    let _ = webhook::read(body);
}

/// Packets of a room's data channel, each with two bytes of length before it: messages, texts, questions.
pub fn data(bytes: &[u8]) {
    mail(bytes);
}

/// A message of the server to a worker.
pub fn worker(bytes: &[u8]) {
    server_message(bytes);
}
