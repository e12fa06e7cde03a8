//! Settings. `default.toml` holds every key; a file and the environment override it; whatever is wrong is told at once,
//! each problem with the key, where it came from and the mend. This crate knows no behaviour.

mod checks;
mod layers;
mod settings;

pub use layers::{Problem, examine, load};
pub use settings::*;
