//! What the kernel can be asked for an audio thread: real-time priority, a core of its own, memory that is never paged
//! out. Each is optional; a refusal is a warning that says what to do, never a failure.
#![allow(unsafe_code)] // four kinds of libc calls without a safe wrapper in std

use std::io;

/// Asks for what `engine.realtime` and `engine.pin_cores` say, for the calling thread.
pub(crate) fn apply(priority: Option<u8>, core: Option<usize>) {
    if let Some(priority) = priority
        && let Err(error) = fifo(priority)
    {
        tracing::warn!(%error, "audio thread runs without real-time priority: grant CAP_SYS_NICE or LimitRTPRIO={priority} in the unit, or unset engine.realtime_priority");
    }
    if let Some(core) = core
        && let Err(error) = pin(core)
    {
        tracing::warn!(%error, core, "audio thread is not pinned: the core does not exist or is not allowed by CPUAffinity / cgroup cpuset");
    }
}

/// Has the calling thread run only while no other of the service wants the core, and leave it at once when one does;
/// every process may. (A nice value is not enough: a woken thread waits for the slice of the one that runs.)
pub(crate) fn step_back() {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `param` lives across the call; pid 0 is the calling thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const param) } != 0 {
        let error = io::Error::last_os_error();
        tracing::warn!(%error, "the end-of-turn model runs beside the calls instead of below them");
    }
}

/// Locks the whole process in memory, each page from its first use on: the allocator reserves a gigabyte of which it uses little.
pub(crate) fn lock_memory() {
    // SAFETY: mlockall takes flags only and touches no memory of ours.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) } != 0 {
        let error = io::Error::last_os_error();
        tracing::warn!(%error, "memory is not locked: grant LimitMEMLOCK=infinity in the unit, or unset engine.lock_memory");
    }
}

fn fifo(priority: u8) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: i32::from(priority) };
    // SAFETY: `param` lives across the call; pid 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn pin(core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: cpu_set_t is plain bits, for which zero is valid; CPU_SET stays inside it as checked above.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        set
    };
    // SAFETY: `set` lives across the call and its true size is given; pid 0 is the calling thread.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
