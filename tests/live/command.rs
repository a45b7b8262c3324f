//! `tcptrace -- COMMAND`, with real commands. Needs root.

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
};

use common::{
    all,
    net::{self, Pair, V4},
    of_port, script, tcptrace,
    terminal::Terminal,
    the,
};
use nix::{
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
#[ignore = "run by other tests, in another process"]
fn actor() {
    script::play(&common::actor::part().expect("a part"));
}

#[test]
fn only_the_command_and_what_descends_from_it() {
    let out = Scratch::new("descendants");
    let this = std::env::current_exe().expect("this program");
    let actor = format!("{} --exact actor --ignored --nocapture --quiet", this.display());
    // Each way to have a child, each to a port of its own.
    let ways = [
        ("the command itself", "exec busybox nc 127.0.0.1 PORT"),
        ("fork", "busybox nc 127.0.0.1 PORT & wait"),
        ("a grandchild", "(busybox sh -c 'busybox nc 127.0.0.1 PORT; true'; true)"),
        ("another session", "busybox setsid busybox nc 127.0.0.1 PORT & wait"),
        (
            "a daemon that forked twice",
            "mkfifo $FIFO; (busybox setsid sh -c 'busybox nc 127.0.0.1 PORT; echo done > $FIFO' &); \
             read done < $FIFO; rm $FIFO",
        ),
        ("vfork", "TCPTRACE_TEST_ACTOR='spawn busybox nc 127.0.0.1 PORT' exec $ACTOR"),
        (
            "exec by a thread that is not the first",
            "TCPTRACE_TEST_ACTOR='thread\nexec busybox nc 127.0.0.1 PORT' exec $ACTOR",
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
            .env("ACTOR", &actor)
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
        .stderr(Stdio::null())
        .spawn()
        .expect("start tcptrace");
    let mut up = [0; 3];
    child.stdout.as_mut().expect("stdout is piped").read_exact(&mut up).expect("the command runs");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("tcptrace runs");
    assert_eq!(child.wait().expect("wait for tcptrace").code(), Some(143));
}

#[test]
fn ctrl_c_is_the_commands() {
    let script = "trap 'echo caught; exit 5' INT; echo up; while :; do busybox sleep 1; done";
    let mut terminal = Terminal::run(&beside(&["-q"], script), 80, 24);
    terminal.wait("the command", |text| text.contains("up"));
    terminal.press("\x03");
    let (text, status) = terminal.end();
    assert!(text.contains("caught"), "{text}");
    assert_eq!(status.code(), Some(5));
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
fn a_sudo_user_has_all_groups() {
    let [passwd, group] = ["passwd", "group"].map(Scratch::new);
    fs::write(&passwd.0, "ann:x:54321:54322::/home/ann:/bin/sh\n").expect("write a file");
    let groups = "ann:x:54322:\nwheel:x:54323:bob,ann\ndocker:x:54324:annabel\nvideo:x:54325:ann\n";
    fs::write(&group.0, groups).expect("write a file");
    let traced = beside(&["-q"], "id -G; echo $HOME $SHELL");
    let binds = "mount --bind $PASSWD /etc/passwd && mount --bind $GROUP /etc/group && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", binds, "sh"])
        .arg(traced.get_program())
        .args(traced.get_args())
        .envs([("PASSWD", passwd.path()), ("GROUP", group.path())])
        .envs([("SUDO_UID", "54321"), ("SUDO_GID", "54322"), ("SUDO_USER", "ann")])
        .output()
        .expect("run tcptrace");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.lines().collect::<Vec<_>>(), ["54322 54323 54325", "/home/ann /bin/sh"], "{output:?}");
}

/// A shell line: connect a daemon to PORT, and end once it is connected. Descriptor 9 is the shell's
/// alone, so the reader of $FIFO sees its end.
const LEAVES_A_DAEMON: &str = "exec 9>$FIFO; (busybox setsid sh -c 'exec 9>&-; exec busybox nc 127.0.0.1 PORT' \
     > /dev/null 2>&1 &); read connected";

/// Runs that; `after` gets the connection when the command has ended.
fn leave_a_daemon(after: impl FnOnce(TcpStream) + Send) -> Vec<Value> {
    let (out, fifo) = (Scratch::new("daemon"), Scratch::new("daemon-fifo"));
    nix::unistd::mkfifo(&fifo.0, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let listener = net::listen(V4);
    let port = listener.local_addr().expect("an address").port();
    let mut child = beside(&["-j", "-o", out.path()], &LEAVES_A_DAEMON.replace("PORT", &port.to_string()))
        .env("FIFO", fifo.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start tcptrace");
    thread::scope(|scope| {
        let mut command = fs::File::open(&fifo.0).expect("the command opens it");
        let (stream, _) = listener.accept().expect("accept");
        writeln!(child.stdin.take().expect("stdin is piped"), "connected").expect("tell the command");
        command.read_to_string(&mut String::new()).expect("the command ends");
        scope.spawn(move || after(stream));
        assert!(child.wait().expect("wait for tcptrace").success());
    });
    out.events()
}

#[test]
fn the_last_close_of_a_daemon_is_waited_for() {
    let events = leave_a_daemon(drop);
    assert_eq!(events.len(), 2, "{events:#?}");
    let [connect, close] = ["TcpConnectionEstablish", "TcpConnectionClose"].map(|kind| the(&events, kind));
    assert_eq!(connect["network_event"]["cookie"], close["network_event"]["cookie"]);
}

#[test]
fn a_daemon_that_stays_is_not() {
    let (keep, kept) = std::sync::mpsc::channel();
    let events = leave_a_daemon(move |stream| keep.send(stream).expect("the test waits"));
    assert_eq!(events.len(), 1, "{events:#?}");
    let mut stream: TcpStream = kept.recv().expect("a connection");
    net::half_close(&stream);
    net::wait_for_end(&mut stream);
}

#[test]
fn a_file_that_cannot_be_opened_stops_everything() {
    let output = run(&["-o", "/nonexistent/file"], "echo ran");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("tcptrace: open /nonexistent/file: No such file"), "{stderr}");
}
