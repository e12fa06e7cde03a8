//! The line: what a transport (Twilio, a room, the lab) gives to a call and takes from it.

use crate::packet::Packet;
use serde::{Deserialize, Serialize};
use std::task::{Context, Poll};
use std::time::Instant;

/// From the caller's side. A transport sends these in order.
#[allow(clippy::large_enum_variant)] // nearly every item is sound, and rings must hold it without allocation
#[derive(Clone, Debug)]
pub enum FromLine {
    /// The caller's sound.
    Audio(Packet),
    /// A key pressed, signalled out of band.
    Dtmf(char),
    /// The far end's playout has passed (or, after [`ToLine::Clear`], dropped) the mark of this number.
    Mark(u32),
    /// The caller is gone; nothing follows.
    Gone(Gone),
}

/// Where a line's reader puts the caller's packets, so that they reach the audio thread without waking the call's task;
/// false where there was no room for one.
pub type PacketSink = Box<dyn FnMut(&Packet) -> bool + Send>;

/// Where a line's writer takes what goes to the caller, without waking the call's task.
pub type LineSource = Box<dyn FnMut(&mut Context<'_>) -> Poll<Said> + Send>;

/// Something for the caller's side, and what tells how long it took to get there.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    /// What goes there.
    pub what: ToLine,
    /// When the audio thread said it.
    pub said_at: Instant,
    /// With the first sound of a reply: when it could have been said at the earliest, by the turn's end and the voice.
    pub due_at: Option<Instant>,
}

/// Why a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Gone {
    /// The caller hung up (stop message, `completed` status).
    HungUp,
    /// The socket died or went silent.
    Lost,
    /// The client broke the protocol once too often.
    Misbehaved,
}

/// To the caller's side, in order.
#[allow(clippy::large_enum_variant)] // nearly every item is sound, and rings must hold it without allocation
#[derive(Clone, Copy, Debug)]
pub enum ToLine {
    /// Sound to be queued at the far end.
    Audio(Packet),
    /// Ask for an echo when everything before it was played.
    Mark(u32),
    /// Drop all that is queued at the far end.
    Clear,
    /// End the call from our side once what was queued before has been sent.
    HangUp,
}
