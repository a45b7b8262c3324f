//! `-- COMMAND`: runs a command during the trace, and returns its exit status.

use std::{
    ffi::OsString,
    io::{Error, ErrorKind},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus},
    sync::{Arc, OnceLock},
    thread::{self, JoinHandle},
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::{Pid, getgid},
};
use signal_hook::{
    consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    iterator::Signals,
};

use super::{facts::ignores, sudo_user::SudoUser};

/// The hidden option that makes a second tcptrace process become the command, see [`become_command`].
pub const BECOME: &str = "--become-command";

/// A command that was started, before anything waits for it.
#[derive(Debug)]
pub struct Started {
    child: Child,
    signals: Signals,
}

/// A command with a thread that waits for it.
///
/// It stays in our process group, so a terminal sends Ctrl-C to both processes; only the command reacts. Signals sent
/// to us alone, SIGTERM and (if `hangup`) SIGHUP, are forwarded.
#[derive(Debug)]
pub struct Running {
    keeper: JoinHandle<Result<ExitStatus>>,
    ended: Arc<OnceLock<Instant>>,
}

/// Starts the command as the invoking user. The kernel side follows our children, so the probes must already be
/// attached.
///
/// The child is a second tcptrace, which then becomes the command: changing the user between fork and exec would need
/// unsafe code. Setting the group, which stays the same, makes the standard library fork instead of calling
/// posix_spawn(3), with which the child would ignore signals 32 and 33.
///
/// `hangup`: whether to forward SIGHUP.
///
/// # Errors
/// When the process cannot be started, or signals cannot be caught.
pub fn start(words: &[OsString], hangup: bool) -> Result<Started> {
    let caught = [SIGINT, SIGQUIT, SIGTERM].into_iter().chain(hangup.then_some(SIGHUP));
    // Ignored signals stay ignored, also in the command: exec resets only caught ones.
    let caught = caught.filter(|&signal| !ignores(signal));
    let signals = Signals::new(caught.chain([SIGCHLD])).context("catch signals")?;
    let child = Command::new("/proc/self/exe")
        .arg(BECOME)
        .arg("--")
        .args(words)
        .gid(getgid().as_raw())
        .spawn()
        .context("start the command through /proc/self/exe")?;
    Ok(Started { child, signals })
}

impl Started {
    /// The process id of the command.
    ///
    /// # Errors
    /// Never in practice: a process id fits into an i32.
    pub fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id()).context("a process id")?))
    }

    /// Waits for the command in a thread, which inherits the restrictions of this one.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn keep(self) -> Result<Running> {
        let ended = Arc::new(OnceLock::new());
        let end = Arc::clone(&ended);
        let keeper = thread::Builder::new()
            .name("command".to_owned())
            .spawn(move || {
                let status = keep(self);
                end.set(Instant::now()).map_err(|_| anyhow!("the command ended twice"))?;
                status
            })
            .context("start a thread")?;
        Ok(Running { keeper, ended })
    }
}

fn keep(started: Started) -> Result<ExitStatus> {
    let pid = started.pid()?;
    let Started { mut child, mut signals } = started;
    // The child has not been reaped yet, so its pid cannot have been reused.
    let pass_on = |signal| match kill(pid, signal) {
        // It now runs as another user, as with sudo; our user's shell could not signal it either.
        Ok(()) | Err(Errno::EPERM) => Ok(()),
        Err(error) => Err(error).context("forward a signal"),
    };
    for signal in signals.forever() {
        match signal {
            SIGTERM => pass_on(Signal::SIGTERM)?,
            SIGHUP => pass_on(Signal::SIGHUP)?,
            SIGCHLD => {
                if let Some(status) = child.try_wait().context("wait for the command")? {
                    return Ok(status);
                }
            }
            _ => {}
        }
    }
    child.wait().context("wait for the command")
}

impl Running {
    /// Set when the command has ended.
    pub fn ended(&self) -> Arc<OnceLock<Instant>> {
        Arc::clone(&self.ended)
    }

    /// Waits for the end of the command. Returns its exit code, or 128 + the number of the signal that killed it.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn wait(self) -> Result<u8> {
        let status = self
            .keeper
            .join()
            .map_err(|_| anyhow!("the thread that waits for the command has panicked"))??;
        Ok(code(status))
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Becomes the invoking user, then the command. Returns only on failure: the error, and the exit code that shells and
/// env(1) use for it.
pub fn become_command(words: &[OsString], invoker: Option<&SudoUser>) -> (anyhow::Error, u8) {
    let Some((program, arguments)) = words.split_first() else { return (anyhow!("no command"), 2) };
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(invoker) = invoker {
        if let Err(error) = invoker.take_over() {
            return (anyhow!(error).context("become the invoking user"), 126);
        }
        command.envs(invoker.environment.iter().map(|(name, value)| (name, value)));
    }
    let error: Error = command.exec();
    let code = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
    (anyhow!(error).context(program.display().to_string()), code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_status_to_exit_code() {
        assert_eq!(code(ExitStatus::from_raw(0)), 0);
        assert_eq!(code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(code(ExitStatus::from_raw(libc::SIGKILL)), 137);
    }
}
