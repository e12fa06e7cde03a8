//! Events out the side of a call. An event is written to the [`outbox`] (SQLite, fsynced) before it counts as anything;
//! [`deliver`] then takes it to each sink, at least once, in order per call, and parks with its reason what a sink
//! refuses for good. A crash between any two steps only repeats a delivery, under the same idempotency key.

pub mod deliver;
pub mod outbox;
pub mod sinks;
