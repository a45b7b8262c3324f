//! Malicious processes: names with control characters, and process ids that are reused.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::Value;
use tcptrace::hostile::is_hostile;

use crate::{
    common::{
        Launch, Trace,
        actor::{Actor, install},
        harness::{self, trial},
    },
    containers::{Group, hierarchies},
    support::*,
};

/// An escape sequence, a line break, a bidirectional override, a C1 control character, and invalid UTF-8.
const EVIL: &[u8] = b"evil\x1b[2J\n\r\xe2\x80\xae\xc2\x9b31m\xff\"',;";

fn evil(after: &str) -> PathBuf {
    OsStr::from_bytes(&[EVIL, after.as_bytes()].concat()).into()
}

/// Its executable, its arguments and its cgroup have this name.
fn names_in_every_format() {
    let folder = Folder::new();
    let program = folder.root().join(evil(""));
    install(this_program(), &program);
    let unit = "evil\u{1b}[2J\u{202e}\u{9b}31m.service";
    let group = Group::new(&hierarchies()[0], unit);
    let shown = String::from_utf8_lossy(program.as_os_str().as_bytes()).into_owned();
    for format in ["table", "json", "csv", "odr"] {
        let port = open_door();
        let filter = format!("port_dst == {port}");
        let mut running = Launch::new().args(["-e", "connect", "--format", format, &filter]).start();
        let script = format!("say here\nhear\nconnect {port}");
        let mut actor =
            Actor::spawn(Actor::program(&program, &script).arg(evil("")).arg(OsStr::from_bytes(b"\xfe")));
        actor.hear();
        group.take(actor.pid());
        actor.tell("connect");
        actor.leave();
        let mut stdout = BufReader::new(running.stdout.take().expect("stdout is piped"));
        let mut bytes = Vec::new();
        while !String::from_utf8_lossy(&bytes).contains(&format!("{port}")) {
            assert!(stdout.read_until(b'\n', &mut bytes).expect("read") > 0, "{format}: it ended");
        }
        running.signal(Signal::SIGINT);
        stdout.read_to_end(&mut bytes).expect("read");
        let (status, stderr) = running.wait();
        assert!(status.success(), "{stderr}");
        let text = String::from_utf8(bytes).expect("UTF-8");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), if matches!(format, "table" | "csv") { 2 } else { 1 }, "{text:?}");
        let obeyed = |text: &str| text.chars().any(|c| c != '\n' && c != '\r' && is_hostile(c));
        assert!(!obeyed(&stderr) && stderr.contains("evil\\u{1b}[2J"), "{stderr:?}");
        match format {
            "table" | "csv" => {
                assert!(
                    !obeyed(&text) && text.contains("evil\\u{1b}[2J\\n\\r\\u{202e}\\u{9b}31m\u{fffd}"),
                    "{text:?}"
                );
                assert!(!text.trim_end_matches("\r\n").replace("\r\n", "").contains('\r'), "{text:?}");
            }
            "json" => {
                let event: Value = serde_json::from_str(&text).expect("JSON");
                assert_eq!(event["process"]["binary_path"], *shown);
                assert_eq!(event["process"]["args"], *format!("{} \u{fffd}", String::from_utf8_lossy(EVIL)));
            }
            _ => {
                let envelope: Value = serde_json::from_str(&text).expect("JSON");
                assert_eq!(envelope["data"][0]["service"], *unit);
                assert_eq!(envelope["data"][0]["process_name"], *String::from_utf8_lossy(EVIL));
            }
        }
    }
}

fn a_process_that_renames_itself() {
    let mut trace = Trace::start(&["-e", "fail"]);
    let pid = run(&this_program(), &["constant"], "rename 500");
    for event in events_of(&mut trace, pid, 500) {
        check(&event);
        assert_eq!(event["process"]["args"], "constant");
        assert_eq!(
            event["process"]["filename"],
            *this_program().file_name().expect("a name").to_string_lossy()
        );
    }
    assert_eq!(trace.stop().lost(), [""; 0]);
}

/// Twice as many processes at each step, and each of them connects.
fn a_fork_bomb() {
    let (arguments, steps) = ("a bomb of this test", if in_guest() { 6 } else { 9 });
    let mut trace = Trace::start(&["-e", "fail"]);
    run(&this_program(), &[arguments], &format!("bomb {steps}"));
    let of = |events: &[Value]| -> Vec<Value> {
        events.iter().filter(|event| event["process"]["args"] == arguments).cloned().collect()
    };
    trace.wait("an event of each", |events| of(events).len() >= 1 << steps);
    let ended = trace.stop();
    assert_eq!(ended.lost(), [""; 0]);
    let events = of(&ended.events);
    let pids: HashSet<u64> = events.iter().filter_map(|event| event["process"]["pid"].as_u64()).collect();
    assert_eq!((events.len(), pids.len()), (1 << steps, 1 << steps));
    assert_eq!(events.iter().filter(|event| event["process"]["cloned"] == false).count(), 1);
    events.iter().for_each(check);
}

/// Each for one connection, which fails: there is no route.
fn short_lived_network_namespaces() {
    const COUNT: usize = 300;
    let mut trace = Trace::start(&["-e", "fail"]);
    let pid = run(&this_program(), &[""; 0], &format!("new-networks {COUNT}"));
    let events = events_of(&mut trace, pid, COUNT);
    let own = fs::metadata("/proc/self/ns/net")
        .map(|file| std::os::unix::fs::MetadataExt::ino(&file))
        .expect("ours");
    for event in &events {
        assert_eq!(event["network_event"]["error"], "ENETUNREACH");
        assert_ne!(event["network_event"]["netns"], own);
    }
    assert_eq!(events.len(), COUNT);
    assert_eq!(trace.stop().lost(), [""; 0]);
}

/// There are so few process ids that each is reused several times.
fn process_ids_that_are_reused() {
    const COUNT: usize = 1000;
    let before = fs::read_to_string("/proc/sys/kernel/pid_max").expect("pid_max");
    fs::write("/proc/sys/kernel/pid_max", "600").expect("pid_max");
    let port = open_door();
    let mut trace = watch_connects();
    let mut pids = HashSet::new();
    for number in 0..COUNT {
        let arguments = format!("process {number}");
        let pid = run(&this_program(), &[&arguments], &format!("connect {port}"));
        pids.insert(pid);
    }
    let ours = |events: &[Value]| -> Vec<Value> {
        let args = |event: &Value| {
            event["process"]["args"].as_str().is_some_and(|args| args.starts_with("process "))
        };
        events.iter().filter(|event| args(event)).cloned().collect()
    };
    trace.wait("an event of each", |events| ours(events).len() >= COUNT);
    let events = ours(&trace.events);
    fs::write("/proc/sys/kernel/pid_max", before.trim()).expect("pid_max");
    assert!(pids.len() < 600, "{} process ids for {COUNT} processes", pids.len());
    let ids: HashSet<&str> = events.iter().filter_map(|event| event["process"]["exec_id"].as_str()).collect();
    assert_eq!((events.len(), ids.len()), (COUNT, COUNT));
    for (number, event) in events.iter().enumerate() {
        check(event);
        assert_eq!(event["process"]["args"], *format!("process {number}"));
    }
    trace.stop();
}

pub fn tests() -> Vec<Trial> {
    let module = module_path!();
    let needs = "a separate kernel, because the host needs more process ids";
    vec![
        trial(module, "names_in_every_format", names_in_every_format),
        trial(module, "a_process_that_renames_itself", a_process_that_renames_itself),
        trial(module, "a_fork_bomb", a_fork_bomb),
        trial(module, "short_lived_network_namespaces", short_lived_network_namespaces),
        harness::in_guest(
            |name| name == "pid-reuse",
            needs,
            module,
            "process_ids_that_are_reused",
            process_ids_that_are_reused,
        ),
    ]
}
