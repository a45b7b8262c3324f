//! What tcptrace may do while tracing, and what its command inherits.

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::signal::Signal,
    unistd::{getgid, pipe, write},
};

use tcptrace::host::{sandbox, sudo_user::SudoUser};

use crate::common::{
    Launch, PATIENCE, Trace,
    actor::{self, Actor},
    folder::Folder,
    net::{Pair, V4},
    probes, tcptrace, the,
};

const CAP_BPF: u64 = 1 << 39;

/// A line of /proc/PID/status.
fn line<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect(name).trim()
}

/// The capability kept on old kernels: reading maps needs CAP_BPF if unprivileged BPF is disabled.
fn kept() -> u64 {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("osrelease");
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let disabled = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").unwrap_or_default();
    if version < (5, 19) && disabled.trim() != "0" { CAP_BPF } else { 0 }
}

fn assert_confined(status: &str) {
    for set in ["CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(line(status, set), "0000000000000000", "{status}");
    }
    for set in ["CapPrm", "CapEff"] {
        assert_eq!(u64::from_str_radix(line(status, set), 16), Ok(kept()), "{set} of {status}");
    }
    assert_eq!((line(status, "NoNewPrivs"), line(status, "Seccomp")), ("1", "2"), "{status}");
}

/// /proc/PID/status of each thread.
fn threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    tasks
        .map(|task| fs::read_to_string(task.expect("a thread").path().join("status")).expect("status"))
        .collect()
}

/// The part of another process: drops privileges as on a kernel where it could not read maps without them.
pub fn drop_privileges_as_on_an_old_kernel() {
    let user = SudoUser { uid: 65534, gid: 54321, groups: vec![54321], environment: Vec::new() };
    sandbox::drop_privileges(Some(&user), || {
        // Evaluated without effective capabilities, so the answer is for an unprivileged process.
        assert_eq!(line(&status("self"), "CapEff"), "0000000000000000");
        false
    })
    .expect("drop");
    actor::say(status("self").replace('\n', ";"));
}

/// Before Linux 5.19, reading maps needs CAP_BPF, so only that is kept.
fn one_capability_is_kept_for_old_kernels() {
    let mut actor = Actor::start("drop privileges of an old kernel");
    let status = actor.hear().replace(';', "\n");
    actor.leave();
    let ids = |number: &str| [number; 4].join("\t");
    assert_eq!((line(&status, "Uid"), line(&status, "Gid")), (&*ids("65534"), &*ids("54321")));
    for (set, expected) in
        [("CapInh", 0), ("CapPrm", CAP_BPF), ("CapEff", CAP_BPF), ("CapBnd", 0), ("CapAmb", 0)]
    {
        assert_eq!(u64::from_str_radix(line(&status, set), 16), Ok(expected), "{set} of {status}");
    }
}

fn it_is_confined_in_every_mode() {
    let folder = Folder::new();
    let file = folder.name("out");
    for mode in [
        &[][..],
        &["-j"],
        &["-f", "csv"],
        &["-f", "odr"],
        &["--summary-only"],
        &["-j", "--existing"],
        &["-j", "--no-dns"],
        &["-e", "all"],
        &["-o", &file],
        &["-v"],
    ] {
        let running = Launch::new().args(mode).start();
        let threads = threads(running.pid());
        assert_eq!(threads.len(), 1, "{mode:?}");
        threads.iter().for_each(|status| assert_confined(status));
    }
}

/// A full pipe blocks a snapshot while it writes.
fn a_snapshot_is_confined() {
    let (mut reader, writer) =
        pipe().map(|(reader, writer)| (fs::File::from(reader), writer)).expect("a pipe");
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("fcntl");
    while write(&writer, &[b'\n'; 4096]).is_ok() {}
    let mut child = tcptrace().args(["--snapshot", "-j"]).stdout(writer).spawn().expect("start tcptrace");
    wait_until_confined(&mut child);
    threads(child.id()).iter().for_each(|status| assert_confined(status));
    reader.read_to_end(&mut Vec::new()).expect("read");
    assert!(child.wait().expect("wait for tcptrace").success());
}

fn wait_until_confined(child: &mut Child) {
    let deadline = Instant::now() + PATIENCE;
    let confined = |pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status"));
        status.is_ok_and(|status| status.contains("Seccomp:\t2"))
    };
    while !confined(child.id()) {
        assert!(Instant::now() < deadline && child.try_wait().expect("wait").is_none(), "never confined");
        std::thread::yield_now();
    }
}

fn no_sandbox_keeps_all_privileges() {
    let running = Launch::new().args(["-j", "--no-sandbox"]).start();
    let (own, its) = (status("self"), status(&running.pid().to_string()));
    for name in ["CapEff", "CapBnd", "NoNewPrivs", "Seccomp"] {
        assert_eq!(line(&its, name), line(&own, name), "{name}");
    }
}

fn status(pid: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).expect("status")
}

/// Waits until the parent tcptrace is confined, then prints its status and this process's.
const LOOK: &str = "until grep -q 'Seccomp:.*2' /proc/$PPID/status; do :; done; cat /proc/$PPID/task/*/status; \
     echo ----; cat /proc/self/status; nice; ls /proc/self/fd";

/// The status of a shell; not started with posix_spawn(3), which makes it ignore signals 32 and 33.
fn forked(command: &mut Command) -> String {
    let output = command.gid(getgid().as_raw()).stdin(Stdio::null()).output().expect("run it");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn the_command_inherits_nothing() {
    let script = "cat /proc/self/status; nice; ls /proc/self/fd";
    let expected = forked(Command::new("sh").args(["-c", script]));
    let mut traced = tcptrace();
    let said = forked(traced.args(["-q", "--probes", &probes(), "--", "sh", "-c", LOOK]));
    let (ours, its) = said.split_once("----\n").expect("both");
    let threads: Vec<&str> = ours.split("Name:").skip(1).collect();
    assert_eq!(threads.len(), 2);
    threads.iter().for_each(|status| assert_confined(status));
    for name in [
        "Uid",
        "Gid",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
    ] {
        assert_eq!(line(its, name), line(&expected, name), "{name}");
    }
    let rest = |text: &str| {
        text.lines().skip_while(|line| line.contains(':')).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(rest(its), rest(&expected), "the nice value and the descriptors");
}

/// nohup(1), and shells starting it in the background.
fn ignored_signals_stay_ignored() {
    let look = "grep SigIgn /proc/self/status";
    let script = format!("trap '' HUP INT QUIT TERM; $TCPTRACE -q --probes {} -- {look}", probes());
    let said =
        forked(Command::new("sh").args(["-c", &script]).env("TCPTRACE", env!("CARGO_BIN_EXE_tcptrace")));
    assert_eq!(u64::from_str_radix(line(&said, "SigIgn"), 16).expect("a mask") & 0x7fff, 0x4007, "{said}");

    let mut launch = Command::new("sh");
    launch.args([
        "-c",
        "trap '' HUP; exec \"$@\"",
        "sh",
        env!("CARGO_BIN_EXE_tcptrace"),
        "--probes",
        &probes(),
    ]);
    let mut trace = Trace::of(Launch::with(launch).args(["-j"]));
    trace.signal(Signal::SIGHUP);
    let port = Pair::new(V4).port();
    trace.wait_port(port, 4);
    trace.stop();
}

fn under_sudo_it_continues_as_the_user() {
    let sudo = [("SUDO_UID", "65534"), ("SUDO_GID", "54321"), ("SUDO_USER", "nobody")];
    let mut traced = tcptrace();
    traced.args(["-q", "--probes", &probes(), "--", "sh", "-c", LOOK]).envs(sudo);
    let said = forked(&mut traced);
    let (ours, _) = said.split_once("----\n").expect("both");
    let ids = |number: &str| [number; 4].join("\t");
    for status in ours.split("Name:").skip(1) {
        assert_confined(status);
        assert_eq!((line(status, "Uid"), line(status, "Gid")), (&*ids("65534"), &*ids("54321")));
        assert_eq!(line(status, "Groups"), "54321");
    }
    // It also works fully: arguments of a parent are found without privileges.
    let mut launch = Launch::new().args(["-j"]);
    for (name, value) in sudo {
        launch = launch.env(name, value);
    }
    let mut trace = Trace::of(launch);
    let port = Pair::new(V4).port();
    let events = trace.wait_port(port, 4);
    let parent = &the(&events, "TcpConnectionEstablish")["parent"];
    let ppid = parent["pid"].as_u64().expect("a pid");
    let cmdline = fs::read(format!("/proc/{ppid}/cmdline")).expect("cmdline");
    let cmdline = String::from_utf8_lossy(&cmdline);
    let args: Vec<&str> = cmdline.trim_end_matches('\0').split('\0').skip(1).collect();
    assert_eq!(parent["args"], args.join(" "));
    trace.stop();
}

/// The names in backquotes under a heading in SECURITY.md.
fn listed(heading: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/SECURITY.md")).expect("SECURITY.md");
    let (_, section) = text.split_once(&format!("### {heading}\n")).expect(heading);
    let section = section.split("\n#").next().unwrap_or_default();
    section.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The system calls of tcptrace's own threads in the output of strace, without those of its command.
fn calls(trace: &Path) -> Vec<String> {
    let text = fs::read_to_string(trace).expect("what strace saw");
    let mut own: BTreeSet<&str> = text.split(' ').next().into_iter().collect();
    for line in text.lines().filter(|line| line.contains("CLONE_THREAD")) {
        own.extend(line.rsplit("= ").next().map(str::trim));
    }
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(thread, _)| own.contains(thread))
        .map(|(_, call)| call.trim().to_owned())
        .filter(|call| call.contains('(') && !call.starts_with("<..."))
        .collect()
}

fn name_of(call: &str) -> &str {
    call.split('(').next().unwrap_or_default()
}

/// System calls that may need a capability, according to capabilities(7).
const PRIVILEGED: &[&str] = &[
    "bpf",
    "capset",
    "chown",
    "fchown",
    "fchownat",
    "ioctl",
    "kill",
    "lchown",
    "mount",
    "perf_event_open",
    "pidfd_getfd",
    "prctl",
    "prlimit64",
    "ptrace",
    "process_vm_readv",
    "sched_setaffinity",
    "sched_setscheduler",
    "setgid",
    "setgroups",
    "setns",
    "setpriority",
    "setresgid",
    "setresuid",
    "setrlimit",
    "setuid",
    "socket",
    "umount2",
    "unshare",
];

/// The entry in the table for an opened file.
fn pattern(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    for (at, part) in path.split('/').enumerate() {
        if is_number(part) && at > 0 {
            parts[at] = match parts[at - 1] {
                "task" => "TID",
                "fd" => "FD",
                _ => "PID",
            };
        }
    }
    let path = parts.join("/");
    let tree = ["/usr/share/zoneinfo", "/sys/fs/cgroup", "/sys/devices/system/cpu"];
    tree.into_iter().find(|tree| path.starts_with(tree)).map_or(path, str::to_owned)
}

/// SECURITY.md lists the calls and files before and after privileges are dropped.
fn the_table_agrees_with_strace() {
    let folder = Folder::new();
    let (at_start, while_tracing) = (listed("At the start"), listed("While it traces"));
    let log = folder.name("strace");
    for mode in [&["-j", "-e", "all", "--existing"][..], &["-f", "table"], &["-f", "odr"]] {
        let mut strace = Command::new("strace");
        strace.args([
            "-f",
            "-qq",
            "-s",
            "300",
            "-o",
            &log,
            env!("CARGO_BIN_EXE_tcptrace"),
            "--probes",
            &probes(),
        ]);
        let mut running = Launch::with(strace).args(mode).start();
        let port = Pair::new(V4).port();
        let mut seen = Vec::new();
        let stdout = running.stdout.as_mut().expect("stdout is piped");
        let mut part = [0; 4096];
        while !String::from_utf8_lossy(&seen).contains(&port.to_string()) {
            let count = stdout.read(&mut part).expect("read");
            assert!(count > 0, "it ended");
            seen.extend_from_slice(&part[..count]);
        }
        drop(running);
        assert_listed(&calls(log.as_ref()), &at_start, &while_tracing);
    }
    let mut strace = Command::new("strace");
    strace.args([
        "-f",
        "-qq",
        "-s",
        "300",
        "-o",
        &log,
        env!("CARGO_BIN_EXE_tcptrace"),
        "-q",
        "-o",
        &folder.name("out"),
    ]);
    let reopened = "> $0; until kill -HUP $PPID; do :; done; until [ -s $0 ]; do :; done";
    let output = strace
        .args(["-f", "csv", "--probes", &probes(), "--", "sh", "-c", reopened, &folder.name("out")])
        .envs([("SUDO_UID", "65534"), ("SUDO_GID", "65534")])
        .output();
    assert!(output.expect("strace; `make test-deps` installs it").status.success());
    assert_listed(&calls(log.as_ref()), &at_start, &while_tracing);
}

fn assert_listed(calls: &[String], at_start: &BTreeSet<String>, while_tracing: &BTreeSet<String>) {
    let filter = calls.iter().position(|call| call.starts_with("seccomp(SECCOMP_SET")).expect("a filter");
    let (before, after) = calls.split_at(filter + 1);
    for call in before {
        let name = name_of(call);
        if PRIVILEGED.contains(&name) {
            assert!(at_start.contains(name), "{name} is not in SECURITY.md: {call}");
        }
        if matches!(name, "open" | "openat") && !call.contains("ENOENT") {
            let path = call.split('"').nth(1).unwrap_or_default();
            let known = at_start.contains(&pattern(path))
                || path.starts_with(std::env::temp_dir().to_str().expect("UTF-8"));
            assert!(known || !path.starts_with('/'), "{path} is not in SECURITY.md: {call}");
        }
    }
    assert!(after.len() > 10, "{after:?}");
    for call in after {
        assert!(!call.contains("EPERM"), "refused: {call}");
        assert!(while_tracing.contains(name_of(call)), "{} is not in SECURITY.md: {call}", name_of(call));
    }
}

crate::tests![
    it_is_confined_in_every_mode,
    one_capability_is_kept_for_old_kernels,
    a_snapshot_is_confined,
    no_sandbox_keeps_all_privileges,
    the_command_inherits_nothing,
    ignored_signals_stay_ignored,
    under_sudo_it_continues_as_the_user,
    the_table_agrees_with_strace,
];
