//! The effects of fork, exec and exit on the reported process.

use std::{
    collections::HashMap,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use serde_json::{Value, json};

use crate::{
    common::{
        actor::{Actor, PART},
        of_port,
    },
    support::*,
};

/// The number of processes; fewer in an emulated virtual machine.
fn crowd() -> u32 {
    if in_guest() { 100 } else { 2000 }
}

/// How many run in parallel. Since 7.0, a program that is preempted makes the kernel skip those of others: these are
/// counted as lost, and frequent in a slow virtual machine.
fn side_by_side() -> usize {
    if in_guest() { 1 } else { 8 }
}

fn many_short_lived_processes() {
    let folder = Folder::new();
    let program = install_program(&folder, "moment", (0, 0), 0o755);
    let port = open_door();
    let mut trace = watch_connects();
    let script = format!("connect {port}");
    let mut truth = HashMap::new();
    let mut running: Vec<Child> = Vec::new();
    for number in 0..crowd() {
        let (uid, gid) = (2000 + number % 7, 3000 + number % 5);
        let arguments = [format!("number {number}"), "x".repeat(number as usize % 300)];
        let mut command = Command::new(&program);
        let child = command.args(&arguments).env(PART, &script).uid(uid).gid(gid).spawn().expect("spawn");
        truth.insert(arguments.join(" "), (child.id(), uid, gid));
        running.push(child);
        if running.len() == side_by_side() {
            running.remove(0).wait().expect("wait");
        }
    }
    for child in &mut running {
        child.wait().expect("wait");
    }

    events_at(&mut trace, port, truth.len());
    let ended = trace.stop();
    let events = of_port(&ended.events, port);
    assert_eq!(events.len(), truth.len());
    let own_arguments = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    for event in &events {
        check(event);
        let process = &event["process"];
        let arguments = process["args"].as_str().expect("args");
        let (pid, uid, gid) =
            truth.remove(arguments).unwrap_or_else(|| panic!("unexpected process: {event:#}"));
        let reported = ["pid", "tid", "uid", "euid", "gid", "egid", "ppid"].map(|name| process[name].clone());
        let own = std::process::id();
        assert_eq!(reported, [pid, pid, uid, uid, gid, gid, own].map(Value::from), "{event:#}");
        assert_eq!(process["binary_path"], program.to_str().expect("UTF-8"));
        assert_eq!(process["filename"], "moment");
        assert_eq!(process["cloned"], false);
        assert_eq!(process["cap_effective"], "");
        assert_eq!(event["parent"]["binary_path"], this_program().to_str().expect("UTF-8"));
        assert_eq!(event["parent"]["args"], own_arguments);
    }
    assert!(!ended.stderr.contains("process record"), "{}", ended.stderr);
}

fn parents_that_exit_immediately() {
    let shell = shell();
    let port = open_door();
    let mut trace = watch_connects();
    let count = crowd() / 10;
    for number in 0..count {
        // the actor's name is removed from the shell's arguments below
        let script = "\"$0\" child $1 & wait";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(this_program()).arg(number.to_string());
        command.env(PART, format!("connect {port}")).status().expect("run a shell");
    }
    let events = events_at(&mut trace, port, count as usize);
    for (number, event) in events.iter().enumerate() {
        check(event);
        assert_eq!(event["process"]["args"], format!("child {number}"));
        let program = this_program();
        let expected = format!("-c \"$0\" child $1 & wait {} {number}", program.display());
        assert_eq!(event["parent"]["args"], expected);
        assert_eq!(event["parent"]["binary_path"], shell.to_str().expect("UTF-8"));
        assert_eq!(event["parent"]["ppid"], std::process::id());
    }
}

fn shell() -> PathBuf {
    let path = std::env::var_os("PATH").expect("PATH");
    let found = std::env::split_paths(&path).map(|folder| folder.join("sh")).find(|path| path.exists());
    found.and_then(|path| path.canonicalize().ok()).expect("a shell")
}

fn orphans_are_reported_with_their_new_parent() {
    let mut trace = watch_connects();
    let script = format!("fork-away\nhear\nconnect {}\nhear", open_door());
    let mut actor = Actor::spawn(&mut Actor::program(this_program(), &script));
    let orphan: u32 = actor.hear().parse().expect("a process id");
    actor.tell("connect");
    let event = event_of(&mut trace, orphan);
    let parent = Proc::of(orphan).number("PPid:");
    assert_ne!(u64::from(actor.pid()), parent);
    assert_eq!(event["process"]["ppid"], parent);
    assert_eq!(event["process"]["cloned"], true);
    assert_eq!(event["parent"]["args"], Proc::of(parent as u32).arguments());
    actor.tell("end");
    actor.leave();
}

/// The effects of fork, vfork and exec on `cloned`, the ids and the times.
fn fork_exec_and_threads() {
    let program = this_program();
    let path = program.to_str().expect("UTF-8");
    let port = open_door();
    let mut trace = watch_connects();

    let pid = run(
        &program,
        &["a"],
        &format!("connect {port}\nexec {path} b\nconnect {port}\nthread\nconnect {port}"),
    );
    let events = events_of(&mut trace, pid, 3);
    events.iter().for_each(check);
    let [first, second, threaded] = &events[..] else { panic!("three events: {events:#?}") };
    assert_eq!((&first["process"]["args"], &second["process"]["args"]), (&json!("a"), &json!("b")));
    assert_ne!(first["process"]["exec_id"], second["process"]["exec_id"]);
    assert!(start_of(first) < start_of(second));
    assert_eq!(second["process"]["tid"], pid);
    assert_ne!(threaded["process"]["tid"], pid);
    assert_eq!(threaded["process"]["exec_id"], second["process"]["exec_id"]);

    // a thread that calls exec replaces the leader
    let pid = run(
        &program,
        &["a"],
        &format!("connect {port}\nthread\nconnect {port}\nexec {path} b\nconnect {port}"),
    );
    let events = events_of(&mut trace, pid, 3);
    let [first, threaded, second] = &events[..] else { panic!("three events: {events:#?}") };
    assert_eq!(first["process"]["exec_id"], threaded["process"]["exec_id"]);
    assert_eq!(second["process"]["args"], "b");
    assert_eq!(second["process"]["tid"], pid);
    assert!(start_of(first) < start_of(second));

    let mut actor = Actor::spawn(
        Actor::program(&program, &format!("connect {port}\nspawn {path} vforked\nconnect {port}")).arg("a"),
    );
    let pid: u32 = actor.hear().parse().expect("a process id");
    let event = event_of(&mut trace, pid);
    assert_eq!(event["process"]["args"], "vforked");
    assert_eq!(event["process"]["cloned"], false);
    assert_eq!(event["parent"]["pid"], actor.pid());
    assert_eq!(event["parent"]["args"], "a");
    let parents = events_of(&mut trace, actor.pid(), 1).remove(0);
    assert_eq!(parents["process"]["exec_id"], event["parent"]["exec_id"]);
    actor.leave();

    let mut actor =
        Actor::spawn(Actor::program(&program, &format!("fork\nconnect {port}\nsay done")).arg("a"));
    actor.hear();
    trace.wait("the event of a fork", |events| {
        events.iter().any(|event| event["parent"]["pid"] == actor.pid())
    });
    let event = trace.events.iter().find(|event| event["parent"]["pid"] == actor.pid()).expect("found");
    check(event);
    assert_eq!(event["process"]["cloned"], true);
    assert_eq!(event["parent"]["cloned"], false);
    for name in ["args", "binary_path", "filename"] {
        assert_eq!(event["process"][name], event["parent"][name]);
    }
    assert_ne!(event["process"]["exec_id"], event["parent"]["exec_id"]);
    assert!(
        start_of(event)
            > event["parent"]["start_time"].as_str().map(|_| start_in(&event["parent"])).expect("a start")
    );
    actor.leave();
}

fn start_of(event: &Value) -> u64 {
    start_in(&event["process"])
}

/// The start time in the exec id, which is `PID:START_NS` in base64.
fn start_in(process: &Value) -> u64 {
    let id = STANDARD_NO_PAD.decode(process["exec_id"].as_str().expect("exec_id")).expect("base64");
    let id = String::from_utf8(id).expect("UTF-8");
    let (pid, start) = id.split_once(':').expect("PID:START");
    assert_eq!(pid, process["pid"].to_string());
    start.parse().expect("nanoseconds")
}

/// Compares each field of a process that started before tcptrace with /proc.
fn process_fields_match_procfs() {
    let port = open_door();
    let script = format!("say here\nhear\nconnect {port}\nhear");
    let mut command = Actor::program(this_program(), &script);
    let mut actor = Actor::spawn(command.args(["--some", "arg with blanks", "", "é"]).uid(1234).gid(4321));
    actor.hear();
    let mut trace = watch_connects();
    actor.tell("connect");
    let event = event_of(&mut trace, actor.pid());
    for process in [&event["process"], &event["parent"]] {
        let pid = process["pid"].as_u64().expect("a pid") as u32;
        let proc = Proc::of(pid);
        for (name, line, column) in [
            ("uid", "Uid:", 0),
            ("euid", "Uid:", 1),
            ("gid", "Gid:", 0),
            ("egid", "Gid:", 1),
            ("ppid", "PPid:", 0),
            ("pid", "Tgid:", 0),
        ] {
            assert_eq!(process[name], proc.column(line, column).parse::<u64>().expect("a number"), "{name}");
        }
        for (name, line) in
            [("cap_inheritable", "CapInh:"), ("cap_permitted", "CapPrm:"), ("cap_effective", "CapEff:")]
        {
            let every = u64::from_str_radix(&proc.column("CapBnd:", 0), 16).expect("hexadecimal");
            let set = u64::from_str_radix(&proc.column(line, 0), 16).expect("hexadecimal");
            let reported = process[name].as_str().expect("names");
            let count = if reported == "ANY_CAPS" {
                every.count_ones()
            } else {
                reported.matches("CAP_").count() as u32
            };
            assert_eq!(count, set.count_ones(), "{name}: {reported}");
        }
        assert_eq!(process["args"], proc.arguments());
        let exe = fs::read_link(format!("/proc/{pid}/exe")).expect("exe");
        assert_eq!(process["binary_path"], exe.to_str().expect("UTF-8"));
        assert_eq!(process["filename"], exe.file_name().and_then(|name| name.to_str()).expect("UTF-8"));
        let login: u64 = fs::read_to_string(format!("/proc/{pid}/loginuid"))
            .map_or(4294967295, |text| text.trim().parse().expect("a number"));
        assert_eq!(process["auid"], login);
        assert_eq!(process["cloned"], false);
        assert_eq!(process["secureexec"], "");
        // Its exec was not seen, so the start is the time of the fork, which /proc reports in 1/100 s.
        assert_eq!(start_in(process) / 10_000_000, proc.start);
    }
    actor.tell("end");
    actor.leave();
}

/// The process according to /proc.
struct Proc {
    status: String,
    cmdline: Vec<u8>,
    start: u64,
}

impl Proc {
    fn of(pid: u32) -> Proc {
        let path = Path::new("/proc").join(pid.to_string());
        let stat = fs::read_to_string(path.join("stat")).expect("stat");
        let (_, fields) = stat.rsplit_once(") ").expect("a name");
        Proc {
            status: fs::read_to_string(path.join("status")).expect("status"),
            cmdline: fs::read(path.join("cmdline")).expect("cmdline"),
            start: fields.split(' ').nth(19).and_then(|ticks| ticks.parse().ok()).expect("ticks"),
        }
    }

    fn column(&self, line: &str, column: usize) -> String {
        let found = self.status.lines().find_map(|text| text.strip_prefix(line)).expect(line);
        found.split_whitespace().nth(column).expect("a column").to_owned()
    }

    fn number(&self, line: &str) -> u64 {
        self.column(line, 0).parse().expect("a number")
    }

    fn arguments(&self) -> String {
        let text = String::from_utf8_lossy(&self.cmdline).into_owned();
        let text = text.strip_suffix('\0').unwrap_or(&text);
        text.split('\0').skip(1).collect::<Vec<_>>().join(" ")
    }
}

crate::tests![
    many_short_lived_processes,
    parents_that_exit_immediately,
    orphans_are_reported_with_their_new_parent,
    fork_exec_and_threads,
    process_fields_match_procfs,
];
