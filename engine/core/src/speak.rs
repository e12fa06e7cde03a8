//! Speaking: the agent's sound on its way to the far end, and the knowledge of what was heard there.
//!
//! [`playout::Playout`] keeps a reply until it was heard, [`pace::Pace`] keeps the far end's queue short, and
//! [`marks::Marks`] remember what the far end was asked to confirm. [`sender::Sender`] makes the packets, with the
//! [`guests`] of the call in them; [`alone::Alone`] makes those of the agent without any guests.

pub mod alone;
pub mod guests;
pub mod marks;
pub mod memory;
pub mod pace;
pub mod playout;
pub mod progress;
pub mod sender;
pub mod told;

pub use playout::Playout;
pub use told::{PlayoutCounters, PlayoutEvent, PlayoutState, Push};
