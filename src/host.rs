//! What only this machine can tell: clocks, capabilities, mounts, /proc.

use std::{
    fs,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use terminal_size::{Height, Width};

use crate::{
    diagnosis::Facts,
    event::{BootTime, Process},
    invoker::Invoker,
    proc,
    sink::table::Size,
};

/// What the core asks of the machine; a test answers in its place.
pub trait Host {
    /// Add this to a boot time for nanoseconds since 1970. Changes when the clock is set.
    fn wall_offset(&self) -> i128;
    /// The kernel's time in records.
    fn boot_time(&self) -> BootTime;
    /// The arguments of a process, if it is still the one that is meant.
    fn args(&self, process: &Process) -> Option<String>;
}

/// The machine tcptrace runs on.
#[derive(Debug, Default)]
pub struct Machine;

impl Host for Machine {
    fn wall_offset(&self) -> i128 {
        i128::from(nanoseconds(ClockId::CLOCK_REALTIME)) - i128::from(nanoseconds(ClockId::CLOCK_BOOTTIME))
    }

    fn boot_time(&self) -> BootTime {
        BootTime(nanoseconds(ClockId::CLOCK_BOOTTIME))
    }

    fn args(&self, process: &Process) -> Option<String> {
        proc::args(process)
    }
}

fn nanoseconds(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(Duration::ZERO, Duration::from).as_nanos() as u64
}

/// Who called sudo, if someone did and that gave us root.
pub fn invoker() -> Option<Invoker> {
    let text = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let (passwd, group) = (text("/etc/passwd").unwrap_or_default(), text("/etc/group").unwrap_or_default());
    let invoker = Invoker::new(|name| std::env::var_os(name), &passwd, &group)?;
    nix::unistd::geteuid().is_root().then_some(invoker)
}

/// Where cgroup2 is mounted, or none.
pub fn cgroup2_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let whole = mount.split(' ').nth(3)? == "/";
        (whole && kind.starts_with("cgroup2 ")).then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// A network namespace, and where it can be entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netns {
    /// Its inode number.
    pub inode: u64,
    /// A file that stands for it.
    pub path: PathBuf,
}

/// Every network namespace that a thread is in or that is mounted somewhere, our own first; and
/// whether some threads did not say.
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

/// Entries of a directory whose names are numbers.
fn numbered(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let is_number =
        |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
    fs::read_dir(directory).into_iter().flatten().flatten().filter(is_number).map(|entry| entry.path())
}

/// The size of a terminal.
pub fn screen(of: impl AsFd) -> Option<Size> {
    let (Width(columns), Height(rows)) = terminal_size::terminal_size_of(of)?;
    Some(Size { columns: columns.into(), rows: rows.into() })
}

/// Whether text is UTF-8 here, by the variables of locale(7).
pub fn shows_utf8() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// The host's name.
pub fn name() -> String {
    nix::sys::utsname::uname().map(|name| name.nodename().to_string_lossy().into_owned()).unwrap_or_default()
}

/// What tells this installation from all others (machine-id(5)), or none.
pub fn machine_id() -> Option<String> {
    let text = fs::read_to_string("/etc/machine-id").ok()?;
    let id = text.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

/// All capabilities this kernel knows, one bit each.
pub fn all_capabilities() -> u64 {
    let last = fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
    let last: u32 = last.and_then(|text| text.trim().parse().ok()).unwrap_or(40);
    u64::MAX >> (63 - last.min(63))
}

/// The kernel's release.
pub fn release() -> String {
    nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// What could keep this machine from being traced.
pub fn facts() -> Facts {
    Facts {
        capabilities: effective_capabilities(),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        release: release(),
        lockdown: lockdown_mode(),
    }
}

fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default()
}

/// The word in brackets of `none [integrity] confidentiality`.
fn lockdown_mode() -> Option<String> {
    let modes = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let (_, rest) = modes.split_once('[')?;
    rest.split_once(']').map(|(mode, _)| mode.to_owned())
}
