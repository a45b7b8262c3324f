//! Starts tcptrace and waits until its probes are attached; used by all tests and benchmarks.

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

/// Timeout for failures: nothing takes this long unless it is broken (or emulated).
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The probe set to test (`TCPTRACE_TEST_PROBES`), by default whatever the kernel allows.
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
    /// tcptrace with the probe set to test.
    pub fn new() -> Launch {
        Launch::with(tcptrace()).args(["--probes", &probes()])
    }

    /// A command that runs tcptrace, directly or indirectly; the caller chooses the probe set.
    pub fn with(mut command: Command) -> Launch {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Launch(command)
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Launch {
        self.0.args(arguments);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Launch {
        self.0.env(name, value);
        self
    }

    /// Redirects stdout, instead of using [`Running::stdout`].
    pub fn stdout(mut self, to: impl Into<Stdio>) -> Launch {
        self.0.stdout(to);
        self
    }

    /// Starts it, and waits for the ready line.
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

/// tcptrace with its probes attached; stopped when dropped.
pub struct Running {
    child: Child,
    /// Its stdout, unless redirected.
    pub stdout: Option<ChildStdout>,
    /// The ready line and the lines before it.
    pub banner: String,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("tcptrace is running");
    }

    /// Everything on stderr; waits for the end.
    pub fn stderr(&mut self) -> String {
        self.stderr.take().expect("stderr is asked for once").join().expect("the stderr reader")
    }

    /// Waits for the end; returns the status and everything on stderr.
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
        // A failed test may have left it stopped or stuck; otherwise it ends regularly, with whole lines.
        let signal = if thread::panicking() { Signal::SIGKILL } else { Signal::SIGINT };
        self.signal(signal);
        // Nothing reads this any more, so a full pipe would block it.
        self.stdout = None;
        let _ = self.child.wait();
    }
}
