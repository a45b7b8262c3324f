//! Where lines go: a file, or a descriptor we were given.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Result, stderr, stdout},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{OpenOptionsExt, fchown},
    },
    path::Path,
};

use anyhow::Context;
use nix::unistd::geteuid;

use crate::host::sudo_user::SudoUser;

/// What `--output` names; without it stdout, or stderr beside a command, whose stdout is its own.
///
/// # Errors
/// When the file cannot be opened.
pub fn open(
    path: Option<&Path>,
    beside_command: bool,
    invoker: Option<&SudoUser>,
) -> anyhow::Result<OwnedFd> {
    let inherited = match path {
        Some(path) if path.as_os_str() != "-" => {
            return file(path, invoker).with_context(|| format!("open {}", path.display()));
        }
        None if beside_command => stderr().as_fd().try_clone_to_owned(),
        _ => stdout().as_fd().try_clone_to_owned(),
    };
    inherited.context("open the output")
}

/// A file. What tcptrace sees as root is not for everyone: a new file is readable by its owner
/// only, who is the invoking user. A file that is there keeps its owner and mode.
fn file(path: &Path, invoker: Option<&SudoUser>) -> Result<OwnedFd> {
    let mode = if geteuid().is_root() { 0o600 } else { 0o666 };
    match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(file) => {
            give(&file, invoker)?;
            Ok(file.into())
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            OpenOptions::new().write(true).truncate(true).open(path).map(OwnedFd::from)
        }
        Err(error) => Err(error),
    }
}

fn give(file: &File, invoker: Option<&SudoUser>) -> Result<()> {
    match invoker {
        Some(invoker) if geteuid().is_root() => fchown(file, Some(invoker.uid), Some(invoker.gid)),
        _ => Ok(()),
    }
}
