//! Reads properties of a process from /proc.

use std::{collections::BTreeSet, fs};

/// The ids of the BPF programs, maps and links that a process has descriptors of.
pub fn objects_of(pid: u32) -> [BTreeSet<u32>; 3] {
    let folder = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("its descriptors");
    let infos: Vec<String> =
        folder.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect();
    // The information of a link names its program too.
    ["prog_id:", "map_id:", "link_id:"].map(|name| {
        let numbers = infos.iter().flat_map(|info| info.lines()).filter_map(|line| line.strip_prefix(name));
        numbers.map(|number| number.trim().parse().expect("a number")).collect()
    })
}

/// The value of a line of /proc/PID/status, in KiB.
pub fn kilobytes(pid: u32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let found = status.lines().find_map(|text| text.strip_prefix(line)).expect(line);
    found.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Whether a process is running; a zombie is not.
pub fn runs(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}
