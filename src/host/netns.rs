//! The network namespaces of this machine.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// A network namespace, and a file to enter it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netns {
    /// The inode number that identifies it.
    pub inode: u64,
    /// A file to pass to setns(2).
    pub path: PathBuf,
}

/// All network namespaces that a thread is in or that are mounted, ours first; and whether those of some threads could
/// not be read.
pub fn network_namespaces() -> (Vec<Netns>, bool) {
    let mut found: Vec<Netns> = Vec::new();
    let mut hidden = false;
    let mut add = |path: PathBuf| match fs::metadata(&path) {
        Ok(file) if found.iter().any(|netns| netns.inode == file.ino()) => {}
        Ok(file) => found.push(Netns { inode: file.ino(), path }),
        Err(error) => hidden |= error.kind() == std::io::ErrorKind::PermissionDenied,
    };
    add("/proc/thread-self/ns/net".into());
    for process in numbered("/proc".as_ref()) {
        for thread in numbered(&process.join("task")) {
            add(thread.join("ns/net"));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for fields in mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()) {
        if let [_, _, _, root, point, ..] = fields[..]
            && root.starts_with("net:[")
        {
            add(point.into());
        }
    }
    (found, hidden)
}

/// The entries of a directory whose names are numbers.
fn numbered(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let is_number =
        |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
    fs::read_dir(directory).into_iter().flatten().flatten().filter(is_number).map(|entry| entry.path())
}
