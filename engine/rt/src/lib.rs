//! The audio threads. Each owns a fixed number of slots, one call in each, and is woken every 10 ms to run
//! [`Worker::run_once`] over all of them: the tick. On the tick nothing allocates, locks, logs or awaits.
//!
//! The rim meets a call in a [`CallPort`]: bounded single-producer single-consumer rings, one for each kind of thing that
//! crosses, with a [`Bell`] that tells when to look at them. Dropping the port retires the call. Slow end-of-turn
//! inference runs on a judge thread beside each audio thread and comes back as an input of a later tick.
//!
//! Other people may be in a call besides its caller: see [`CallPort::join`].

mod bell;
mod deadline;
mod engine;
mod guest;
mod hearing;
mod judge;
mod meter;
mod port;
mod realtime;
mod sound_ring;
mod worker;

pub use bell::Bell;
pub use engine::{AdmitError, Engine, EngineSettings, ThreadModels};
pub use guest::{GUESTS_MAX, GuestPort, JoinError};
pub use hearing::{Hearing, HearingReading};
pub use judge::Judge;
pub use meter::{Meter, MeterReading, STAGES, Shed, Stage, TICK_BUCKETS_US};
pub use port::{CallPort, DirectLine, PortSettings};
pub use realtime::leave_audio_cores;
pub use sound_ring::{Full, Piece, SoundConsumer, SoundProducer};
pub use worker::{Worker, WorkerLink};
