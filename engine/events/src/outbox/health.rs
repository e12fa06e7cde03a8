//! How the event store is, for whoever runs the daemon.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Read by `/health` and `/metrics`, written by the outbox thread.
#[derive(Debug, Default)]
pub struct StoreHealth {
    unwritten: AtomicU64,
    lost: AtomicU64,
    set_aside: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl StoreHealth {
    /// Events that wait in memory until the disk takes them.
    pub fn unwritten(&self) -> u64 {
        self.unwritten.load(Relaxed)
    }

    /// Events for which even memory had no room.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Damaged stores set aside since the start.
    pub fn set_aside(&self) -> u64 {
        self.set_aside.load(Relaxed)
    }

    /// Why events are not being stored now; `None` when they are.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn waiting(&self, unwritten: usize) {
        self.unwritten.store(unwritten as u64, Relaxed);
    }

    pub(super) fn lose(&self, events: usize) {
        self.lost.fetch_add(events as u64, Relaxed);
    }

    pub(super) fn damaged(&self) {
        self.set_aside.fetch_add(1, Relaxed);
    }

    /// Returns whether there was any before.
    pub(super) fn note(&self, trouble: Option<String>) -> bool {
        std::mem::replace(&mut *self.trouble.lock().unwrap_or_else(PoisonError::into_inner), trouble).is_some()
    }
}
