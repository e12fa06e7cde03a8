//! Keys of providers, by the type of the whole workspace.

pub use voiced_secret::Secret;
