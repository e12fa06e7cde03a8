//! The pure engine. A call *hears*, takes *turns*, *replies* and *speaks*:
//!
//! ```text
//! Packet → Frame → Speech → Turn → Transcript → Reply → Phrase → Frame → Packet        Event out the side
//! ```
//!
//! Nothing here reads a clock, opens a socket or starts a thread: time is a parameter, so a ten-minute call
//! runs in a test in milliseconds and recorded inputs replay to the same decisions.

pub mod call;
pub mod codec;
pub mod conversation;
pub mod event;
pub mod frame;
pub mod hear;
pub mod id;
pub mod leg;
pub mod line;
pub mod mix;
pub mod model;
pub mod packet;
pub mod reply;
pub mod resample;
pub mod script;
pub mod speak;
pub mod time;
pub mod tone;
pub mod turn;
