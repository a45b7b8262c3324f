//! Reads properties of a process from /proc.

/// The value of a line of /proc/PID/status, in KiB.
pub fn kilobytes(pid: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let found = status.lines().find_map(|text| text.strip_prefix(line)).expect(line);
    found.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Whether a process is running; a zombie is not.
pub fn runs(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}
