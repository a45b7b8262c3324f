//! One process as /proc shows it, checked to be still the same process.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use nix::unistd::{SysconfVar, sysconf};

use super::argv;
use crate::event::{BootTime, Process};

/// Bytes of argv read; as many as the kernel side reads.
pub const ARGS_MAX: u64 = 8192;

/// The arguments of a process that the kernel side could not read.
///
/// None when the process is gone, or its number is another's by now, or it has exec'd something
/// else since its record was made.
pub fn args(process: &Process) -> Option<String> {
    let proc = PathBuf::from(format!("/proc/{}", process.pid));
    let mut bytes = Vec::new();
    File::open(proc.join("cmdline")).ok()?.take(ARGS_MAX + 1).read_to_end(&mut bytes).ok()?;
    // Asked after the reading: what was read belongs to the process that was there before.
    let stat = Stat::read(&proc)?;
    let same = stat.start == ticks(process.cloned_at)?
        && executable(&proc).is_none_or(|name| process.binary_path.is_empty() || name == process.filename);
    let cut = bytes.len() as u64 > ARGS_MAX;
    bytes.truncate(ARGS_MAX as usize);
    // A cmdline shorter or longer than arg_end - arg_start was overwritten (setproctitle).
    let title = !cut && stat.argv_len.is_some_and(|len| bytes.len() as u64 != len);
    same.then(|| argv::join(&bytes, title, cut))
}

/// The base name behind /proc/PID/exe; of some processes not even root may know it.
fn executable(proc: &Path) -> Option<String> {
    let path = fs::read_link(proc.join("exe")).ok()?;
    let name = path.file_name()?.to_string_lossy().into_owned();
    Some(name.strip_suffix(" (deleted)").map_or(name.clone(), str::to_owned))
}

/// Some of /proc/PID/stat.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// Clock ticks from boot to the fork.
    start: u64,
    /// None where it is kept from us.
    argv_len: Option<u64>,
}

impl Stat {
    fn read(proc: &Path) -> Option<Stat> {
        Stat::parse(&fs::read(proc.join("stat")).ok()?)
    }

    /// Fields are counted from behind the name, which may hold anything.
    fn parse(stat: &[u8]) -> Option<Stat> {
        let after_name = stat.iter().rposition(|&byte| byte == b')')? + 2;
        let fields = std::str::from_utf8(stat.get(after_name..)?).ok()?;
        let field = |number: usize| fields.split([' ', '\n']).nth(number - 3)?.parse::<u64>().ok();
        Some(Stat { start: field(22)?, argv_len: field(49)?.checked_sub(field(48)?).filter(|&len| len > 0) })
    }
}

fn ticks(time: BootTime) -> Option<u64> {
    let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    time.0.checked_div(1_000_000_000_u64.checked_div(per_second)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let mut stat = b"12 (a) 1 2 (3) R 1".to_vec();
        for number in 5..=52 {
            stat.extend_from_slice(format!(" {}", number * 10).as_bytes());
        }
        stat.push(b'\n');
        assert_eq!(Stat::parse(&stat), Some(Stat { start: 220, argv_len: Some(10) }));
        for end in 0..stat.len() - 20 {
            Stat::parse(&stat[..end]);
        }
        assert_eq!(Stat::parse(b"12 (a"), None);
        assert_eq!(Stat::parse(b")"), None);
    }

    #[test]
    fn its_own_arguments() {
        let stat = Stat::read(Path::new("/proc/self")).expect("our own stat");
        let bytes = fs::read("/proc/self/cmdline").expect("our own cmdline");
        assert_eq!(Some(bytes.len() as u64), stat.argv_len);
    }
}
