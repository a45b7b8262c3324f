//! Runs the examples in the manual page, in its section FILTERS and in the README.

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Output},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use crate::common::{
    Trace,
    folder::Folder,
    net::{self, Pair, V4},
};

/// The blocks between `.EX` and `.EE` in a section of the manual page, as displayed.
fn blocks(section: &str) -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/man/tcptrace.8");
    let page = fs::read_to_string(page).expect("the manual page");
    let start = format!(".SH {section}\n");
    let text = page.split(&start).nth(1).and_then(|rest| rest.split("\n.SH ").next()).expect("the section");
    let blocks = text.split("\n.EX\n").skip(1).filter_map(|rest| rest.split("\n.EE").next());
    blocks.map(|block| block.replace("\\e", "\\").replace("\\-", "-")).collect()
}

/// The commands in these blocks, without the prompt.
fn commands(section: &str) -> Vec<String> {
    let blocks = blocks(section);
    blocks
        .iter()
        .flat_map(|block| block.lines())
        .filter_map(|line| line.strip_prefix("# "))
        .map(str::to_owned)
        .collect()
}

/// Shortens timeouts for the test.
fn soon(example: &str) -> String {
    let times = ["--timeout 1m", "--timeout 1h"];
    if let Some(time) = times.iter().find(|time| example.contains(*time)) {
        return example.replace(time, "--timeout 3s");
    }
    let ends_by_itself = ["--completions", "--schema", "--snapshot", " -- ", "tcptrace -r "]
        .iter()
        .any(|word| example.contains(word));
    if ends_by_itself { example.to_owned() } else { example.replacen("tcptrace", "tcptrace --timeout 3s", 1) }
}

/// A directory for files that the examples write, and for programs missing on this machine.
struct Place(Folder);

impl Place {
    fn new() -> Place {
        let folder = Folder::new();
        fs::create_dir(folder.path("bin")).expect("make a folder");
        symlink(env!("CARGO_BIN_EXE_tcptrace"), folder.path("bin/tcptrace")).expect("link");
        symlink("/bin/busybox", folder.path("bin/wget")).expect("link");
        // systemd-cat works only if the journal is running.
        if !Path::new("/run/systemd/journal/stdout").exists() {
            folder.write("bin/systemd-cat", "#!/bin/sh\nexec cat\n");
            fs::set_permissions(folder.path("bin/systemd-cat"), PermissionsExt::from_mode(0o755))
                .expect("chmod");
        }
        Place(folder)
    }

    /// Runs a command in a shell, so that quotes are removed as for a user. An example that does not end fails.
    fn run(&self, command: &str) -> Output {
        let path = std::env::var("PATH").expect("PATH");
        Command::new("timeout")
            .args(["60", "sh", "-c", command])
            .current_dir(self.0.root())
            .env("PATH", format!("{}:{path}", self.0.name("bin")))
            .output()
            .expect("run a shell")
    }
}

/// Makes connections, some of which fail, while `act` runs.
fn with_something_to_see(act: impl FnOnce()) {
    let (end, over) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while over.recv_timeout(Duration::from_millis(10)) == Err(RecvTimeoutError::Timeout) {
                let port = Pair::new(V4).port();
                let _ = TcpStream::connect((V4, port));
            }
        });
        act();
        drop(end);
    });
}

fn every_example_works() {
    let examples = [commands("QUESTIONS"), commands("EXAMPLES")].concat();
    assert!(examples.len() >= 23, "{examples:#?}");
    let place = &Place::new();
    let check = |example: &str| {
        let command = soon(example).replace("/usr/share/bash-completion/completions/", "completions.");
        let output = place.run(&command);
        let stderr = String::from_utf8_lossy(&output.stderr);
        // wget gets a refused connection, and its status is that of the example
        let allowed = if example.contains(" -- ") { 0..2 } else { 0..1 };
        assert!(output.status.code().is_some_and(|code| allowed.contains(&code)), "{example}: {output:?}");
        assert!(!stderr.contains("error"), "{example}: {stderr}");
        let selects_nothing = ["latency_us >", "not) |", "_reset", "--container", "> ", " -o ", " -- "]
            .iter()
            .any(|word| example.contains(word));
        assert!(selects_nothing || !output.stdout.is_empty(), "{example} prints nothing: {stderr}");
    };
    with_something_to_see(|| {
        thread::scope(|scope| {
            // In parallel, because most of the time is spent waiting.
            let running: Vec<_> =
                examples.iter().map(|example| scope.spawn(move || check(example))).collect();
            let failed = running.into_iter().filter_map(|run| run.join().err()).count();
            assert_eq!(failed, 0);
        });
    });
    let csv = fs::read_to_string(place.0.path("connections.csv")).expect("the spreadsheet");
    assert!(csv.lines().count() > 1, "{csv}");
}

/// The recording is made, then read twice.
fn the_recording_of_the_manual() {
    let examples = commands("RECORDINGS");
    let [record, failed, csv] = &examples[..] else { panic!("{examples:#?}") };
    let place = &Place::new();
    let run = |example: &str| {
        let output = place.run(&soon(example));
        assert!(output.status.success(), "{example}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    with_something_to_see(|| assert_eq!(run(record), ""));
    let failures = run(failed);
    assert!(failures.contains("ECONNREFUSED") && !failures.contains(" close "), "{failures}");
    let csv = run(csv);
    assert!(csv.starts_with("timestamp,event,") && csv.lines().count() == 1, "{csv}");
}

/// The jq programs in the README, each on one line after a prompt.
fn readme_programs() -> Vec<String> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("the README");
    readme.lines().filter_map(|line| line.strip_prefix("$ jq ").map(|rest| format!("jq {rest}"))).collect()
}

fn every_jq_program_in_the_readme_finds_something() {
    let mut trace = Trace::start(&["-p", &std::process::id().to_string()]);
    let closed = Pair::new(V4).port();
    TcpStream::connect((V4, closed)).expect_err("nothing listens");
    let mut pair = Pair::new(V4);
    let port = pair.port();
    net::reset(pair.client);
    net::wait_for_end(&mut pair.server);
    drop(pair.server);
    trace.wait_port(closed, 5);
    trace.wait_port(port, 4);
    let lines: String = trace.stop().events.iter().map(|event| format!("{event}\n")).collect();
    let folder = Folder::new();
    folder.write("events.jsonl", &lines);

    let programs = readme_programs();
    assert!(programs.len() >= 6, "{programs:#?}");
    for program in programs {
        let output =
            Command::new("sh").args(["-c", &program]).current_dir(folder.root()).output().expect("run jq");
        assert!(output.status.success(), "{program}: {output:?}");
        assert!(!output.stdout.is_empty(), "{program} finds nothing");
    }
}

fn every_example_in_the_filters_section_works() {
    let place = Place::new();
    let yaml = blocks("FILTERS").into_iter().find(|block| block.starts_with("process_filter:"));
    place.0.write("netmon.yaml", &yaml.expect("a configuration"));
    // A command may continue on the next line: the whole block is one.
    let blocks = blocks("FILTERS");
    let examples: Vec<_> = blocks.iter().filter_map(|block| block.strip_prefix("# ")).collect();
    for example in &examples {
        let output = place.run(&format!("{example} --timeout 10ms"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.contains("tcptrace: ready"), "{example}: {stderr}");
    }
    assert!(examples.len() >= 10, "{} examples", examples.len());
}

crate::tests![
    the_recording_of_the_manual,
    every_example_works,
    every_example_in_the_filters_section_works,
    every_jq_program_in_the_readme_finds_something,
];
