//! The destination of lines: a file or an inherited descriptor.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{ErrorKind, Read, Result, Seek, SeekFrom, Write, stderr, stdout},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    },
    path::Path,
};

use anyhow::Context;
use nix::{
    sys::stat::{SFlag, fstat},
    unistd::geteuid,
};

use crate::host::sudo_user::SudoUser;

/// Opens the destination: `--output`, or stdout; with a command, stderr, because stdout belongs to the command. An
/// existing file is appended to, or replaced if `replace`: a document cannot be continued.
///
/// # Errors
/// When the file cannot be opened.
pub fn open(
    path: Option<&Path>,
    beside_command: bool,
    replace: bool,
    invoker: Option<&SudoUser>,
) -> anyhow::Result<OwnedFd> {
    let inherited = match path {
        Some(path) if path.as_os_str() != "-" => {
            return file(path, replace, invoker).with_context(|| format!("open {}", path.display()));
        }
        None if beside_command => stderr().as_fd().try_clone_to_owned(),
        _ => stdout().as_fd().try_clone_to_owned(),
    };
    inherited.context("open the output")
}

/// Opens a file. It contains what only root can see, so a new file is readable only by its owner, who is the invoking
/// user. An existing file keeps its owner and mode.
///
/// Every write appends (O_APPEND), so logrotate's copytruncate and several tcptrace processes work.
fn file(path: &Path, replace: bool, invoker: Option<&SudoUser>) -> Result<OwnedFd> {
    let mode = if geteuid().is_root() { 0o600 } else { 0o666 };
    match OpenOptions::new().append(true).create_new(true).mode(mode).open(path) {
        Ok(file) => {
            give(&file, invoker)?;
            Ok(file.into())
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let mut file = OpenOptions::new().append(true).open(path)?;
            if replace && file.metadata()?.is_file() {
                file.set_len(0)?;
            } else if ends_in_mid_line(path) {
                file.write_all(b"\n")?;
            }
            Ok(file.into())
        }
        Err(error) => Err(error),
    }
}

/// Whether a regular file ends in the middle of a line, as after a crash; false if it cannot be read.
fn ends_in_mid_line(path: &Path) -> bool {
    let last = || {
        let mut file =
            File::open(path).ok().filter(|file| file.metadata().is_ok_and(|data| data.is_file()))?;
        file.seek(SeekFrom::End(-1)).ok()?;
        let mut last = [0];
        file.read_exact(&mut last).ok().map(|()| last[0])
    };
    last().is_some_and(|byte| byte != b'\n')
}

/// Whether it is a regular file that is not empty.
pub fn has_content(output: &OwnedFd) -> bool {
    fstat(output).is_ok_and(|stat| {
        SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG && stat.st_size > 0
    })
}

/// Whether it is this regular file.
pub fn is_regular(output: &OwnedFd, file: &Metadata) -> bool {
    file.is_file() && fstat(output).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (file.dev(), file.ino()))
}

fn give(file: &File, invoker: Option<&SudoUser>) -> Result<()> {
    match invoker {
        Some(invoker) if geteuid().is_root() => fchown(file, Some(invoker.uid), Some(invoker.gid)),
        _ => Ok(()),
    }
}
