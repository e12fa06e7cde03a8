//! `LiveKit`.
//!
//! The server's side: [`worker`] takes the jobs that a `LiveKit` server dispatches, [`job`] reads what they ask for, [`token`]
//! lets participants in, [`webhook`] hears what happens in rooms and [`api`] changes it.

pub mod api;
pub mod job;
pub mod token;
pub mod webhook;
pub mod worker;
