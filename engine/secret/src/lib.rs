//! A key that cannot be printed by accident: every key, token and shared secret of the daemon is a [`Secret`], from the
//! settings to the wire. `Debug` hides it, its memory is wiped when it is dropped, and comparing takes the same time
//! however much of it is right.

mod secret;

pub use secret::Secret;
