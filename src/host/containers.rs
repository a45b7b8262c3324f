//! The files of the container runtimes on this host: where they are, and how to read them without trusting their
//! owners.

use std::{
    fs::{self, File},
    io::Read,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::{
    dir::Dir,
    fcntl::{AT_FDCWD, OFlag, openat},
    sys::stat::Mode,
};

use crate::{
    event::Container,
    process::container::{is_hex_id, metadata},
};

pub mod reader;

/// Maximum size of a file to read, in bytes. The list of a storage takes about 500 bytes per container.
const FILE_MAX: u64 = 4 << 20;

/// Maximum number of containerd namespaces and of home directories to search.
const NAMESPACES_MAX: usize = 64;
const HOMES_MAX: usize = 1024;

/// How a runtime lays out its containers below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// `ID/config.v2.json`: one directory per Docker container.
    Docker,
    /// `NAMESPACE/ID/config.json`: bundles of containerd's shims.
    Containerd,
    /// `ID/userdata/config.json` and `containers.json`: podman and CRI-O.
    Storage,
}

/// Directories of runtimes run by root, including Kubernetes distributions with their own containerd.
const OF_ROOT: [(Layout, &str); 10] = [
    (Layout::Docker, "/var/lib/docker/containers"),
    (Layout::Containerd, "/run/containerd/io.containerd.runtime.v2.task"),
    (Layout::Containerd, "/run/k3s/containerd/io.containerd.runtime.v2.task"),
    (Layout::Containerd, "/run/k0s/containerd/io.containerd.runtime.v2.task"),
    (Layout::Containerd, "/var/snap/microk8s/common/run/containerd/io.containerd.runtime.v2.task"),
    (Layout::Storage, "/var/lib/containers/storage/overlay-containers"),
    (Layout::Storage, "/var/lib/containers/storage/vfs-containers"),
    (Layout::Storage, "/var/lib/containers/storage/btrfs-containers"),
    (Layout::Storage, "/run/containers/storage/overlay-containers"),
    (Layout::Storage, "/run/containers/storage/vfs-containers"),
];

/// Docker's configuration, which may set another data directory.
const DOCKER_OPTIONS: &str = "/etc/docker/daemon.json";

/// Directories of rootless runtimes, below a home directory.
const OF_USER: [(Layout, &str); 3] = [
    (Layout::Storage, ".local/share/containers/storage/overlay-containers"),
    (Layout::Storage, ".local/share/containers/storage/vfs-containers"),
    (Layout::Docker, ".local/share/docker/containers"),
];

/// All such directories found, root's first, so that a user's files cannot rename a container of root's.
#[derive(Debug)]
pub struct Folders(Vec<(Layout, OwnedFd)>);

impl Folders {
    /// Opens the directories that exist on this host and may be opened.
    pub fn find() -> Folders {
        let data_root = read(AT_FDCWD, &[DOCKER_OPTIONS])
            .and_then(|file| metadata::docker_data_root(&file))
            .and_then(|root| folder(AT_FDCWD, &format!("{root}/containers"), OFlag::empty()));
        let of_root = OF_ROOT
            .into_iter()
            .filter_map(|(layout, path)| Some((layout, folder(AT_FDCWD, path, OFlag::empty())?)));
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let of_users = homes(&passwd).into_iter().flat_map(of_user);
        let data_root = data_root.map(|folder| (Layout::Docker, folder));
        Folders(data_root.into_iter().chain(of_root).chain(of_users).collect())
    }

    /// Whether there may be any, without opening them.
    pub fn exist() -> bool {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let of_users = || {
            homes(&passwd)
                .into_iter()
                .map(Path::new)
                .flat_map(|home| OF_USER.map(|(_, path)| home.join(path)))
        };
        let exists = |path: &str| Path::new(path).exists();
        exists(DOCKER_OPTIONS)
            || OF_ROOT.iter().any(|(_, path)| exists(path))
            || of_users().any(|path| path.exists())
    }

    /// Descriptors of the directories.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|(_, folder)| folder.as_fd())
    }

    /// The names of the container with this id (64 hexadecimal digits), if its files are found.
    pub fn look_up(&self, id: &str) -> Option<Container> {
        if !is_hex_id(id) {
            return None;
        }
        self.0.iter().find_map(|(layout, folder)| match layout {
            Layout::Docker => metadata::docker(&read(folder, &[id, "config.v2.json"])?),
            Layout::Containerd => namespaces(folder)
                .into_iter()
                .find_map(|namespace| metadata::containerd(&read(folder, &[&namespace, id, "config.json"])?)),
            Layout::Storage => stored(folder, id),
        })
    }
}

/// CRI-O writes names to the container's own file; podman writes them to the list of all containers, or of those
/// started with `--rm`.
fn stored(folder: &OwnedFd, id: &str) -> Option<Container> {
    let own = read(folder, &[id, "userdata", "config.json"])?;
    let lists = ["containers.json", "volatile-containers.json"];
    metadata::crio(&own)
        .or_else(|| lists.iter().find_map(|list| metadata::storage(&read(folder, &[list])?, id)))
}

/// The distinct home directories in /etc/passwd.
fn homes(passwd: &str) -> Vec<&str> {
    let mut homes: Vec<&str> = passwd
        .lines()
        .filter_map(|line| line.split(':').nth(5))
        .filter(|home| home.starts_with('/') && *home != "/")
        .collect();
    homes.sort_unstable();
    homes.dedup();
    homes.truncate(HOMES_MAX);
    homes
}

/// Symbolic links below a home directory are not followed: the user could change them at any time.
fn of_user(home: &str) -> Vec<(Layout, OwnedFd)> {
    let Some(home) = folder(AT_FDCWD, home, OFlag::empty()) else { return Vec::new() };
    let below = |path: &str| {
        let mut names = path.split('/');
        let first = folder(&home, names.next()?, OFlag::O_NOFOLLOW)?;
        names.try_fold(first, |folder_of, name| folder(&folder_of, name, OFlag::O_NOFOLLOW))
    };
    OF_USER.into_iter().filter_map(|(layout, path)| Some((layout, below(path)?))).collect()
}

/// The names of the subdirectories, in no particular order.
fn namespaces(folder: &OwnedFd) -> Vec<String> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(mut entries) = Dir::openat(folder, ".", flags, Mode::empty()) else { return Vec::new() };
    let names =
        entries.iter().flatten().filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
    names.filter(|name| !name.starts_with('.')).take(NAMESPACES_MAX).collect()
}

fn folder(beside: impl AsFd, path: &str, flags: OFlag) -> Option<OwnedFd> {
    let flags = flags | OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(beside, path, flags, Mode::empty()).ok()
}

/// Reads a whole regular file, following `names` from directory to directory without symbolic links. None for anything
/// else: a pipe, a device, a file that is too long.
fn read(beside: impl AsFd, names: &[&str]) -> Option<Vec<u8>> {
    let (file, folders) = names.split_last()?;
    let mut inner = None;
    for name in folders {
        let from = inner.as_ref().map_or(beside.as_fd(), OwnedFd::as_fd);
        inner = Some(folder(from, name, OFlag::O_NOFOLLOW)?);
    }
    let from = inner.as_ref().map_or(beside.as_fd(), OwnedFd::as_fd);
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = File::from(openat(from, Path::new(file), flags, Mode::empty()).ok()?);
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= FILE_MAX);
    let mut bytes = Vec::new();
    (is_file && file.take(FILE_MAX + 1).read_to_end(&mut bytes).is_ok() && bytes.len() as u64 <= FILE_MAX)
        .then_some(bytes)
}

#[cfg(test)]
mod tests;
