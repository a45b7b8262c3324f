//! Processes that act for a test: the test program itself, run again.
//!
//! The part to play is in an environment variable that `main` checks first, so arguments can be chosen freely. Words
//! are sent to stdin and received from stdout, so that both sides wait for each other and never for a fixed time.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

/// The environment variable with the part to play.
pub const PART: &str = "TCPTRACE_TEST_ACTOR";

/// Copies a program that will be executed.
///
/// A separate process does this: a file that is open for writing cannot be executed (execve(2), ETXTBSY), and our
/// descriptor would be inherited for a moment by children that other tests start.
pub fn install(program: impl AsRef<Path>, to: impl AsRef<Path>) {
    let status = Command::new("cp").args([program.as_ref(), to.as_ref()]).status().expect("run cp");
    assert!(status.success(), "cp: {status}");
}

/// A process that plays a part.
pub struct Actor {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Actor {
    /// Runs this test program again to play `part`.
    pub fn start(part: &str) -> Actor {
        Actor::spawn(&mut Actor::program(std::env::current_exe().expect("this program"), part))
    }

    /// A command for a program that is this one, or execs it, without arguments.
    pub fn program(program: impl AsRef<OsStr>, part: &str) -> Command {
        let mut command = Command::new(program);
        command.env(PART, part).stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }

    /// Starts a command made by [`Actor::program`].
    pub fn spawn(command: &mut Command) -> Actor {
        let mut child = command.spawn().expect("start an actor");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Actor { child, stdout }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a word to it.
    pub fn tell(&mut self, word: impl std::fmt::Display) {
        let stdin = self.child.stdin.as_mut().expect("stdin is piped");
        writeln!(stdin, "{word}").and_then(|()| stdin.flush()).expect("the actor listens");
    }

    /// Waits for its next word.
    pub fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            let read = self.stdout.read_line(&mut line).expect("the actor speaks UTF-8");
            assert!(read > 0, "the actor left without a word");
            // programs that it runs may print too
            if let Some(word) = line.trim_end().strip_prefix("actor: ") {
                return word.to_owned();
            }
        }
    }

    /// Waits for its end.
    pub fn leave(mut self) {
        drop(self.child.stdin.take());
        self.child.wait().expect("wait for an actor");
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill an actor");
        self.child.wait().expect("wait for an actor");
    }
}

/// The part that this process was started to play.
pub fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// Sends a word to the test.
pub fn say(word: impl std::fmt::Display) {
    println!("actor: {word}");
    std::io::stdout().flush().expect("the test listens");
}

/// Waits for a word from the test.
pub fn listen() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the test speaks UTF-8");
    line.trim_end().to_owned()
}
