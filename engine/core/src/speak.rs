//! Speaking: the agent's sound on its way to the far end, and the knowledge of what was heard there.
//!
//! [`playout::Playout`] keeps a reply until it was heard, [`pace::Pace`] keeps the far end's queue short, and
//! [`marks::Marks`] remember what the far end was asked to confirm.

pub mod marks;
pub mod memory;
pub mod pace;
pub mod playout;
pub mod progress;

pub use playout::{Playout, PlayoutCounters, PlayoutEvent, PlayoutState, Push};
