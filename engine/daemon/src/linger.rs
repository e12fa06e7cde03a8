//! Calls that outlive `systemctl restart`. systemd stops a service before it starts it again, and waits for its main
//! process; a call may last longer than anybody waits. So with `voiced serve --linger` the main process only watches a
//! child that does the work. When the main process ends, however that comes, the child drains: no new calls, the present
//! ones go on; only one that hangs, as systemd's watchdog finds, is killed. With `KillMode=process` systemd leaves it in
//! peace and starts the next main process at once, whose child takes the calls from the socket that systemd holds. The
//! store is made for two processes (`voiced_events::outbox`).

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Says to the child (not a setting, so without VOICED_) that its standard input ends when the main process does.
const WATCHED: &str = "LINGERS_UNTIL_STDIN_ENDS";
/// Name the process that systemd started; the child is another one.
const OF_THE_MAIN_PROCESS: [&str; 2] = ["LISTEN_PID", "WATCHDOG_PID"];

/// Runs `voiced serve` as a child until it or this process is stopped.
pub async fn watch() -> Result<ExitCode> {
    let arguments = std::env::args_os().skip(1).filter(|argument| argument != "--linger");
    let mut command = Command::new(std::env::current_exe().context("where this program is")?);
    command.args(arguments).env(WATCHED, "1").stdin(Stdio::piped());
    for variable in OF_THE_MAIN_PROCESS {
        command.env_remove(variable);
    }
    let mut child = command.spawn().context("the daemon does not start")?;
    let input = child.stdin.take(); // kept open until this process ends
    let pid = Pid::from_child(&child);
    let (exited, exit) = oneshot::channel();
    // a thread of its own: waiting cannot be cancelled, and must not hold the runtime up at its end
    std::thread::Builder::new().name("child".into()).spawn(move || exited.send(child.wait()))?;
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut abort = signal(SignalKind::from_raw(Signal::ABORT.as_raw()))?;
    tokio::select! {
        ended = exit => {
            let ended = ended??;
            drop(input);
            // killed: told as a shell does, so that it counts as a failure
            let code = ended.code().or(ended.signal().map(|signal| 128 + signal)).unwrap_or(1);
            Ok(ExitCode::from(code as u8))
        }
        _ = term.recv() => Ok(ExitCode::SUCCESS), // by which the child's input ends
        _ = int.recv() => Ok(ExitCode::SUCCESS),
        // the watchdog: a child that hangs cannot drain, and its calls are dead. The next one reports their end
        _ = abort.recv() => {
            kill_process(pid, Signal::KILL).context("the daemon that hangs")?;
            Ok(ExitCode::from(128 + Signal::ABORT.as_raw() as u8))
        }
    }
}

/// True in the child.
pub fn is_watched() -> bool {
    std::env::var_os(WATCHED).is_some()
}

/// Waits until the main process is gone; forever where there is none.
pub async fn main_process_ends() {
    if !is_watched() {
        return std::future::pending().await;
    }
    let (gone, told) = oneshot::channel::<()>();
    // a thread of its own: reading standard input cannot be cancelled, and must not hold the runtime up at its end
    let reader = std::thread::Builder::new().name("linger".into()).spawn(move || {
        let mut stdin = std::io::stdin().lock();
        while matches!(stdin.read(&mut [0; 64]), Ok(1..)) {}
        drop(gone);
    });
    match reader {
        Ok(_) => {
            let _ = told.await;
        }
        Err(error) => {
            tracing::error!(%error, "the end of the main process will not be noticed");
            std::future::pending::<()>().await;
        }
    }
}
