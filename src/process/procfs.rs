//! Reads a process from /proc, and checks that it is still the same process.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use nix::unistd::{SysconfVar, sysconf};

use super::argv;
use crate::event::{BootTime, Process};

/// Maximum number of bytes of argv to read, the same as on the kernel side.
pub const ARGS_MAX: u64 = 8192;

/// Reads the arguments of a process that the kernel side could not read.
///
/// None if the process has exited, its pid has been reused, or it has called exec since its record was made, as
/// reported by `is_current`. `boot_offset`: nanoseconds that /proc adds to boot times.
pub fn args(process: &Process, boot_offset: i128, is_current: impl Fn(&Process) -> bool) -> Option<String> {
    let proc = PathBuf::from(format!("/proc/{}", process.pid));
    let mut bytes = Vec::new();
    File::open(proc.join("cmdline")).ok()?.take(ARGS_MAX + 1).read_to_end(&mut bytes).ok()?;
    // Checked after reading, so that the bytes are known to be of the original process.
    let same = start(&proc)? == ticks(process.cloned_at, boot_offset)? && is_current(process);
    let cut = bytes.len() as u64 > ARGS_MAX;
    bytes.truncate(ARGS_MAX as usize);
    // For a title, /proc shows the text, of any length; for argv, exactly its length.
    let title = !cut && process.argv_len != 0 && bytes.len() != usize::from(process.argv_len);
    same.then(|| argv::join(&bytes, title, cut))
}

/// The start time of a process, in clock ticks since boot.
fn start(proc: &Path) -> Option<u64> {
    start_in(&fs::read(proc.join("stat")).ok()?)
}

/// Parses /proc/PID/stat. Fields are counted from the end of the name, which may contain anything.
fn start_in(stat: &[u8]) -> Option<u64> {
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 2;
    let fields = std::str::from_utf8(stat.get(after_name..)?).ok()?;
    fields.split([' ', '\n']).nth(22 - 3)?.parse().ok()
}

fn ticks(time: BootTime, boot_offset: i128) -> Option<u64> {
    let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    u64::try_from(i128::from(time.0) + boot_offset)
        .ok()?
        .checked_div(1_000_000_000_u64.checked_div(per_second)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_names_may_contain_anything() {
        let mut stat = b"12 (a) 1 2 (3) R 1".to_vec();
        for number in 5..=52 {
            stat.extend_from_slice(format!(" {}", number * 10).as_bytes());
        }
        stat.push(b'\n');
        assert_eq!(start_in(&stat), Some(220));
        for end in 0..stat.len() - 20 {
            start_in(&stat[..end]);
        }
        assert_eq!(start_in(b"12 (a"), None);
        assert_eq!(start_in(b")"), None);
    }

    #[test]
    fn arguments_are_only_read_of_the_same_process() {
        let bytes = fs::read("/proc/self/cmdline").expect("our own cmdline");
        let started = start(Path::new("/proc/self")).expect("our own start");
        let per_second = sysconf(SysconfVar::CLK_TCK).expect("sysconf").expect("a number") as u64;
        let this = Process {
            pid: std::process::id(),
            cloned_at: BootTime(started * (1_000_000_000 / per_second)),
            argv_len: bytes.len() as u16,
            ..Process::default()
        };
        let expected = Some(argv::join(&bytes, false, false));
        assert_eq!(args(&this, 0, |_| true), expected);
        assert_eq!(args(&this, 0, |_| false), None);
        let before = Process { cloned_at: BootTime(1), ..this };
        assert_eq!(args(&before, 0, |_| true), None);
    }
}
