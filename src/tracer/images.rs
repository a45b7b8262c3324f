//! The kernel side's process images, read by descriptor without privileges.

use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use libbpf_rs::{Map, MapCore, MapFlags, MapHandle};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::layout;
use crate::event::{BootTime, Process};

/// The map of process images.
pub struct Images(MapHandle);

impl Images {
    /// Duplicates the descriptor of this map.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated.
    pub fn new(map: &Map<'_>) -> Result<Images> {
        MapHandle::try_from(map).map(Images).context("duplicate the map of processes")
    }

    /// Whether the process has not called exec since its record was made. Does not detect that its pid was reused.
    pub fn is_current(&self, process: &Process) -> bool {
        let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
        let Some(Ok(pidfd)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return false };
        // Task storage is addressed by a pidfd.
        let exec_time = match self.0.lookup(&pidfd.as_raw_fd().to_ne_bytes(), MapFlags::ANY) {
            Ok(Some(bytes)) => layout::read::<layout::image>(&bytes).map(|image| image.exec_time),
            Ok(None) => Some(0),
            Err(_) => None,
        };
        exec_time.is_some_and(|time| is_current(BootTime(time), process))
    }
}

/// `exec_time`: of the last exec that was seen, 0 if none was.
fn is_current(exec_time: BootTime, process: &Process) -> bool {
    process.start == if exec_time == BootTime(0) { process.cloned_at } else { exec_time }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_makes_another_image() {
        let forked = Process { start: BootTime(5), cloned_at: BootTime(5), ..Process::default() };
        let executed = Process { start: BootTime(9), ..forked.clone() };
        assert!(is_current(BootTime(0), &forked) && is_current(BootTime(9), &executed));
        assert!(!is_current(BootTime(9), &forked) && !is_current(BootTime(12), &executed));
        assert!(!is_current(BootTime(0), &executed));
    }
}
