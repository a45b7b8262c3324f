//! Behaviour and messages on restricted hosts: few privileges, unusual kernels.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Instant,
};

use crate::common::{
    self, Launch, PATIENCE, Trace, all,
    harness::{in_guest, skipped},
    net::Pair,
    net::V4,
    net::V6,
    probes, the,
};
use libtest_mimic::{Completion, Trial};

const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;
const PROBE_SETS: [&str; 2] = ["trampoline", "tracepoint"];

/// tcptrace as user nobody, with only these capabilities.
fn as_nobody(capabilities: &[u32]) -> Command {
    let list = capabilities.iter().map(|number| format!("+cap_{number}")).collect::<Vec<_>>().join(",");
    let list = format!("-all{}{list}", if list.is_empty() { "" } else { "," });
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["--inh-caps", &list, "--ambient-caps", &list, "--bounding-set", &list])
        .arg(env!("CARGO_BIN_EXE_tcptrace"));
    command
}

/// Expects a refusal: exit status 1, nothing on stdout, and one line on stderr, which is returned.
fn refused(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.args(["-j", "--timeout", "60s"]).output().expect("start tcptrace");
    let stderr = String::from_utf8(stderr).expect("stderr is UTF-8");
    assert_eq!(status.code(), Some(1), "{command:?}: {stderr}");
    assert_eq!(stdout, b"", "{command:?}");
    assert!(stderr.starts_with("tcptrace: ") && stderr.ends_with('\n'), "{command:?}: {stderr:?}");
    assert_eq!(stderr.lines().count(), 1, "{command:?}: {stderr}");
    stderr
}

/// Checks that all events of a connection are reported.
fn traces_a_connection(launch: Launch) -> Trace {
    let mut trace = Trace::of(launch);
    let pair = Pair::new(V4);
    let port = pair.port();
    drop(pair);
    let events = trace.wait_port(port, 4);
    for kind in ["TcpConnectionEstablish", "TcpConnectionAccept"] {
        assert_eq!(the(&events, kind)["process"]["pid"], std::process::id());
    }
    assert_eq!(all(&events, "TcpConnectionClose").len(), 2);
    trace
}

fn file(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn trampolines_work() -> bool {
    let output = common::tcptrace().args(["--probes", "trampoline", "--timeout", "1ms"]).output();
    output.expect("start tcptrace").status.success()
}

/// A cgroup with a memory limit, removed on drop; none without a memory controller.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn new(name: &str, limit: u64) -> Option<MemoryGroup> {
        let versions = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        versions.iter().find_map(|(root, file)| {
            let path = Path::new(root).join(format!("tcptrace-test-{}-{name}", std::process::id()));
            fs::create_dir(&path).ok()?;
            let group = MemoryGroup(path);
            // The file exists only if the controller is enabled.
            fs::OpenOptions::new().write(true).open(group.0.join(file)).ok()?;
            fs::write(group.0.join(file), limit.to_string()).expect("set the limit");
            Some(group)
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 0 > \"$0\" && exec \"$@\""]).arg(self.0.join("cgroup.procs"));
        command.arg(env!("CARGO_BIN_EXE_tcptrace"));
        command
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A process that has just exited may briefly remain in it.
        let deadline = Instant::now() + PATIENCE;
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            thread::yield_now();
        }
    }
}

fn a_cgroup_with_little_memory() -> Completion {
    const MB: u64 = 1 << 20;
    for limit in [16, 48, 64] {
        let Some(group) = MemoryGroup::new(&limit.to_string(), limit * MB) else {
            return skipped("no cgroup has a memory controller here");
        };
        let line = refused(&mut group.command());
        let expected =
            format!("is limited to {limit} MB of memory; tcptrace needs 80 MB, of which --ring-size is 32");
        assert!(line.contains(&expected), "{line}");
    }
    // The stated amount is enough, even if most is loaded.
    let group = MemoryGroup::new("enough", 49 * MB).expect("a cgroup");
    let launch = Launch::with(group.command()).args(["-e", "all", "--existing", "--ring-size", "1M"]);
    drop(launch.args(["--probes", &probes()]).start());
    Completion::Completed
}

fn without_capabilities_the_error_reports_both() {
    let line = refused(&mut as_nobody(&[]));
    assert!(line.contains("CAP_BPF and CAP_PERFMON") && line.contains("try sudo"), "{line}");
}

/// Without CAP_SYS_PTRACE, root cannot read the namespaces of another user's process.
fn advice_names_only_missing_capabilities() {
    let mut nobody = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start a process");
    // Once it answers, it has changed its user.
    nobody.stdin.as_ref().expect("stdin").write_all(b"\n").expect("write");
    nobody.stdout.as_mut().expect("stdout").read_exact(&mut [0]).expect("read");
    let snapshot = |set: &str| {
        let mut command = Command::new("setpriv");
        command.args([
            "--bounding-set",
            set,
            "--inh-caps",
            set,
            env!("CARGO_BIN_EXE_tcptrace"),
            "--snapshot",
        ]);
        let output = command.output().expect("start tcptrace");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).expect("stderr is UTF-8")
    };
    let stderr = snapshot("-sys_ptrace");
    assert!(stderr.contains("could not be read (needs CAP_SYS_PTRACE)"), "{stderr}");
    let stderr = snapshot("-sys_time");
    assert!(!stderr.contains("needs CAP"), "{stderr}");
    drop(nobody.stdin.take());
    nobody.wait().expect("wait");
}

fn one_capability_alone_reports_the_missing_one() {
    // except those dropped from the bounding set of this machine
    let bounding = file("/proc/self/status");
    let bounding = bounding.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).expect("CapBnd");
    let bounding = u64::from_str_radix(bounding, 16).expect("a mask");
    for capability in (0..64).filter(|&number| bounding >> number & 1 == 1 && number != CAP_SYS_ADMIN) {
        let line = refused(&mut as_nobody(&[capability]));
        assert_eq!(line.contains("CAP_BPF"), capability != CAP_BPF, "{capability}: {line}");
        assert_eq!(line.contains("CAP_PERFMON"), capability != CAP_PERFMON, "{capability}: {line}");
        assert!(line.contains("try sudo"), "{line}");
    }
}

fn the_two_capabilities_are_enough() {
    for probes in ["auto", "tracepoint"] {
        let launch = Launch::with(as_nobody(&[CAP_BPF, CAP_PERFMON]));
        traces_a_connection(launch.args(["-j", "--probes", probes])).stop();
    }
}

/// The older capability, which includes both and much more.
fn cap_sys_admin_is_enough() {
    for probes in ["auto", "tracepoint"] {
        let launch = Launch::with(as_nobody(&[CAP_SYS_ADMIN]));
        traces_a_connection(launch.args(["-j", "--probes", probes])).stop();
    }
}

fn tracepoints_are_used_and_reported_without_trampolines() {
    let auto = traces_a_connection(Launch::with(common::tcptrace()).args(["-j"]));
    if trampolines_work() {
        assert_eq!(auto.banner().lines().count(), 1, "{}", auto.banner());
        assert!(auto.banner().contains("trampoline"), "{}", auto.banner());
    } else {
        assert!(auto.banner().contains("without BPF trampolines"), "{}", auto.banner());
        assert!(auto.banner().contains("tracepoint probes"), "{}", auto.banner());
        let line = refused(common::tcptrace().args(["--probes", "trampoline"]));
        assert!(line.contains("--probes tracepoint"), "{line}");
    }
    auto.stop();
}

/// Checks that both probe sets trace; returns their notes before the ready line.
fn both_sets_trace() -> [String; 2] {
    PROBE_SETS.map(|probes| {
        let trace = traces_a_connection(Launch::with(common::tcptrace()).args(["-j", "--probes", probes]));
        let banner = trace.banner().to_owned();
        assert!(trace.stop().status.success());
        banner
    })
}

fn lockdown_integrity() {
    assert!(file("/sys/kernel/security/lockdown").contains("[integrity]"));
    both_sets_trace();
}

fn lockdown_confidentiality() {
    assert!(file("/sys/kernel/security/lockdown").contains("[confidentiality]"));
    for probes in PROBE_SETS {
        let line = refused(common::tcptrace().args(["--probes", probes]));
        assert!(line.contains("lockdown") && line.contains("lockdown=integrity"), "{line}");
    }
}

fn no_ipv6() {
    assert!(std::net::TcpListener::bind((V6, 0)).is_err());
    both_sets_trace();
}

fn no_cgroup2() {
    assert!(!file("/proc/self/mountinfo").contains(" - cgroup2 "));
    let [_, tracepoint] = both_sets_trace();
    for lost in ["remote ends have no DNS names", "failures before the SYN are not seen"] {
        let line = format!("tcptrace: {lost}: cgroup2 is not mounted");
        assert_eq!(tracepoint.lines().filter(|printed| *printed == line).count(), 1, "{tracepoint}");
    }
}

fn hidepid() {
    assert!(file("/proc/self/mountinfo").contains("hidepid=invisible"));
    both_sets_trace();
    // root can see all processes anyway, but nobody cannot
    let trace = traces_a_connection(Launch::with(as_nobody(&[CAP_BPF, CAP_PERFMON])).args(["-j"]));
    let process = &trace.events[0]["process"];
    let own = std::env::current_exe().expect("this program");
    assert_eq!(process["binary_path"], own.to_str().expect("UTF-8"));
    assert_ne!(process["args"], "");
    assert!(trace.stop().status.success());
}

fn no_btf() {
    assert!(!Path::new("/sys/kernel/btf/vmlinux").exists());
    for probes in PROBE_SETS {
        let line = refused(common::tcptrace().args(["--probes", probes]));
        assert!(line.contains("CONFIG_DEBUG_INFO_BTF"), "{line}");
    }
}

fn linux_5_10() {
    assert!(file("/proc/sys/kernel/osrelease").starts_with("5.10."));
    for probes in PROBE_SETS {
        let line = refused(common::tcptrace().args(["--probes", probes]));
        assert!(line.contains("5.15") && line.contains("5.10."), "{line}");
    }
}

/// In a PID namespace, a filter on process ids would match others, or none.
fn pid_filters_are_rejected_in_a_pid_namespace() {
    for filter in [&["-p", "1"][..], &["ppid == 1"]] {
        let output = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", env!("CARGO_BIN_EXE_tcptrace"), "--timeout", "1s"])
            .args(filter)
            .output()
            .expect("unshare");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("PID namespace"), "{output:?}");
    }
}

pub fn tests() -> Vec<Trial> {
    let here = module_path!();
    let mut tests = crate::trials![
        a_cgroup_with_little_memory,
        advice_names_only_missing_capabilities,
        without_capabilities_the_error_reports_both,
        one_capability_alone_reports_the_missing_one,
        the_two_capabilities_are_enough,
        cap_sys_admin_is_enough,
        pid_filters_are_rejected_in_a_pid_namespace,
        tracepoints_are_used_and_reported_without_trampolines,
    ];
    tests.extend([
        in_guest(
            |name| name == "lockdown-integrity",
            "a kernel booted with lockdown=integrity",
            here,
            "lockdown_integrity",
            lockdown_integrity,
        ),
        in_guest(
            |name| name == "lockdown-confidentiality",
            "a kernel booted with lockdown=confidentiality",
            here,
            "lockdown_confidentiality",
            lockdown_confidentiality,
        ),
        in_guest(|name| name == "no-ipv6", "a kernel booted with ipv6.disable=1", here, "no_ipv6", no_ipv6),
        in_guest(|name| name == "no-cgroup2", "a host without cgroup2", here, "no_cgroup2", no_cgroup2),
        in_guest(|name| name == "hidepid", "/proc mounted with hidepid=2", here, "hidepid", hidepid),
        in_guest(|name| name == "no-btf", "a kernel without type information", here, "no_btf", no_btf),
        in_guest(|name| name == "5.10", "Linux 5.10", here, "linux_5_10", linux_5_10),
    ]);
    tests
}
