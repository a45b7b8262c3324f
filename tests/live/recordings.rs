//! `--read`: recordings made here are read back without privileges, in the sandbox, and with progress.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    process::{Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::common::{
    Trace,
    folder::Folder,
    net::{self, Pair, V4, V6},
    tcptrace,
    terminal::Terminal,
};

/// A user without privileges.
const NOBODY: u32 = 65534;

/// Prints a recording, as user nobody.
fn read(recording: &str, arguments: &[&str]) -> Output {
    let mut command = tcptrace();
    command.args(["-q", "-r", recording]).args(arguments).stdin(Stdio::null());
    command.uid(NOBODY).gid(NOBODY).output().expect("start tcptrace as nobody")
}

/// A recording of two connections, and its name.
fn record(folder: &Folder) -> (String, String) {
    let pid = std::process::id().to_string();
    let name = folder.name("recording.jsonl");
    let mut trace = Trace::start(&["-e", "all", "-p", &pid]);
    let mut lines = Vec::new();
    for address in [V4, V6] {
        let mut pair = Pair::new(address);
        let port = pair.port();
        net::transfer(&mut pair.client, &mut pair.server, 1234);
        drop(pair.client);
        net::wait_for_end(&mut pair.server);
        drop(pair.server);
        trace.wait("both closes", |events| {
            let of_port = crate::common::of_port(events, port);
            of_port.iter().filter(|event| event["network_event"]["type"] == "TcpConnectionClose").count() == 2
        });
    }
    for event in trace.stop().events {
        lines.push(event.to_string());
    }
    let text = lines.join("\n") + "\n";
    fs::write(&name, &text).expect("write the recording");
    (name, text)
}

/// Objects with their members in a fixed order.
fn values(text: &[u8]) -> Vec<serde_json::Value> {
    let text = std::str::from_utf8(text).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn a_recording_is_read_without_privileges() {
    let folder = Folder::new();
    let (name, text) = record(&folder);
    let all = read(&name, &["-j"]);
    assert_eq!(String::from_utf8_lossy(&all.stderr), "");
    assert!(all.status.success());
    assert_eq!(values(&all.stdout), values(text.as_bytes()));
    let closes = values(text.as_bytes())
        .into_iter()
        .filter(|event| event["network_event"]["type"] == "TcpConnectionClose")
        .collect::<Vec<_>>();
    assert_eq!(values(&read(&name, &["-j", "-e", "close"]).stdout), closes);
    let table = String::from_utf8(read(&name, &["-e", "close"]).stdout).expect("UTF-8");
    assert_eq!(table.lines().count(), 1 + closes.len(), "{table}");
}

fn a_signal_interrupts_reading() {
    let folder = Folder::new();
    let (_, text) = record(&folder);
    let line = text.lines().next().expect("a line");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut command = tcptrace();
        command.args(["-qj", "-r", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start tcptrace");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        writeln!(stdin, "{line}").expect("write a line");
        let mut printed = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        stdout.read_line(&mut printed).expect("the line");
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("signal");
        assert!(child.wait().expect("wait").success(), "{signal}");
        drop(stdin);
    }
}

fn the_input_cannot_be_the_output() {
    let folder = Folder::new();
    let (name, text) = record(&folder);
    let file = || File::options().append(true).read(true).open(&name).expect("open the recording");
    let output = tcptrace().args(["-qj", "-r", "-"]).stdin(file()).stdout(file()).output().expect("start");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "tcptrace: - is also the output\n");
    assert_eq!(fs::read_to_string(&name).expect("the recording"), text);
}

/// In the sandbox too. Ctrl-C ends it, so the file only has to be long enough.
fn progress_is_shown_on_a_terminal() {
    let folder = Folder::new();
    let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    member.write_all(&vec![b'\n'; 10 << 20]).expect("compress");
    let member = member.finish().expect("compress");
    let name = folder.name("empty lines.gz");
    fs::write(&name, member.repeat(500)).expect("write five thousand million lines");
    let mut command = Command::new("sh");
    command.env("TERM", "xterm").args([
        "-c",
        "exec \"$0\" -r \"$1\" > \"$2\"",
        env!("CARGO_BIN_EXE_tcptrace"),
        &name,
        &folder.name("out"),
    ]);
    let mut terminal = Terminal::run(&command, 80, 24);
    terminal.wait("a progress bar", |text| text.contains(" left"));
    terminal.press("\x03");
    let (text, status) = terminal.end();
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(text.contains("tcptrace: 0 events"), "{text}");
}

crate::tests![
    a_recording_is_read_without_privileges,
    a_signal_interrupts_reading,
    the_input_cannot_be_the_output,
    progress_is_shown_on_a_terminal,
];
