//! The API as a frontend meets it: over HTTP, with a LiveKit server in memory behind it.

mod double;

mod garbage;
mod people;
mod telephones;
mod trust;
