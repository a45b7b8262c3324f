//! The examples of the manual page and of the README, run. Needs root.

mod common;

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use common::{
    Trace,
    net::{self, Pair, V4},
};

/// What stands between .EX and .EE after a prompt.
fn examples() -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/man/tcptrace.8");
    let page = fs::read_to_string(page).expect("the manual page");
    let section = page.split(".SH EXAMPLES").nth(1).and_then(|rest| rest.split(".SH ").next());
    let lines = section.expect("a section EXAMPLES").lines();
    lines
        .filter_map(|line| line.strip_prefix("# "))
        .map(|line| line.replace("\\e", "\\").replace("\\-", "-"))
        .collect()
}

/// Shortened, for a test has no hour.
fn soon(example: &str) -> String {
    let times = ["--timeout 1m", "--timeout 1h"];
    if let Some(time) = times.iter().find(|time| example.contains(*time)) {
        return example.replace(time, "--timeout 3s");
    }
    let ends_by_itself =
        ["--completions", "--schema", "--snapshot", " -- "].iter().any(|word| example.contains(word));
    if ends_by_itself { example.to_owned() } else { example.replacen("tcptrace", "tcptrace --timeout 3s", 1) }
}

/// A folder for what the examples write, and for programs this machine may not have.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("examples-{}", std::process::id()));
        fs::create_dir_all(path.join("bin")).expect("make a folder");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_tcptrace"), path.join("bin/tcptrace")).expect("link");
        std::os::unix::fs::symlink("/bin/busybox", path.join("bin/wget")).expect("link");
        // The journal's is used only where there is a journal.
        if !Path::new("/run/systemd/journal/stdout").exists() {
            let script = "#!/bin/sh\nexec cat\n";
            fs::write(path.join("bin/systemd-cat"), script).expect("write");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(path.join("bin/systemd-cat"), mode).expect("chmod");
        }
        Folder(path)
    }

    fn run(&self, example: &str) -> Output {
        let path = std::env::var("PATH").expect("PATH");
        Command::new("sh")
            .args(["-c", &soon(example).replace("/usr/share/bash-completion/completions/", "completions.")])
            .current_dir(&self.0)
            .env("PATH", format!("{}:{path}", self.0.join("bin").display()))
            .output()
            .expect("run a shell")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_example_works() {
    let examples = examples();
    assert!(examples.len() >= 12, "{examples:#?}");
    let folder = &Folder::new();
    let (end, over) = channel::<()>();
    thread::scope(|scope| {
        // Something to see: connections, and one that fails.
        scope.spawn(move || {
            while over.recv_timeout(Duration::from_millis(10)) == Err(RecvTimeoutError::Timeout) {
                let port = Pair::new(V4).port();
                let _ = TcpStream::connect((V4, port));
            }
        });
        let check = |example: &str| {
            let output = folder.run(example);
            let stderr = String::from_utf8_lossy(&output.stderr);
            // wget finds nobody listening: its status is the example's then
            let allowed = if example.contains(" -- ") { 0..2 } else { 0..1 };
            assert!(
                output.status.code().is_some_and(|code| allowed.contains(&code)),
                "{example}: {output:?}"
            );
            assert!(!stderr.contains("error"), "{example}: {stderr}");
            let selects_nothing =
                ["latency_us >", "not) |", "> ", " -o ", " -- "].iter().any(|word| example.contains(word));
            assert!(selects_nothing || !output.stdout.is_empty(), "{example} prints nothing: {stderr}");
        };
        // At once: most of the time goes into waiting.
        let running: Vec<_> = examples.iter().map(|example| scope.spawn(move || check(example))).collect();
        let failed = running.into_iter().filter_map(|run| run.join().err()).count();
        drop(end);
        assert_eq!(failed, 0);
    });
    let csv = fs::read_to_string(folder.0.join("connections.csv")).expect("the spreadsheet");
    assert!(csv.lines().count() > 1, "{csv}");
}

/// The jq programs of the README, each on a line after a prompt.
fn readme_programs() -> Vec<String> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("the README");
    readme.lines().filter_map(|line| line.strip_prefix("$ jq ").map(|rest| format!("jq {rest}"))).collect()
}

#[test]
fn every_jq_program_of_the_readme_finds_something() {
    let mut trace = Trace::start(&["-p", &std::process::id().to_string()]);
    let closed = Pair::new(V4).port();
    TcpStream::connect((V4, closed)).expect_err("nobody listens");
    let mut pair = Pair::new(V4);
    let port = pair.port();
    net::reset(pair.client);
    net::wait_for_end(&mut pair.server);
    drop(pair.server);
    trace.wait_port(closed, 5);
    trace.wait_port(port, 4);
    let lines: String = trace.stop().events.iter().map(|event| format!("{event}\n")).collect();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("readme-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("make a folder");
    fs::write(folder.join("events.jsonl"), lines).expect("write the events");

    let programs = readme_programs();
    assert!(programs.len() >= 6, "{programs:#?}");
    for program in programs {
        let output = Command::new("sh").args(["-c", &program]).current_dir(&folder).output().expect("run jq");
        assert!(output.status.success(), "{program}: {output:?}");
        assert!(!output.stdout.is_empty(), "{program} finds nothing");
    }
    fs::remove_dir_all(&folder).expect("tidy up");
}
