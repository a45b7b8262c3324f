//! `-- COMMAND`: run it beside the trace, and pass its status on.

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

/// The hidden option that makes a second tcptrace become the command, see [`become_command`].
pub const BECOME: &str = "--become-command";

/// A command that was started, and that nobody waits for yet.
#[derive(Debug)]
pub struct Started {
    child: Child,
    signals: Signals,
}

/// A command that is waited for.
///
/// It stays in our process group, so a terminal gives Ctrl-C to both of us; we leave it to the
/// command. What is sent to us alone, SIGTERM and SIGHUP, we pass on.
#[derive(Debug)]
pub struct Running {
    keeper: JoinHandle<Result<ExitStatus>>,
    ended: Arc<OnceLock<Instant>>,
}

/// Start it, as the invoking user. The kernel side follows our children, so the probes must be
/// attached by now.
///
/// A second tcptrace is started, which becomes the command: changing the user between fork and
/// exec needs unsafe code, changing it in a process of its own does not. It is forked, for it is
/// given the group it has: posix_spawn(3), which would do as well, has it ignore signals 32 and 33.
///
/// # Errors
/// When no process can be started, or no signal be caught.
pub fn start(words: &[OsString]) -> Result<Started> {
    // What is ignored stays so, for the command too: exec resets what is caught.
    let caught = [SIGINT, SIGQUIT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !ignores(signal));
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
    /// The command's process.
    ///
    /// # Errors
    /// Never: a process id is a small number.
    pub fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id()).context("a process id")?))
    }

    /// Wait for its end, in a thread, which may do what this one may.
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
    // The process is not waited for before the code below: its pid cannot be another's yet.
    let pass_on = |signal| match kill(pid, signal) {
        // It has become another user's, as sudo does: the shell of ours could do no more.
        Ok(()) | Err(Errno::EPERM) => Ok(()),
        Err(error) => Err(error).context("pass a signal on"),
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

    /// Wait for its end. Its own exit code, or 128 + the signal that ended it.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn wait(self) -> Result<u8> {
        let status = self.keeper.join().map_err(|_| anyhow!("the thread beside the command is gone"))??;
        Ok(code(status))
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Become the invoking user, and then the command. Returns why that failed, and the exit code
/// that shells and env(1) give in such a case.
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
    fn a_status_becomes_a_code() {
        assert_eq!(code(ExitStatus::from_raw(0)), 0);
        assert_eq!(code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(code(ExitStatus::from_raw(libc::SIGKILL)), 137);
    }
}
