//! `tcptrace -- COMMAND`, with real commands. Needs root.

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
};

use common::{
    all,
    net::{self, Pair, V4},
    of_port, tcptrace, the,
};
use nix::{
    pty::openpty,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// A file name of this test's own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let name = format!("tcptrace-{}-{name}", std::process::id());
        Scratch(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("the target folder has a UTF-8 name")
    }

    fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.0).expect("read the output");
        let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        events.iter().for_each(common::schema::check);
        events
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// tcptrace with options, about to run a shell script.
fn beside(options: &[&str], script: &str) -> Command {
    let mut command = tcptrace();
    command.args(["--probes", &common::probes()]).args(options).args(["--", "sh", "-c", script]);
    command
}

fn run(options: &[&str], script: &str) -> Output {
    beside(options, script).stdin(Stdio::null()).output().expect("run tcptrace")
}

/// Accept `count` connections, and wait until each peer has closed.
fn serve(listener: TcpListener, count: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for _ in 0..count {
            let (mut stream, _) = listener.accept().expect("accept");
            net::half_close(&stream);
            net::wait_for_end(&mut stream);
        }
    })
}

#[test]
fn only_the_command_and_what_descends_from_it() {
    let out = Scratch::new("descendants");
    // Each way to have a child, each to a port of its own.
    let ways = [
        ("the command itself", "exec busybox nc 127.0.0.1 PORT"),
        ("fork", "busybox nc 127.0.0.1 PORT & wait"),
        ("a grandchild", "(busybox sh -c 'busybox nc 127.0.0.1 PORT; true'; true)"),
        ("another session", "busybox setsid busybox nc 127.0.0.1 PORT & wait"),
        (
            "a daemon that forked twice",
            "mkfifo $FIFO; busybox start-stop-daemon -S -b -x /bin/sh -- -c \
             'busybox nc 127.0.0.1 PORT; echo done > $FIFO'; read done < $FIFO; rm $FIFO",
        ),
    ];
    for (way, script) in ways {
        let listener = net::listen(V4);
        let port = listener.local_addr().expect("an address").port();
        let server = serve(listener, 1);
        let unrelated = thread::spawn(|| Pair::new(V4).port());
        let fifo = Scratch::new("fifo");
        let script = script.replace("PORT", &port.to_string());
        let output = beside(&["-j", "-o", out.path()], &script)
            .env("FIFO", fifo.path())
            .stdin(Stdio::null())
            .output()
            .expect("run tcptrace");
        assert!(output.status.success(), "{way}: {output:?}");
        server.join().expect("the server");
        let unrelated = unrelated.join().expect("the other connection");

        let events = out.events();
        let connect = the(&events, "TcpConnectionEstablish");
        assert_eq!(connect["process"]["filename"], "busybox", "{way}");
        assert_eq!(connect["network_event"]["dport"], port, "{way}");
        let close = the(&events, "TcpConnectionClose");
        assert_eq!(close["network_event"]["cookie"], connect["network_event"]["cookie"], "{way}");
        assert!(of_port(&events, unrelated).is_empty(), "{way}: {events:#?}");
        assert!(all(&events, "TcpConnectionAccept").is_empty(), "{way}: the test accepted, not the command");
    }
}

#[test]
fn accepts_of_the_command_are_traced() {
    let out = Scratch::new("accepts");
    let port = Pair::new(V4).port();
    let script = format!(
        "busybox nc -l -p {port} 127.0.0.1 </dev/null >/dev/null & \
         until busybox nc -w 1 127.0.0.1 {port} </dev/null >/dev/null; do :; done; wait"
    );
    let output = run(&["-j", "-o", out.path()], &script);
    assert!(output.status.success(), "{output:?}");
    let events = out.events();
    let accept = the(&events, "TcpConnectionAccept");
    assert_eq!(accept["network_event"]["sport"], port);
    assert_eq!(all(&events, "TcpConnectionClose").len(), 2);
}

#[test]
fn its_status_is_ours() {
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        assert_eq!(run(&[], script).status.code(), Some(code), "{script}");
    }
    for (program, code, said) in
        [("/nonexistent", 127, "No such file"), ("/etc/passwd", 126, "Permission denied")]
    {
        let output = tcptrace().args(["-q", "--", program]).output().expect("run tcptrace");
        assert_eq!(output.status.code(), Some(code));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(&format!("tcptrace: {program}: {said}")), "{stderr}");
    }
}

#[test]
fn its_input_and_output_are_its_own() {
    let mut child = beside(&["-q"], "cat; echo said >&2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start tcptrace");
    child.stdin.take().expect("stdin is piped").write_all(b"typed").expect("type");
    let output = child.wait_with_output().expect("wait for tcptrace");
    assert_eq!(output.stdout, b"typed");
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().last(), Some("said"));
}

#[test]
fn lines_go_to_stderr() {
    let listener = net::listen(V4);
    let port = listener.local_addr().expect("an address").port();
    let server = serve(listener, 1);
    let output = run(&["-q", "-j"], &format!("busybox nc 127.0.0.1 {port}; echo result"));
    server.join().expect("the server");
    assert_eq!(output.stdout, b"result\n");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr.matches("\"type\":\"NetworkEvent\"").count(), 2, "{stderr}");
}

#[test]
fn a_signal_is_passed_on() {
    let mut child = beside(&[], "echo up; exec busybox sleep 600")
        .stdout(Stdio::piped())
        .spawn()
        .expect("start tcptrace");
    let mut up = [0; 3];
    child.stdout.as_mut().expect("stdout is piped").read_exact(&mut up).expect("the command runs");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("tcptrace runs");
    assert_eq!(child.wait().expect("wait for tcptrace").code(), Some(143));
}

#[test]
fn ctrl_c_is_the_commands() {
    let pty = openpty(None, None).expect("a pseudo-terminal");
    let script = "trap 'echo caught; exit 5' INT; echo up; while :; do busybox sleep 1; done";
    let traced = beside(&["-q"], script);
    let end = || Stdio::from(pty.slave.try_clone().expect("duplicate a descriptor"));
    let mut child = Command::new("setsid")
        .args(["--ctty", "--wait"])
        .arg(traced.get_program())
        .args(traced.get_args())
        .stdin(end())
        .stdout(end())
        .stderr(end())
        .spawn()
        .expect("start tcptrace on a terminal of its own");
    drop(pty.slave);
    let mut terminal = fs::File::from(pty.master);
    read_until(&mut terminal, "up");
    terminal.write_all(b"\x03").expect("press Ctrl-C");
    read_until(&mut terminal, "caught");
    assert_eq!(child.wait().expect("wait for tcptrace").code(), Some(5));
}

fn read_until(from: &mut impl Read, word: &str) {
    let mut seen = String::new();
    while !seen.contains(word) {
        let mut bytes = [0; 1024];
        let count = from.read(&mut bytes).unwrap_or_else(|error| panic!("{error} after {seen:?}"));
        seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
}

#[test]
fn it_runs_as_the_user_who_called_sudo() {
    let out = Scratch::new("invoker");
    let output = beside(
        &["-q", "-o", out.path()],
        "id -u; id -g; id -G; echo $HOME $USER; grep CapEff /proc/self/status",
    )
    .envs([("SUDO_UID", "65534"), ("SUDO_GID", "54321"), ("SUDO_USER", "nobody")])
    .env("HOME", "/root")
    .output()
    .expect("run tcptrace");
    let said = String::from_utf8_lossy(&output.stdout);
    let passwd = fs::read_to_string("/etc/passwd").expect("read /etc/passwd");
    let home = passwd
        .lines()
        .find_map(|line| line.strip_prefix("nobody:")?.split(':').nth(4))
        .expect("nobody has a home");
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        ["65534", "54321", "54321", &format!("{home} nobody"), "CapEff:\t0000000000000000"],
        "{output:?}"
    );
    let file = fs::metadata(&out.0).expect("the output file");
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (65534, 54321, 0o600));
}

#[test]
fn a_file_that_cannot_be_opened_stops_everything() {
    let output = run(&["-o", "/nonexistent/file"], "echo ran");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("tcptrace: open /nonexistent/file: No such file"), "{stderr}");
}
