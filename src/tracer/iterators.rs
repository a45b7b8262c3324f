//! Iterators over existing sockets, read in parts.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    thread,
};

use anyhow::{Context, Result};
use libbpf_rs::libbpf_sys;
use nix::sched::{CloneFlags, setns};

use super::{
    config::TracerConfig,
    parallel::{Loaded, owned},
    programs,
    skel::NetmonProgs,
};
use crate::{
    cli::plan::AtStart,
    host::{self, CAP_SYS_ADMIN, CAP_SYS_PTRACE, Netns},
};

/// Room in the ring for one visited socket and its process record.
const BYTES_PER_TURN: u32 = 4096;

/// The iterators left to read: over all file descriptors, then the sockets of each network namespace.
pub struct Iterators {
    sockets: OwnedFd,
    files: OwnedFd,
    /// Namespaces left to visit, the next one last.
    namespaces: Vec<Netns>,
    own: u64,
    files_done: bool,
    current: Option<File>,
    /// Why a namespace could not be entered.
    closed: Option<io::Error>,
    /// Whether the namespaces of some processes could not be read.
    hidden: bool,
    /// Whether the sockets found are printed, not just their owners learned.
    printed: bool,
    capabilities: u64,
    /// The number of sockets visited at a time.
    turns: usize,
}

impl Iterators {
    /// Finds the namespaces and attaches the iterators.
    ///
    /// # Errors
    /// When the kernel refuses an iterator.
    pub fn new(progs: &NetmonProgs<'_>, loaded: &[Loaded], config: TracerConfig<'_>) -> Result<Self> {
        let attach = |prog| programs::attach_one(prog, loaded)?.context("an iterator is not loaded");
        let (mut namespaces, hidden) = host::network_namespaces();
        namespaces.reverse();
        Ok(Iterators {
            sockets: attach(&progs.on_existing_tcp)?,
            files: attach(&progs.on_existing_file)?,
            own: namespaces.last().map_or(0, |netns| netns.inode),
            namespaces,
            files_done: false,
            current: None,
            closed: None,
            hidden,
            printed: config.at_start != AtStart::Learn,
            capabilities: config.capabilities,
            turns: (config.ring_size / BYTES_PER_TURN) as usize,
        })
    }

    /// Visits some sockets. False when there are no more.
    ///
    /// # Errors
    /// When an iterator cannot be read.
    pub fn read(&mut self) -> Result<bool> {
        let mut bytes = vec![0; self.turns];
        loop {
            let Some(current) = &mut self.current else {
                if !self.next()? {
                    return Ok(false);
                }
                continue;
            };
            match current.read(&mut bytes) {
                Ok(0) => self.current = None,
                Ok(_) => return Ok(true),
                // EAGAIN: a million objects without a socket among them
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
                Err(error) => return Err(error).context("read the existing sockets"),
            }
        }
    }

    /// A note on what could not be visited.
    pub fn note(&self) -> Option<String> {
        if self.printed { unseen(self.closed.as_ref(), self.hidden, self.capabilities) } else { None }
    }

    /// Moves on to the next iterator; false when there is none.
    fn next(&mut self) -> Result<bool> {
        if !self.files_done {
            self.files_done = true;
            self.current = Some(create(self.files.as_fd()).context("iterate over the descriptors")?);
            return Ok(true);
        }
        while let Some(netns) = self.namespaces.pop() {
            let opened = if netns.inode == self.own {
                create(self.sockets.as_fd())
            } else {
                create_in(&netns, self.sockets.as_fd())
            };
            match opened {
                Ok(iterator) => {
                    self.current = Some(iterator);
                    return Ok(true);
                }
                Err(error) if netns.inode == self.own => {
                    return Err(error).context("iterate over the sockets");
                }
                // the namespace has gone, with all its sockets
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.closed = Some(error),
            }
        }
        Ok(false)
    }
}

/// Describes what could not be visited: a namespace that could not be entered, and why, or hidden ones.
fn unseen(closed: Option<&io::Error>, hidden: bool, capabilities: u64) -> Option<String> {
    let lacks = |capability| capabilities & capability == 0;
    let what = match closed {
        Some(error) if error.kind() == io::ErrorKind::PermissionDenied && lacks(CAP_SYS_ADMIN) => {
            "network namespaces could not be entered (needs CAP_SYS_ADMIN)".to_owned()
        }
        Some(error) => format!("a network namespace could not be entered ({error})"),
        None if hidden && lacks(CAP_SYS_PTRACE) => {
            "the network namespaces of some processes could not be read (needs CAP_SYS_PTRACE)".to_owned()
        }
        None if hidden => {
            "the network namespaces of some processes could not be read (forbidden by a user namespace or \
             a security module)"
                .to_owned()
        }
        None => return None,
    };
    Some(format!("{what}; sockets without an open descriptor may be missing there"))
}

/// Creates an iterator over the sockets of another namespace. An iterator is bound to the namespace of the thread that
/// creates it, so a new thread enters the namespace, creates the iterator and exits.
fn create_in(netns: &Netns, link: BorrowedFd<'_>) -> io::Result<File> {
    let namespace = File::open(&netns.path)?;
    thread::scope(|scope| {
        let entered = scope.spawn(|| {
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            create(link)
        });
        entered.join().map_err(|_| io::Error::other("the thread that entered it panicked"))?
    })
}

/// Creates an iterator over the objects of this link.
///
/// # Errors
/// When the kernel refuses.
pub fn create(link: BorrowedFd<'_>) -> io::Result<File> {
    // SAFETY: `link` is open; the call takes nothing else.
    owned(unsafe { libbpf_sys::bpf_iter_create(link.as_raw_fd()) }).map(File::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_capabilities_are_named() {
        let denied = io::Error::from_raw_os_error(libc::EPERM);
        let full = io::Error::from_raw_os_error(libc::EMFILE);
        for (closed, hidden, lacking, expected) in [
            (Some(&denied), true, CAP_SYS_ADMIN, Some("CAP_SYS_ADMIN")),
            (Some(&denied), true, CAP_SYS_PTRACE, None),
            (Some(&full), false, CAP_SYS_ADMIN, None),
            (None, true, CAP_SYS_PTRACE, Some("CAP_SYS_PTRACE")),
            (None, true, CAP_SYS_ADMIN, None),
        ] {
            let note = unseen(closed, hidden, !lacking).expect("a note");
            let named = note.split_once("needs ").map(|(_, rest)| rest.split_once(')').expect("a bracket").0);
            assert_eq!(named, expected, "{note}");
        }
        assert_eq!(unseen(None, false, 0), None);
    }
}
