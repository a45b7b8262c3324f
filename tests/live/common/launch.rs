//! Starts tcptrace and waits until its probes are attached: the one way for all tests and benchmarks.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc::channel,
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A deadline for failures: nothing waits this long unless it is broken (or emulated).
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The probe set to test with (`TCPTRACE_TEST_PROBES`), by default whatever the kernel allows.
pub fn probes() -> String {
    std::env::var("TCPTRACE_TEST_PROBES").unwrap_or_else(|_| "auto".to_owned())
}

/// The binary under test.
pub fn tcptrace() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tcptrace"))
}

/// A command line of tcptrace, not started yet.
pub struct Launch(Command);

impl Launch {
    /// tcptrace with the probe set to test with.
    pub fn new() -> Launch {
        Launch::with(tcptrace()).args(["--probes", &probes()])
    }

    /// A command that runs tcptrace, itself or in another place; the caller chooses the probe set.
    pub fn with(mut command: Command) -> Launch {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Launch(command)
    }

    /// Add arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Launch {
        self.0.args(arguments);
        self
    }

    /// Set an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Launch {
        self.0.env(name, value);
        self
    }

    /// Send stdout elsewhere than to [`Running::stdout`].
    pub fn stdout(mut self, to: impl Into<Stdio>) -> Launch {
        self.0.stdout(to);
        self
    }

    /// Start it, and wait for the ready line.
    pub fn start(mut self) -> Running {
        let mut child = self.0.spawn().expect("start tcptrace");
        let mut reader = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let (send_ready, ready) = channel();
        // A thread reads stderr to its end, so that tcptrace never blocks on a full pipe.
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            while reader.read_line(&mut text).expect("stderr is UTF-8") > 0 {
                if text.lines().last().is_some_and(|line| line.starts_with("tcptrace: ready")) {
                    break;
                }
            }
            let _ = send_ready.send(text.clone());
            reader.read_to_string(&mut text).expect("stderr is UTF-8");
            text
        });
        let stdout = child.stdout.take();
        let mut running = Running { child, stdout, banner: String::new(), stderr: Some(stderr) };
        running.banner = ready.recv_timeout(PATIENCE).expect("a ready line");
        assert!(running.banner.contains("tcptrace: ready"), "tcptrace did not start: {}", running.banner);
        running
    }
}

/// tcptrace with its probes attached. It is stopped when this is dropped.
pub struct Running {
    child: Child,
    /// What it prints, unless that goes elsewhere.
    pub stdout: Option<ChildStdout>,
    /// The ready line and those before it.
    pub banner: String,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Send a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("tcptrace is running");
    }

    /// Everything on stderr; returns when it ends.
    pub fn stderr(&mut self) -> String {
        self.stderr.take().expect("stderr is asked for once").join().expect("the stderr reader")
    }

    /// Wait for the end: how it ended, and everything on stderr.
    pub fn wait(&mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("wait for tcptrace");
        (status, self.stderr())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // A failed test may have left it stopped or stuck; otherwise it ends in order, with whole lines.
        let signal = if thread::panicking() { Signal::SIGKILL } else { Signal::SIGINT };
        self.signal(signal);
        // Nobody reads this any more: a full pipe must not keep it.
        self.stdout = None;
        let _ = self.child.wait();
    }
}
