//! `tcptrace -- COMMAND`, with real commands.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::{fs::MetadataExt, net::UnixDatagram},
    path::Path,
    process::{Command, Output, Stdio},
    thread,
};

use crate::common::{
    self, all,
    folder::Folder,
    net::{self, Pair, V4},
    of_port, probes, tcptrace,
    terminal::Terminal,
    the,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// The events in a file, validated against the schema.
fn events_in(file: impl AsRef<Path>) -> Vec<Value> {
    let text = fs::read_to_string(file).expect("read the output");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    events.iter().for_each(common::schema::check);
    events
}

/// tcptrace with options, set up to run a shell script.
fn beside(options: &[&str], script: &str) -> Command {
    let mut command = tcptrace();
    command.args(["--probes", &common::probes()]).args(options).args(["--", "sh", "-c", script]);
    command
}

fn run(options: &[&str], script: &str) -> Output {
    beside(options, script).stdin(Stdio::null()).output().expect("run tcptrace")
}

/// Accepts `count` connections, and waits until each peer has closed.
fn serve(listener: TcpListener, count: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for _ in 0..count {
            let (mut stream, _) = listener.accept().expect("accept");
            net::half_close(&stream);
            net::wait_for_end(&mut stream);
        }
    })
}

fn only_the_command_and_its_descendants_are_traced() {
    let this = std::env::current_exe().expect("this program");
    // All ways to create a child, each with a different port.
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
        let folder = Folder::new();
        let script = script.replace("PORT", &port.to_string());
        let output = beside(&["-j", "-o", &folder.name("out")], &script)
            .env("FIFO", folder.name("fifo"))
            .env("ACTOR", &this)
            .stdin(Stdio::null())
            .output()
            .expect("run tcptrace");
        assert!(output.status.success(), "{way}: {output:?}");
        server.join().expect("the server");
        let unrelated = unrelated.join().expect("the other connection");

        let events = events_in(folder.path("out"));
        let connect = the(&events, "TcpConnectionEstablish");
        assert_eq!(connect["process"]["filename"], "busybox", "{way}");
        assert_eq!(connect["network_event"]["dport"], port, "{way}");
        let close = the(&events, "TcpConnectionClose");
        assert_eq!(close["network_event"]["cookie"], connect["network_event"]["cookie"], "{way}");
        assert!(of_port(&events, unrelated).is_empty(), "{way}: {events:#?}");
        assert!(all(&events, "TcpConnectionAccept").is_empty(), "{way}: the test accepted, not the command");
    }
}

fn accepts_of_the_command_are_traced() {
    let folder = Folder::new();
    let port = Pair::new(V4).port();
    let script = format!(
        "busybox nc -l -p {port} 127.0.0.1 </dev/null >/dev/null & \
         until busybox nc -w 1 127.0.0.1 {port} </dev/null >/dev/null; do :; done; wait"
    );
    let output = run(&["-j", "-o", &folder.name("out")], &script);
    assert!(output.status.success(), "{output:?}");
    let events = events_in(folder.path("out"));
    let accept = the(&events, "TcpConnectionAccept");
    assert_eq!(accept["network_event"]["sport"], port);
    assert_eq!(all(&events, "TcpConnectionClose").len(), 2);
}

fn the_exit_status_is_that_of_the_command() {
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

fn the_command_keeps_its_stdin_stdout_and_stderr() {
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

fn signals_are_forwarded() {
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

fn ctrl_c_is_left_to_the_command() {
    // SIGINT may be ignored in the tests' parent, as in a background job of a shell; a shell cannot trap it then.
    let script = r#"exec env --default-signal=INT sh -c "
        trap 'echo caught; exit 5' INT; echo up; while :; do busybox sleep 1; done""#;
    let mut terminal = Terminal::run(&beside(&["-q"], script), 80, 24);
    terminal.wait("the command", |text| text.contains("up"));
    terminal.press("\x03");
    let (text, status) = terminal.end();
    assert!(text.contains("caught"), "{text}");
    assert_eq!(status.code(), Some(5));
}

fn it_runs_as_the_user_who_called_sudo() {
    let folder = Folder::new();
    let output = beside(
        &["-q", "-o", &folder.name("out")],
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
    let file = fs::metadata(folder.path("out")).expect("the output file");
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (65534, 54321, 0o600));
}

fn a_sudo_user_has_all_groups() {
    let folder = Folder::new();
    let passwd = folder.write("passwd", "ann:x:54321:54322::/home/ann:/bin/sh\n");
    let groups = "ann:x:54322:\nwheel:x:54323:bob,ann\ndocker:x:54324:annabel\nvideo:x:54325:ann\n";
    let group = folder.write("group", groups);
    let traced = beside(&["-q"], "id -G; echo $HOME $SHELL");
    let binds = "mount --bind $PASSWD /etc/passwd && mount --bind $GROUP /etc/group && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", binds, "sh"])
        .arg(traced.get_program())
        .args(traced.get_args())
        .envs([("PASSWD", passwd), ("GROUP", group)])
        .envs([("SUDO_UID", "54321"), ("SUDO_GID", "54322"), ("SUDO_USER", "ann")])
        .output()
        .expect("run tcptrace");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.lines().collect::<Vec<_>>(), ["54322 54323 54325", "/home/ann /bin/sh"], "{output:?}");
}

/// A shell line that makes a daemon connect to PORT, and ends once it is connected. Only the shell has descriptor 9, so
/// the reader of $FIFO sees end-of-file when the shell ends.
const LEAVES_A_DAEMON: &str = "exec 9>$FIFO; (busybox setsid sh -c 'exec 9>&-; exec busybox nc 127.0.0.1 PORT' \
     > /dev/null 2>&1 &); read connected";

/// Runs that line; `after` gets the connection when the command has ended.
fn leave_a_daemon(after: impl FnOnce(TcpStream) + Send) -> Vec<Value> {
    let folder = Folder::new();
    nix::unistd::mkfifo(&folder.path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let listener = net::listen(V4);
    let port = listener.local_addr().expect("an address").port();
    let mut child =
        beside(&["-j", "-o", &folder.name("out")], &LEAVES_A_DAEMON.replace("PORT", &port.to_string()))
            .env("FIFO", folder.name("fifo"))
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start tcptrace");
    thread::scope(|scope| {
        let mut command = fs::File::open(folder.path("fifo")).expect("the command opens it");
        let (stream, _) = listener.accept().expect("accept");
        writeln!(child.stdin.take().expect("stdin is piped"), "connected").expect("tell the command");
        command.read_to_string(&mut String::new()).expect("the command ends");
        scope.spawn(move || after(stream));
        assert!(child.wait().expect("wait for tcptrace").success());
    });
    events_in(folder.path("out"))
}

fn waits_for_the_last_close_of_a_daemon() {
    let events = leave_a_daemon(drop);
    assert_eq!(events.len(), 2, "{events:#?}");
    let [connect, close] = ["TcpConnectionEstablish", "TcpConnectionClose"].map(|kind| the(&events, kind));
    assert_eq!(connect["network_event"]["cookie"], close["network_event"]["cookie"]);
}

fn no_wait_for_open_daemon_connections() {
    let (keep, kept) = std::sync::mpsc::channel();
    let events = leave_a_daemon(move |stream| keep.send(stream).expect("the test waits"));
    assert_eq!(events.len(), 1, "{events:#?}");
    let mut stream: TcpStream = kept.recv().expect("a connection");
    net::half_close(&stream);
    net::wait_for_end(&mut stream);
}

fn an_unopenable_output_is_an_error() {
    let output = run(&["-o", "/nonexistent/file"], "echo ran");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("tcptrace: open /nonexistent/file: No such file"), "{stderr}");
}

/// A script waits for a line, a service manager for a message; the command inherits neither.
fn readiness_is_reported() {
    let folder = Folder::new();
    let (fifo, notified) = (folder.path("ready"), folder.path("notify"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let manager = UnixDatagram::bind(&notified).expect("bind");
    let script = format!(
        "exec {} -qj --probes {} --ready-fd 9 -o {} -- sh -c 'test ! -e /proc/$$/fd/9' 9>{}",
        env!("CARGO_BIN_EXE_tcptrace"),
        probes(),
        folder.name("events"),
        folder.name("ready")
    );
    let mut child =
        Command::new("sh").args(["-c", &script]).env("NOTIFY_SOCKET", &notified).spawn().expect("sh");
    // until it is closed
    assert_eq!(fs::read_to_string(&fifo).expect("the line"), "ready\n");
    let mut message = [0; 64];
    let length = manager.recv(&mut message).expect("a message");
    assert_eq!(&message[..length], b"READY=1");
    assert!(child.wait().expect("wait").success());
}

crate::tests![
    readiness_is_reported,
    only_the_command_and_its_descendants_are_traced,
    accepts_of_the_command_are_traced,
    the_exit_status_is_that_of_the_command,
    the_command_keeps_its_stdin_stdout_and_stderr,
    lines_go_to_stderr,
    signals_are_forwarded,
    ctrl_c_is_left_to_the_command,
    it_runs_as_the_user_who_called_sudo,
    a_sudo_user_has_all_groups,
    waits_for_the_last_close_of_a_daemon,
    no_wait_for_open_daemon_connections,
    an_unopenable_output_is_an_error,
];
