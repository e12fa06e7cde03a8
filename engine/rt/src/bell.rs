//! How the rim learns that a call's rings hold something. The audio thread must not wake tasks, which may lock and call
//! the kernel for each: it only raises a flag in the call's [`Bell`]. The ringer, a thread beside it, is unparked once
//! after a tick that raised any, and wakes the tasks of the raised ones. So a call that has nothing to say costs the rim
//! nothing, and one that has is heard as soon as the tick is over.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

#[cfg(not(loom))]
use atomic_waker::AtomicWaker;
#[cfg(loom)]
use loom::{
    future::AtomicWaker,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How often the ringer looks by itself whether it is to stop.
const REST: Duration = Duration::from_millis(100);

/// Raised by the audio thread while one of the call's rings to the rim holds something.
#[derive(Debug)]
pub struct Bell {
    hung_at: Instant,
    raised: AtomicBool,
    /// When it was raised first since it was heard, in µs since it was hung.
    raised_us: AtomicU64,
    waker: AtomicWaker,
}

impl Bell {
    pub(crate) fn new() -> Self {
        Self { hung_at: Instant::now(), raised: AtomicBool::new(false), raised_us: AtomicU64::new(0), waker: AtomicWaker::new() }
    }

    /// Waits until the rings may hold something; since when. For one task at a time.
    pub async fn rung(&self) -> Instant {
        poll_fn(|context| self.poll_rung(context)).await;
        self.raised_at()
    }

    pub(crate) fn poll_rung(&self, context: &mut Context<'_>) -> Poll<()> {
        // no swap: a bell that is not raised must stay as it is, or a raise beside it could be lost
        let raised = || self.raised.compare_exchange(true, false, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if raised() {
            return Poll::Ready(());
        }
        #[cfg(not(loom))]
        self.waker.register(context.waker());
        #[cfg(loom)]
        self.waker.register_by_ref(context.waker());
        // raised between the look and the registration
        if raised() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// When it was raised for what is in the rings now, or earlier.
    pub(crate) fn raised_at(&self) -> Instant {
        self.hung_at + Duration::from_micros(self.raised_us.load(Ordering::Relaxed))
    }

    pub(crate) fn raise(&self) {
        if !self.raised.load(Ordering::Relaxed) {
            self.raised_us.store(self.hung_at.elapsed().as_micros() as u64, Ordering::Relaxed);
        }
        self.raised.store(true, Ordering::Release);
    }

    /// By the rim itself: rings at once.
    pub(crate) fn raise_and_ring(&self) {
        self.raise();
        self.ring();
    }

    fn ring(&self) {
        if self.raised.load(Ordering::Acquire) {
            self.waker.wake();
        }
    }
}

/// The bells of one audio thread's calls. The lock is between the rim, which hangs them, and the ringer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bells(Arc<Mutex<Vec<Weak<Bell>>>>);

impl Bells {
    pub(crate) fn hang(&self, bell: &Arc<Bell>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(bell));
    }

    /// Wakes whoever has something waiting, and forgets calls that are over.
    fn ring(&self) {
        let ring = |bell: &Weak<Bell>| bell.upgrade().map(|bell| bell.ring()).is_some();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(ring);
    }

    /// The ringer's loop: rings whenever its thread is unparked.
    pub(crate) fn run(&self, stop: &std::sync::atomic::AtomicBool) {
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            std::thread::park_timeout(REST);
            self.ring();
        }
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use loom::thread;

    #[test]
    fn no_wake_up_is_lost_however_the_threads_fall() {
        loom::model(|| {
            let bell = loom::sync::Arc::new(Bell::new());
            let audio = loom::sync::Arc::clone(&bell);
            // the ringer looks after the tick has ended
            let ringer = thread::spawn(move || {
                audio.raise();
                audio.ring();
            });
            loom::future::block_on(bell.rung());
            ringer.join().unwrap();
        });
    }

    #[test]
    fn a_bell_that_was_heard_is_silent_until_raised_again() {
        loom::model(|| {
            let bell = loom::sync::Arc::new(Bell::new());
            bell.raise();
            loom::future::block_on(bell.rung());
            assert!(!bell.raised.load(Ordering::Relaxed));
        });
    }
}
