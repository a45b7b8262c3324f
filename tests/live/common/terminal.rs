//! Runs a program in a pseudo-terminal.

use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    pty::{Winsize, openpty},
};

/// A pseudo-terminal with a program.
pub struct Terminal {
    child: Child,
    master: File,
    seen: Vec<u8>,
}

impl Terminal {
    /// Runs a command as a new session, in a terminal of this size.
    pub fn run(command: &Command, columns: u16, rows: u16) -> Terminal {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("a pseudo-terminal");
        // If the program inherited it, closing ours would not hang up the terminal.
        fcntl(&pty.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("fcntl");
        let end = || Stdio::from(pty.slave.try_clone().expect("duplicate a descriptor"));
        let environment = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(command.get_program())
            .args(command.get_args())
            .env("LANG", "C.UTF-8")
            .envs(environment)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("start a program on a new terminal");
        drop(pty.slave);
        Terminal { child, master: pty.master.into(), seen: Vec::new() }
    }

    /// Sends keys.
    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("press keys");
    }

    /// Reads until `enough` holds for the text.
    pub fn wait(&mut self, what: &str, enough: impl Fn(&str) -> bool) {
        while !enough(&self.text()) {
            assert!(self.read(), "the program ended without {what}: {}", self.text());
        }
    }

    /// Closes the terminal; returns how the program ended.
    pub fn hang_up(mut self) -> ExitStatus {
        drop(self.master);
        self.child.wait().expect("wait for the program")
    }

    /// Reads until the program has ended; returns the text and the exit status.
    pub fn end(mut self) -> (String, ExitStatus) {
        while self.read() {}
        (self.text(), self.child.wait().expect("wait for the program"))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// False at the end, which a terminal reports as EIO.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let count = self.master.read(&mut bytes).unwrap_or(0);
        self.seen.extend_from_slice(&bytes[..count]);
        count > 0
    }
}
