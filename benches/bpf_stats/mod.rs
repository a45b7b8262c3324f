//! Reads how often, and how long, the kernel ran the BPF programs of a process.
#![allow(dead_code)] // each bench uses its part

use std::fs;

const ENABLED: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Enables kernel.bpf_stats_enabled until dropped.
pub struct BpfStats(String);

impl BpfStats {
    pub fn enable() -> Self {
        let before = fs::read_to_string(ENABLED).expect("root, and a kernel with BPF statistics");
        fs::write(ENABLED, "1").expect("enable bpf statistics");
        BpfStats(before)
    }
}

impl Drop for BpfStats {
    fn drop(&mut self) {
        let _ = fs::write(ENABLED, self.0.trim());
    }
}

/// The text of /proc/PID/fdinfo for each BPF program that a process holds.
pub fn programs(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return Vec::new() };
    let texts = entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    // The information of a link names its program too, but without run counts.
    texts.filter(|text| text.contains("run_time_ns")).collect()
}

/// The number after `name:` in the information of a program, or 0.
pub fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
}

/// Whether a process is sleeping.
pub fn is_idle(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") S "))
}
