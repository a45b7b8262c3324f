//! What can happen to tcptrace, its output and the clock during tracing.

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
    of_port, probes,
    procfs::objects_of,
    tcptrace, the,
};

/// The ids of all programs, maps and links in this kernel.
fn objects() -> [BTreeSet<u32>; 3] {
    [
        ProgInfoIter::default().map(|prog| prog.id).collect(),
        MapInfoIter::default().map(|map| map.id).collect(),
        LinkInfoIter::default().map(|link| link.id).collect(),
    ]
}

/// Kills it at any moment: while it starts, traces, or prints existing sockets.
fn sigkill_leaves_nothing_in_the_kernel() {
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
        // The kernel takes a while to free objects after the last descriptor is closed.
        let left = || had.iter().zip(&objects()).map(|(had, now)| had & now).collect::<Vec<_>>();
        let deadline = Instant::now() + PATIENCE;
        while left().iter().any(|left| !left.is_empty()) {
            assert!(Instant::now() < deadline, "after {wait} ms: {:?} is left", left());
            thread::sleep(Duration::from_millis(10));
        }
    }
    assert!(most > 20, "it was never seen with more than {most} programs, maps and links");
}

/// With a command: the command continues, and tcptrace's objects are freed.
fn sigkill_leaves_the_command_running() {
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

fn tracing_continues_after_sigstop() {
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

/// Lines go to the file that was opened, even if it is renamed or removed.
fn a_removed_output_file_is_still_written() {
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

/// On a full file system of 64 kB the output consists of whole lines.
fn a_full_disk_ends_the_run() {
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

fn two_tracers_report_the_same() {
    let mut traces = [Trace::start(&[]), Trace::start(&[])];
    let port = Pair::new(V4).port();
    // Clocks are read separately, so everything except the times must be equal.
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

/// The time of an event since 1970.
fn time_of(event: &Value) -> Duration {
    let text = event["timestamp"].as_str().expect("a timestamp");
    let time = humantime::parse_rfc3339(text).expect("a time");
    time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970")
}

fn now() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().expect("after 1970")
}

/// Checks that the time of a new connection is the current time, within the reader's interval.
fn assert_now(trace: &mut Trace) {
    let before = now();
    let port = Pair::new(V4).port();
    let events = trace.wait_port(port, 4);
    let time = time_of(the(&events, "TcpConnectionEstablish"));
    let slack = Duration::from_secs(1);
    assert!(before < time + slack && time < now() + slack, "{time:?} is not {before:?}");
}

/// A day ahead of the kernel's clock, as in a container restored on another host.
fn times_are_correct_in_a_time_namespace() {
    for offset in ["86400", "-1"] {
        let mut command = Command::new("unshare");
        command.args(["--time", "--boottime", offset, "--fork"]).arg(env!("CARGO_BIN_EXE_tcptrace"));
        let mut trace = Trace::of(Launch::with(command).args(["-j", "--probes", &probes()]));
        assert_now(&mut trace);
        // The arguments of a parent are looked up with the time of its fork.
        let event = all(&trace.events, "TcpConnectionEstablish")[0];
        assert_ne!(event["parent"]["args"], Value::Null, "{event:#}");
        // unshare(1) ignores signals while it waits.
        let children = format!("/proc/{0}/task/{0}/children", trace.pid());
        let child = fs::read_to_string(children).expect("its children").trim().parse().expect("one child");
        kill(Pid::from_raw(child), Signal::SIGINT).expect("it runs");
        assert!(trace.ended().status.success());
    }
}

/// Forwards, then back.
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
        trial(module, "sigkill_leaves_nothing_in_the_kernel", sigkill_leaves_nothing_in_the_kernel),
        trial(module, "sigkill_leaves_the_command_running", sigkill_leaves_the_command_running),
        trial(module, "tracing_continues_after_sigstop", tracing_continues_after_sigstop),
        trial(module, "a_removed_output_file_is_still_written", a_removed_output_file_is_still_written),
        trial(module, "a_full_disk_ends_the_run", a_full_disk_ends_the_run),
        trial(module, "two_tracers_report_the_same", two_tracers_report_the_same),
        trial(module, "times_are_correct_in_a_time_namespace", times_are_correct_in_a_time_namespace),
        in_guest(
            |name| name == "clock",
            "a separate kernel, because setting the clock affects the whole machine",
            module,
            "when_the_clock_is_set_times_follow",
            when_the_clock_is_set_times_follow,
        ),
    ]
}
