//! The destination of lines: a file or an inherited descriptor.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata},
    io::{Read, Result, Seek, SeekFrom, Write, stderr, stdout},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{MetadataExt, fchown},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use nix::{
    fcntl::{AT_FDCWD, OFlag, open as open_path, openat},
    sys::stat::{Mode, fstat},
    unistd::geteuid,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::host::{sandbox, sudo_user::SudoUser};

/// How long to wait for another tcptrace that begins with the same file.
const BEGIN_PATIENCE: Duration = Duration::from_secs(1);

/// The destination that the options ask for.
#[derive(Debug)]
pub struct Target<'a> {
    /// FILE, or `-`.
    pub path: Option<&'a Path>,
    /// Whether stdout belongs to a command, so that stderr is used instead.
    pub beside_command: bool,
    /// Whether to replace the contents of the file: a document cannot be continued.
    pub replace: bool,
    /// What an empty file begins with, if anything.
    pub header: Vec<u8>,
    /// The owner of a new file.
    pub invoker: Option<SudoUser>,
}

/// An open destination.
#[derive(Debug)]
pub struct Output {
    /// The descriptor to write to.
    pub fd: OwnedFd,
    /// Whether it is a file, which already has its header.
    pub has_header: bool,
    /// The file to reopen, if it can be.
    pub named: Option<Named>,
}

/// A regular file that can be reopened by name, even in the sandbox.
#[derive(Debug)]
pub struct Named {
    /// The path as given by the user.
    path: PathBuf,
    directory: OwnedFd,
    name: OsString,
    mode: Mode,
    header: Vec<u8>,
    invoker: Option<SudoUser>,
}

impl Target<'_> {
    /// Opens the file; without one stdout, or stderr if stdout belongs to a command. An existing file is appended to.
    ///
    /// # Errors
    /// When the file cannot be opened, or its header cannot be written.
    pub fn open(self) -> anyhow::Result<Output> {
        let inherited = match self.path {
            Some(path) if path.as_os_str() != "-" => {
                return self.file(path).with_context(|| format!("open {}", path.display()));
            }
            None if self.beside_command => stderr().as_fd().try_clone_to_owned(),
            _ => stdout().as_fd().try_clone_to_owned(),
        };
        let fd = inherited.context("open the output")?;
        Ok(Output { fd, has_header: false, named: None })
    }

    /// Opens a file. It contains what only root can see, so a new file is readable only by its owner, who is the
    /// invoking user. An existing file keeps its owner and mode.
    fn file(self, path: &Path) -> Result<Output> {
        let mode = Mode::from_bits_truncate(if geteuid().is_root() { 0o600 } else { 0o666 });
        let mut file = open_at(AT_FDCWD, path, OFlag::empty(), mode, self.invoker.as_ref())?;
        let has_header = file.metadata()?.is_file();
        let mut named = None;
        if has_header {
            if self.replace {
                file.set_len(0)?;
            }
            begin(&mut file, &self.header, || ends_in_mid_line(path))?;
            named = directory_of(path).filter(|_| !self.replace).map(|(directory, name)| Named {
                path: path.to_owned(),
                directory,
                name,
                mode,
                header: self.header,
                invoker: self.invoker,
            });
        }
        Ok(Output { fd: file.into(), has_header, named })
    }
}

impl Named {
    /// Opens the file that has the name now, or creates it.
    ///
    /// # Errors
    /// When that fails, or it is not a regular file.
    pub fn reopen(&self) -> anyhow::Result<OwnedFd> {
        let open = || {
            let file =
                open_at(&self.directory, &self.name, sandbox::REOPEN, self.mode, self.invoker.as_ref())?;
            ensure!(file.metadata()?.is_file(), "it is not a regular file");
            Ok(file)
        };
        let path = self.path.display();
        let mut file = open().with_context(|| format!("reopen {path}"))?;
        // In the sandbox nothing can be read; a file that appears after a rename is rarely broken.
        begin(&mut file, &self.header, || false).with_context(|| format!("write the header of {path}"))?;
        Ok(file.into())
    }

    /// The directory of the file.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// The directory of a file and its name there, after following links.
fn directory_of(path: &Path) -> Option<(OwnedFd, OsString)> {
    let path = fs::canonicalize(path).ok()?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Some((open_path(path.parent()?, flags, Mode::empty()).ok()?, path.file_name()?.to_owned()))
}

/// Opens a file, or creates it for its owner. Every write appends (O_APPEND), so logrotate's copytruncate and several
/// tcptrace processes work.
fn open_at(
    directory: impl AsFd,
    path: impl AsRef<Path>,
    how: OFlag,
    mode: Mode,
    invoker: Option<&SudoUser>,
) -> Result<File> {
    let (path, flags) = (path.as_ref(), OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CLOEXEC | how);
    match openat(&directory, path, flags | OFlag::O_CREAT | OFlag::O_EXCL, mode) {
        Ok(file) => {
            let file = File::from(file);
            give(&file, invoker)?;
            Ok(file)
        }
        Err(nix::errno::Errno::EEXIST) => Ok(openat(&directory, path, flags, Mode::empty())?.into()),
        Err(error) => Err(error.into()),
    }
}

/// Ends a broken last line, and writes the header to an empty file. From then on the file has a shared lock, so that
/// of several processes only one writes the header, and none takes what another is writing for a broken line: a
/// write() may be visible in part.
fn begin(file: &mut File, header: &[u8], is_broken: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + BEGIN_PATIENCE;
    // False if the lock is not available yet. Some file systems have no locks.
    let locked = |file: &File, how| flock(file, how) != Err(Errno::WOULDBLOCK) || Instant::now() > deadline;
    let share = |file: &File| locked(file, FlockOperation::NonBlockingLockShared);
    let pause = || thread::sleep(Duration::from_millis(1));
    let is_alone = loop {
        if locked(file, FlockOperation::NonBlockingLockExclusive) {
            break true;
        }
        if share(file) {
            break false;
        }
        pause();
    };
    if is_alone && is_broken() {
        file.write_all(b"\n")?;
    }
    if file.metadata()?.len() == 0 {
        file.write_all(header)?;
    }
    while is_alone && !share(file) {
        pause();
    }
    Ok(())
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

/// Whether it is this regular file.
pub fn is_regular(output: &OwnedFd, file: &Metadata) -> bool {
    file.is_file() && fstat(output).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (file.dev(), file.ino()))
}

fn give(file: &File, invoker: Option<&SudoUser>) -> Result<()> {
    match invoker {
        Some(invoker) if geteuid().is_root() && invoker.uid != 0 => {
            fchown(file, Some(invoker.uid), Some(invoker.gid))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = b"header\n";

    /// Opens a file twice, as two processes do.
    fn open_twice(path: &Path) -> [File; 2] {
        let (how, mode) = (OFlag::empty(), Mode::from_bits_truncate(0o600));
        [(); 2].map(|()| open_at(AT_FDCWD, path, how, mode, None).expect("open"))
    }

    #[test]
    fn a_file_gets_one_header_from_several_processes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.csv");
        let text = || fs::read_to_string(&path).expect("text");
        let [mut other, mut file] = open_twice(&path);
        flock(&other, FlockOperation::NonBlockingLockExclusive).expect("lock");
        thread::scope(|scope| {
            let beginning = scope.spawn(|| begin(&mut file, HEADER, || false));
            other.write_all(HEADER).expect("write");
            flock(&other, FlockOperation::NonBlockingLockShared).expect("share");
            beginning.join().expect("a thread").expect("begin");
        });
        assert_eq!(text(), "header\n");
        file.set_len(0).expect("empty it, as copytruncate");
        begin(&mut file, HEADER, || false).expect("begin");
        assert_eq!(text(), "header\n");
        flock(&file, FlockOperation::Unlock).expect("unlock");
        flock(&other, FlockOperation::NonBlockingLockExclusive).expect("lock");
        file.set_len(0).expect("empty it");
        begin(&mut file, HEADER, || false).expect("a lock that is held is not waited for without end");
        assert_eq!(text(), "header\n");
    }

    #[test]
    fn a_line_that_is_being_written_is_not_broken() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.csv");
        let is_broken = || ends_in_mid_line(&path);
        let [mut other, mut file] = open_twice(&path);
        begin(&mut other, HEADER, is_broken).expect("begin");
        other.write_all(b"a line").expect("write");
        begin(&mut file, HEADER, is_broken).expect("begin");
        assert_eq!(fs::read_to_string(&path).expect("text"), "header\na line");
        drop((other, file));
        let [mut file, _] = open_twice(&path);
        begin(&mut file, HEADER, is_broken).expect("begin");
        assert_eq!(fs::read_to_string(&path).expect("text"), "header\na line\n");
    }
}
