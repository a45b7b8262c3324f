//! What can happen to tcptrace, its output and the clock while it traces.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use libbpf_rs::query::{LinkInfoIter, MapInfoIter, ProgInfoIter};
use libtest_mimic::Trial;
use nix::{
    sys::{
        signal::{Signal, kill},
        time::TimeSpec,
    },
    time::{ClockId, clock_settime},
    unistd::Pid,
};
use serde_json::Value;

use crate::common::{
    Launch, PATIENCE, Trace, all,
    folder::Folder,
    harness::{in_guest, trial},
    net::{Pair, V4},
    of_port, probes, tcptrace, the,
};

/// The numbers of all programs, maps and links of this kernel.
fn objects() -> [BTreeSet<u32>; 3] {
    [
        ProgInfoIter::default().map(|prog| prog.id).collect(),
        MapInfoIter::default().map(|map| map.id).collect(),
        LinkInfoIter::default().map(|link| link.id).collect(),
    ]
}

/// Those that a process has descriptors of.
fn objects_of(pid: u32) -> [BTreeSet<u32>; 3] {
    let folder = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("its descriptors");
    let infos: Vec<String> =
        folder.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect();
    // A link's info names its program, too.
    ["prog_id:", "map_id:", "link_id:"].map(|name| {
        let numbers = infos.iter().flat_map(|info| info.lines()).filter_map(|line| line.strip_prefix(name));
        numbers.map(|number| number.trim().parse().expect("a number")).collect()
    })
}

/// At any moment: while it starts, while it traces, while it prints what exists.
fn killed_it_leaves_nothing() {
    let mut most = 0;
    for wait in [0, 5, 20, 50, 100, 200, 400, 1000] {
        let mut child = tcptrace()
            .args(["-j", "--existing", "--probes", &probes()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start tcptrace");
        thread::sleep(Duration::from_millis(wait)); // no event marks these moments
        kill(Pid::from_raw(child.id() as i32), Signal::SIGSTOP).expect("stop it");
        let had = objects_of(child.id());
        most = most.max(had.iter().map(BTreeSet::len).sum());
        child.kill().expect("kill it");
        child.wait().expect("wait for it");
        // The kernel takes a while to free what descriptors held.
        let left = || had.iter().zip(&objects()).map(|(had, now)| had & now).collect::<Vec<_>>();
        let deadline = Instant::now() + PATIENCE;
        while left().iter().any(|left| !left.is_empty()) {
            assert!(Instant::now() < deadline, "after {wait} ms: {:?} is left", left());
            thread::sleep(Duration::from_millis(10));
        }
    }
    assert!(most > 20, "it was never seen with more than {most} programs, maps and links");
}

/// With a command: it goes on, and what tcptrace had is gone.
fn killed_it_leaves_its_command() {
    let mut child = tcptrace()
        .args(["-q", "--probes", &probes(), "--", "sh", "-c", "echo $$; read end; echo ended"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start tcptrace");
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    stdout.read_line(&mut String::new()).expect("the command runs");
    child.kill().expect("kill tcptrace");
    drop(child.stdin.take());
    child.wait().expect("wait for it");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("the command ends");
    assert_eq!(rest, "ended\n");
}

fn stopped_and_continued_it_goes_on() {
    let mut trace = Trace::start(&[]);
    trace.signal(Signal::SIGSTOP);
    let port = Pair::new(V4).port();
    trace.signal(Signal::SIGCONT);
    trace.wait_port(port, 4);
    let port = Pair::new(V4).port();
    trace.wait_port(port, 4);
    let ended = trace.stop();
    assert!(ended.status.success() && ended.lost().is_empty(), "{}", ended.stderr);
}

/// Lines go where they went: to the file that was opened, whatever its name is by now.
fn an_output_that_is_removed() {
    let folder = Folder::new();
    let mut running = Launch::new().args(["-j", "-o", &folder.name("out")]).start();
    fs::rename(folder.path("out"), folder.path("moved")).expect("rename");
    let port = Pair::new(V4).port();
    let lines = || -> Vec<Value> {
        let text = fs::read_to_string(folder.path("moved")).expect("the output");
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let deadline = Instant::now() + PATIENCE;
    while of_port(&lines(), port).len() < 4 {
        assert!(Instant::now() < deadline, "{:?}", lines());
        thread::sleep(Duration::from_millis(10));
    }
    fs::remove_file(folder.path("moved")).expect("remove");
    drop(Pair::new(V4));
    running.signal(Signal::SIGINT);
    let (status, stderr) = running.wait();
    assert!(status.success(), "{stderr}");
}

/// A file system of 64 kB, of its own: what was written stays whole lines.
fn a_full_disk_ends_it() {
    let folder = Folder::new();
    let script = "mount -t tmpfs -o size=64k none $1 || exit 9; shift; \"$@\" > $DIR/out; echo status $? >&2; cat $DIR/out";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(folder.root());
    command.args([env!("CARGO_BIN_EXE_tcptrace"), "-j", "--probes", &probes()]).env("DIR", folder.root());
    let mut running = Launch::with(command).start();
    for _ in 0..200 {
        drop(Pair::new(V4));
    }
    let mut text = String::new();
    running.stdout.take().expect("stdout is piped").read_to_string(&mut text).expect("UTF-8");
    let (_, stderr) = running.wait();
    assert!(stderr.contains("write the output: ") && stderr.contains("status 1"), "{stderr}");
    assert!(text.len() > 32 << 10 && text.ends_with('\n'), "{} bytes", text.len());
    for line in text.lines() {
        serde_json::from_str::<Value>(line).expect("whole lines");
    }
}

fn two_see_the_same() {
    let mut traces = [Trace::start(&[]), Trace::start(&[])];
    let port = Pair::new(V4).port();
    // Each has its own clock reading: all but the times is the same.
    let told = |event: &Value| {
        let net = &event["network_event"];
        [&net["type"], &net["cookie"], &net["sport"], &event["process"]["exec_id"], &event["process"]["args"]]
            .map(Value::to_string)
    };
    let [one, other] =
        traces.each_mut().map(|trace| trace.wait_port(port, 4).iter().map(told).collect::<Vec<_>>());
    assert_eq!(one, other);
    for trace in traces {
        assert!(trace.stop().status.success());
    }
}

/// Nanoseconds since 1970 of an event's time.
fn time_of(event: &Value) -> Duration {
    let text = event["timestamp"].as_str().expect("a timestamp");
    let time = humantime::parse_rfc3339(text).expect("a time");
    time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970")
}

fn now() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().expect("after 1970")
}

/// A connection of now has the time of now, to the tick of the reader.
fn assert_now(trace: &mut Trace) {
    let before = now();
    let port = Pair::new(V4).port();
    let events = trace.wait_port(port, 4);
    let time = time_of(the(&events, "TcpConnectionEstablish"));
    let slack = Duration::from_secs(1);
    assert!(before < time + slack && time < now() + slack, "{time:?} is not {before:?}");
}

/// A day ahead of the kernel's clock, as in a container that was restored elsewhere.
fn in_a_time_namespace_times_are_true() {
    for offset in ["86400", "-1"] {
        let mut command = Command::new("unshare");
        command.args(["--time", "--boottime", offset, "--fork"]).arg(env!("CARGO_BIN_EXE_tcptrace"));
        let mut trace = Trace::of(Launch::with(command).args(["-j", "--probes", &probes()]));
        assert_now(&mut trace);
        // The arguments of a parent are found by when it was forked.
        let event = all(&trace.events, "TcpConnectionEstablish")[0];
        assert_ne!(event["parent"]["args"], Value::Null, "{event:#}");
        // unshare(1) itself ignores signals while it waits.
        let children = format!("/proc/{0}/task/{0}/children", trace.pid());
        let child = fs::read_to_string(children).expect("its children").trim().parse().expect("one child");
        kill(Pid::from_raw(child), Signal::SIGINT).expect("it runs");
        assert!(trace.ended().status.success());
    }
}

/// Forwards, and back again.
fn when_the_clock_is_set_times_follow() {
    let mut trace = Trace::start(&[]);
    assert_now(&mut trace);
    for step in [1_000_000, -1_000_000] {
        let time = now().as_secs() as i64 + step;
        clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(time, 0)).expect("set the clock");
        assert_now(&mut trace);
    }
    trace.stop();
}

pub fn tests() -> Vec<Trial> {
    let module = module_path!();
    vec![
        trial(module, "killed_it_leaves_nothing", killed_it_leaves_nothing),
        trial(module, "killed_it_leaves_its_command", killed_it_leaves_its_command),
        trial(module, "stopped_and_continued_it_goes_on", stopped_and_continued_it_goes_on),
        trial(module, "an_output_that_is_removed", an_output_that_is_removed),
        trial(module, "a_full_disk_ends_it", a_full_disk_ends_it),
        trial(module, "two_see_the_same", two_see_the_same),
        trial(module, "in_a_time_namespace_times_are_true", in_a_time_namespace_times_are_true),
        in_guest(
            |name| name == "clock",
            "a kernel of its own: the clock is everybody's",
            module,
            "when_the_clock_is_set_times_follow",
            when_the_clock_is_set_times_follow,
        ),
    ]
}
