//! Settings. `default.toml` holds every key; a file and the environment override it; whatever is wrong is told at once,
//! each problem with the key, where it came from and the mend. Keys may come from files. This crate knows no behaviour.

mod checks;
mod credentials;
mod layers;
mod settings;
mod tools;

pub use layers::{Problem, examine, load};
pub use settings::*;
