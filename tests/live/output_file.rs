//! `--output` to files that exist, that others write to, or that are renamed.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::{MetadataExt, chown, symlink},
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use serde_json::Value;

use crate::common::{
    Launch, PATIENCE,
    folder::Folder,
    launch::Running,
    net::{self, Pair, V4},
    probes, tcptrace, wait_until,
};

/// Makes a connection and closes it; returns its port.
fn connection() -> u16 {
    let mut pair = Pair::new(V4);
    let port = pair.port();
    drop(pair.client);
    net::wait_for_end(&mut pair.server);
    port
}

/// Renames the file and sends SIGHUP, as logrotate does.
fn rotate(running: &Running, file: &Path, to: &Path) {
    fs::rename(file, to).expect("rename");
    running.signal(Signal::SIGHUP);
    wait_until("the file is not there again", || file.exists());
}

/// Waits until the file has this many lines with this number.
fn wait_for(file: &Path, port: u16, lines: usize) -> String {
    let started = Instant::now();
    loop {
        let text = fs::read_to_string(file).expect("the output");
        if text.lines().filter(|line| line.contains(&port.to_string())).count() >= lines {
            return text;
        }
        assert!(started.elapsed() < PATIENCE, "no {lines} lines of {port}: {text}");
        std::thread::yield_now();
    }
}

fn stop(mut running: Running) {
    running.signal(Signal::SIGINT);
    let (status, stderr) = running.wait();
    assert!(status.success(), "{stderr}");
}

fn write_to(file: &Path, format: &str) -> Running {
    Launch::new().args(["-f", format, "-o"]).args([file]).start()
}

fn a_second_run_appends_without_a_second_header() {
    let folder = Folder::new();
    let file = folder.path("events.csv");
    let ports = [(), ()].map(|()| {
        let running = write_to(&file, "csv");
        let port = connection();
        wait_for(&file, port, 4);
        stop(running);
        port
    });
    let text = fs::read_to_string(&file).expect("the output");
    assert_eq!(text.matches("timestamp,event,").count(), 1, "{text}");
    for row in csv::Reader::from_reader(text.as_bytes()).records() {
        row.expect("as many fields as columns");
    }
    for port in ports {
        wait_for(&file, port, 4);
    }
}

fn an_incomplete_last_line_is_terminated() {
    let folder = Folder::new();
    let file = folder.path("events.jsonl");
    fs::write(&file, "{\"cut\":").expect("write");
    let running = write_to(&file, "json");
    let text = wait_for(&file, connection(), 4);
    stop(running);
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("{\"cut\":"));
    assert!(lines.all(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
}

fn two_tracers_share_a_file() {
    let folder = Folder::new();
    let file = folder.path("events.jsonl");
    let both = [(), ()].map(|()| write_to(&file, "json"));
    let text = wait_for(&file, connection(), 8);
    both.into_iter().for_each(stop);
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
}

fn a_truncated_file_is_continued_at_its_beginning() {
    let folder = Folder::new();
    let file = folder.path("events.jsonl");
    let running = write_to(&file, "json");
    wait_for(&file, connection(), 4);
    // like logrotate's copytruncate
    fs::OpenOptions::new().write(true).open(&file).and_then(|file| file.set_len(0)).expect("truncate");
    let text = wait_for(&file, connection(), 4);
    stop(running);
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
}

fn a_renamed_file_is_reopened() {
    for format in ["json", "csv", "table", "odr"] {
        let folder = Folder::new();
        let (file, old) = (folder.path("events"), folder.path("events.1"));
        let own = ["-p", &std::process::id().to_string(), "-f", format, "-o"].map(str::to_owned);
        let mut running = Launch::new().args(own).args([&file]).start();
        let first = connection();
        wait_for(&file, first, 4);
        rotate(&running, &file, &old);
        assert_eq!(fs::metadata(&file).expect("the file").mode() & 0o777, 0o600);
        let second = connection();
        let (before, after) = (wait_for(&old, first, 4), wait_for(&file, second, 4));
        for (text, port) in [(&before, second), (&after, first)] {
            assert!(!text.contains(&format!(":{port} ")) && !text.contains(&format!(",{port},")), "{text}");
        }
        let headers = |text: &str| text.lines().filter(|line| line.starts_with(['t', 'T'])).count();
        let expected = usize::from(matches!(format, "csv" | "table"));
        assert_eq!((headers(&before), headers(&after)), (expected, expected), "{format}: {after}");
        // The file was not renamed.
        running.signal(Signal::SIGHUP);
        let third = connection();
        let text = wait_for(&file, third, 4);
        assert!(text.starts_with(&after) && (format == "table" || headers(&text) == expected), "{text}");
        // The old file is not kept open.
        let open = fs::read_dir(format!("/proc/{}/fd", running.pid())).expect("its descriptors");
        let mut open = open.filter_map(|fd| fs::read_link(fd.expect("a descriptor").path()).ok());
        assert!(!open.any(|path| path == old), "{format}");
        running.signal(Signal::SIGINT);
        let (status, stderr) = running.wait();
        assert!(status.success() && !stderr.contains("reopen"), "{stderr}");
    }
}

/// Continuous connections while the file is rotated repeatedly.
fn every_event_is_in_one_file() {
    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 83, 9, 7));
    let folder = Folder::new();
    let file = folder.path("events");
    let running = Launch::new().args(["-j", "--addr", &ADDRESS.to_string(), "-o"]).args([&file]).start();
    let over = AtomicBool::new(false);
    let made = thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let mut made = 0;
            while !over.load(Ordering::Relaxed) {
                let mut pair = Pair::new(ADDRESS);
                drop(pair.client);
                net::wait_for_end(&mut pair.server);
                made += 1;
            }
            made
        });
        for turn in 0..10 {
            rotate(&running, &file, &folder.path(&format!("events.{turn}")));
        }
        over.store(true, Ordering::Relaxed);
        busy.join().expect("connections")
    });
    stop(running);
    let files = fs::read_dir(folder.root()).expect("the files").map(|entry| entry.expect("a file").path());
    let text: String = files.map(|file| fs::read_to_string(file).expect("text")).collect();
    let events = text.lines().map(|line| {
        let event: Value = serde_json::from_str(line).expect("whole lines");
        ["type", "connection"].map(|field| event["network_event"][field].to_string())
    });
    let (all, distinct) = (text.lines().count(), events.collect::<BTreeSet<_>>().len());
    assert_eq!((all, distinct), (4 * made, 4 * made));
}

/// Under sudo, if the user may not create a file there, the old file stays in use, until logrotate has created a new one.
fn the_old_file_stays_in_use_if_reopening_fails() {
    let folder = Folder::new();
    let file = folder.path("events");
    let sudo = |launch: Launch| launch.env("SUDO_UID", "65534").env("SUDO_GID", "65534");
    let mut running = sudo(Launch::new().args(["-j", "-o"]).args([&file])).start();
    fs::rename(&file, folder.path("events.1")).expect("rename");
    let ports = [(), ()].map(|()| {
        running.signal(Signal::SIGHUP);
        let port = connection();
        wait_for(&folder.path("events.1"), port, 4);
        port
    });
    assert!(!file.exists(), "{ports:?}");
    fs::write(folder.path("new"), "").expect("create");
    chown(folder.path("new"), Some(65534), Some(65534)).expect("chown");
    fs::rename(folder.path("new"), &file).expect("rename");
    running.signal(Signal::SIGHUP);
    wait_until("it is not taken", || {
        connection();
        fs::metadata(&file).expect("the file").len() > 0
    });
    running.signal(Signal::SIGINT);
    let (status, stderr) = running.wait();
    let note = format!("tcptrace: reopen {}: Permission denied", file.display());
    assert!(status.success() && stderr.contains(&note), "{stderr}");
    assert!(stderr.contains("; still writing to the old file\n"), "{stderr}");

    let own = folder.path("own");
    fs::create_dir(&own).expect("a folder");
    chown(&own, Some(65534), Some(65534)).expect("chown");
    let running = sudo(Launch::new().args(["-j", "-o"]).args([own.join("events")])).start();
    rotate(&running, &own.join("events"), &own.join("events.1"));
    let data = fs::metadata(own.join("events")).expect("the file");
    assert_eq!((data.uid(), data.mode() & 0o777), (65534, 0o600));
    wait_for(&own.join("events"), connection(), 4);
    stop(running);
}

/// A link in its place is not followed, and a pipe does not block.
fn only_a_regular_file_is_reopened() {
    let folder = Folder::new();
    let (file, other) = (folder.path("events"), folder.path("other"));
    let mut running = write_to(&file, "json");
    fs::rename(&file, folder.path("events.1")).expect("rename");
    fs::write(&other, "").expect("create");
    symlink(&other, &file).expect("a link");
    running.signal(Signal::SIGHUP);
    wait_for(&folder.path("events.1"), connection(), 4);
    fs::remove_file(&file).expect("remove");
    mkfifo(&file, Mode::S_IRWXU).expect("a pipe");
    running.signal(Signal::SIGHUP);
    wait_for(&folder.path("events.1"), connection(), 4);
    assert_eq!(fs::read_to_string(&other).expect("the other file"), "");
    running.signal(Signal::SIGINT);
    let (status, stderr) = running.wait();
    assert!(status.success() && stderr.contains("tcptrace: reopen "), "{stderr}");
}

/// SIGHUP then reopens the file, and is not forwarded.
fn with_a_command_sighup_reopens_the_file() {
    let folder = Folder::new();
    let script = "mv events events.1; kill -HUP $PPID; until [ -e events ]; do :; done; exit 7";
    for sandbox in [&[][..], &["--no-sandbox"]] {
        let mut traced = tcptrace();
        traced.current_dir(folder.root()).args(["--probes", &probes(), "-q", "-o", "events"]).args(sandbox);
        let status = traced.args(["--", "sh", "-c", script]).status().expect("run tcptrace");
        assert_eq!(status.code(), Some(7));
    }
}

/// A line of a recording.
const RECORDED: &str = r#"{"type":"NetworkEvent","timestamp":"2023-11-14T22:13:20.000Z","process":null,"parent":null,"network_event":{"type":"TcpConnectionEstablish","saddr":"192.0.2.1","sport":1,"daddr":"192.0.2.2","dport":2,"cookie":3,"connection":"3-4","netns":5}}"#;

/// The recording is read from a pipe, as with ssh(1).
fn a_replay_continues_in_the_new_file() {
    let folder = Folder::new();
    let file = folder.path("events");
    let mut child = tcptrace()
        .args(["-q", "-r", "-", "-f", "csv", "-o"])
        .arg(&file)
        .stdin(Stdio::piped())
        .spawn()
        .expect("start tcptrace");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let mut one_more = || writeln!(stdin, "{RECORDED}").expect("write");
    one_more();
    wait_until("nothing is written", || {
        fs::read_to_string(&file).is_ok_and(|text| text.contains("192.0.2.2"))
    });
    fs::rename(&file, folder.path("events.1")).expect("rename");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGHUP).expect("tcptrace is running");
    wait_until("the file is not there again", || {
        one_more();
        file.exists()
    });
    drop(stdin);
    assert!(child.wait().expect("wait for tcptrace").success());
    assert!(fs::read_to_string(&file).expect("the file").starts_with("timestamp,event,"));
}

crate::tests![
    a_renamed_file_is_reopened,
    every_event_is_in_one_file,
    the_old_file_stays_in_use_if_reopening_fails,
    only_a_regular_file_is_reopened,
    with_a_command_sighup_reopens_the_file,
    a_replay_continues_in_the_new_file,
    a_second_run_appends_without_a_second_header,
    an_incomplete_last_line_is_terminated,
    two_tracers_share_a_file,
    a_truncated_file_is_continued_at_its_beginning,
];
