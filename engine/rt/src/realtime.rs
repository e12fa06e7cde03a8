//! What the kernel can be asked for an audio thread: real-time priority, a core of its own, memory that is never paged
//! out. Each is optional; a refusal is a warning that says what to do, never a failure.
#![allow(unsafe_code)] // libc calls without a safe wrapper in std

use std::io;
use std::sync::OnceLock;

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
        tracing::warn!(%error, core, "audio thread is not pinned: CPUAffinity or the cgroup's cpuset allows fewer cores than engine.threads");
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

/// Keeps the calling thread, and those that it starts, off the cores of so many pinned audio threads; where no others are
/// left, it stays where it is. To be called before an engine that pins its threads is started.
pub fn leave_audio_cores(threads: usize) {
    let others = cores().get(threads..).unwrap_or_default();
    if !others.is_empty()
        && let Err(error) = stay_on(others)
    {
        tracing::warn!(%error, "sockets and providers share the audio threads' cores");
    }
}

/// Lets the calling thread have any core again.
pub(crate) fn roam() {
    // what was allowed before is allowed again; where not, the thread stays where it is
    let _ = stay_on(cores());
}

/// The cores that this process may use, as they were before any thread was pinned.
fn cores() -> &'static [usize] {
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    CORES.get_or_init(|| {
        // SAFETY: cpu_set_t is plain bits, for which zero is valid.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` lives across the call and its true size is given; pid 0 is the calling thread.
        if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0 {
            return Vec::new();
        }
        // SAFETY: CPU_ISSET stays inside the set, whose size bounds the cores.
        (0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect()
    })
}

/// To the core of this number among those that are allowed.
fn pin(number: usize) -> io::Result<()> {
    stay_on(cores().get(number..=number).ok_or(io::ErrorKind::NotFound)?)
}

fn stay_on(cores: &[usize]) -> io::Result<()> {
    // SAFETY: cpu_set_t is plain bits, for which zero is valid; the cores come out of such a set, so CPU_SET stays inside.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for &core in cores {
            libc::CPU_SET(core, &mut set);
        }
        set
    };
    // SAFETY: `set` lives across the call and its true size is given; pid 0 is the calling thread.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn allowed_now() -> usize {
        std::thread::available_parallelism().map_or(0, usize::from)
    }

    #[test]
    fn threads_beside_the_audio_threads_leave_them_their_cores_as_far_as_there_are_others() {
        let apart = |body: fn()| std::thread::spawn(body).join().unwrap();
        let all = cores().len();
        apart(|| {
            leave_audio_cores(cores().len());
            assert_eq!(allowed_now(), cores().len(), "there are no others");
        });
        if all < 2 {
            return;
        }
        apart(|| {
            leave_audio_cores(1);
            assert_eq!(allowed_now(), cores().len() - 1);
            std::thread::spawn(|| {
                assert_eq!(allowed_now(), cores().len() - 1, "what it starts does so, too");
                pin(0).unwrap();
                assert_eq!(allowed_now(), 1);
                roam();
                assert_eq!(allowed_now(), cores().len());
            })
            .join()
            .unwrap();
        });
    }
}
