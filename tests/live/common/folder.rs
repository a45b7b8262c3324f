//! A temporary directory.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
};

use tempfile::TempDir;

/// A directory readable by everybody, removed when dropped.
pub struct Folder {
    path: PathBuf,
    folder: Option<TempDir>,
}

impl Folder {
    /// An empty directory.
    pub fn new() -> Folder {
        let folder = tempfile::Builder::new().prefix("tcptrace-").tempdir().expect("create a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        Folder { path: folder.path().canonicalize().expect("its path"), folder: Some(folder) }
    }

    /// The directory, as a path without symbolic links.
    pub fn root(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it, which need not exist.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The same as text, for command lines.
    pub fn name(&self, name: &str) -> String {
        self.path(name).into_os_string().into_string().expect("the temporary folder has a UTF-8 name")
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).expect("write a file");
        self.name(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let removed = self.folder.take().map_or(Ok(()), TempDir::close);
        // A failure to remove it must not hide the reason for which the test failed.
        if !thread::panicking() {
            removed.expect("remove a folder");
        }
    }
}
