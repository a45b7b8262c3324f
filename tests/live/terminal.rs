//! The table on a terminal and in a pipe.

use std::{io::Write, net::TcpStream, process::Command};

use crate::common::{
    self, Launch,
    folder::Folder,
    net::{self, Pair, V4, V6},
    tcptrace,
    terminal::Terminal,
};
use nix::sys::signal::Signal;
use unicode_width::UnicodeWidthStr;

/// tcptrace for connections of this process.
fn traced() -> Command {
    let mut command = tcptrace();
    command.args(["--probes", &common::probes(), "-p", &std::process::id().to_string()]);
    command
}

/// An IPv4 connection, an IPv6 one, and a refused one: at most eight lines; returns their ports.
fn something_to_see() -> Vec<u16> {
    let mut ports = Vec::new();
    for address in [V4, V6] {
        let mut pair = Pair::new(address);
        ports.extend([pair.port(), pair.client.local_addr().expect("an address").port()]);
        pair.client.write_all(&[0; 1500]).expect("send");
        net::half_close(&pair.client);
        net::wait_for_end(&mut pair.server);
    }
    let nobody = Pair::new(V4).port();
    TcpStream::connect((V4, nobody)).expect_err("nothing listens");
    ports.push(nobody);
    ports
}

/// Removes colour sequences.
fn plain(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').map_or(part, |(_, rest)| rest))
}

fn the_table_fits_the_terminal() {
    for columns in [80, 100, 200] {
        let mut terminal = Terminal::run(&traced(), columns, 50);
        terminal.wait("a ready line", |text| text.contains("tcptrace: ready"));
        let ports = something_to_see();
        terminal.wait("the failure", |text| text.contains("ECONNREFUSED"));
        terminal.press("\x03");
        let (text, status) = terminal.end();
        assert_eq!(status.code(), Some(0), "{text}");
        assert!(text.contains("\x1b[31mECONNREFUSED\x1b["), "failures are red: {text:?}");
        assert!(text.contains("^C\r\ntcptrace: "), "the summary has a line of its own: {text}");

        let text = plain(&text);
        let lines: Vec<&str> = text.lines().map(|line| line.trim_end_matches('\r')).collect();
        let header = lines.iter().position(|line| line.starts_with("TIME")).expect("a header");
        for line in &lines[header..] {
            assert!(line.width() <= columns.into(), "{columns}: {line}");
        }
        for port in ports {
            let whole = format!(":{port} ");
            assert!(lines.iter().any(|line| line.contains(&whole)), "{columns}: {whole} in {text}");
        }
        assert_eq!(text.matches("DETAILS").count(), 1, "{text}");
    }
}

fn a_pipe_gets_everything_and_no_colour() {
    let mut running = Launch::with(traced()).env("TERM", "xterm-256color").start();
    something_to_see();
    running.signal(Signal::SIGINT);
    let stdout = running.stdout.take().expect("stdout is piped");
    let text = std::io::read_to_string(stdout).expect("UTF-8");
    assert!(text.contains("ECONNREFUSED, after "), "{text}");
    assert!(text.contains("sent 1.5 kB, received 0 B, "), "{text}");
    assert!(text.contains("[::1]:"), "{text}");
    assert!(!text.contains(['\x1b', '…', '\r']), "{text:?}");
}

/// In that case, SIGHUP does not concern the file of `-o`.
fn a_terminal_that_hangs_up_ends_the_trace() {
    let folder = Folder::new();
    let mut command = traced();
    command.args(["-o", &folder.name("events")]);
    let mut terminal = Terminal::run(&command, 80, 50);
    terminal.wait("a ready line", |text| text.contains("tcptrace: ready"));
    assert_eq!(terminal.hang_up().code(), Some(0));
}

crate::tests![
    a_terminal_that_hangs_up_ends_the_trace,
    the_table_fits_the_terminal,
    a_pipe_gets_everything_and_no_colour,
];
