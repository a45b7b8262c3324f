//! The examples of the manual page, run. Needs root.

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

use common::net::{Pair, V4};

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
