//! `--output` to files that exist, or that others write to.

use std::{fs, path::Path, time::Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::common::{
    Launch, PATIENCE,
    folder::Folder,
    launch::Running,
    net::{self, Pair, V4},
};

/// Makes a connection and closes it; returns its port.
fn connection() -> u16 {
    let mut pair = Pair::new(V4);
    let port = pair.port();
    drop(pair.client);
    net::wait_for_end(&mut pair.server);
    port
}

/// Waits until the file has this many lines with this number.
fn wait_for(file: &Path, port: u16, lines: usize) -> String {
    let started = Instant::now();
    loop {
        let text = fs::read_to_string(file).expect("the output");
        if text.lines().filter(|line| line.contains(&port.to_string())).count() >= lines {
            return text;
        }
        assert!(started.elapsed() < PATIENCE, "no {lines} lines of {port}: {text}");
        std::thread::yield_now();
    }
}

fn stop(mut running: Running) {
    running.signal(Signal::SIGINT);
    let (status, stderr) = running.wait();
    assert!(status.success(), "{stderr}");
}

fn write_to(file: &Path, format: &str) -> Running {
    Launch::new().args(["-f", format, "-o"]).args([file]).start()
}

fn a_second_run_appends_without_a_second_header() {
    let folder = Folder::new();
    let file = folder.path("events.csv");
    let ports = [(), ()].map(|()| {
        let running = write_to(&file, "csv");
        let port = connection();
        wait_for(&file, port, 4);
        stop(running);
        port
    });
    let text = fs::read_to_string(&file).expect("the output");
    assert_eq!(text.matches("timestamp,event,").count(), 1, "{text}");
    for row in csv::Reader::from_reader(text.as_bytes()).records() {
        row.expect("as many fields as columns");
    }
    for port in ports {
        wait_for(&file, port, 4);
    }
}

fn an_incomplete_last_line_is_terminated() {
    let folder = Folder::new();
    let file = folder.path("events.jsonl");
    fs::write(&file, "{\"cut\":").expect("write");
    let running = write_to(&file, "json");
    let text = wait_for(&file, connection(), 4);
    stop(running);
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("{\"cut\":"));
    assert!(lines.all(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
}

fn two_tracers_share_a_file() {
    let folder = Folder::new();
    let file = folder.path("events.jsonl");
    let both = [(), ()].map(|()| write_to(&file, "json"));
    let text = wait_for(&file, connection(), 8);
    both.into_iter().for_each(stop);
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
}

fn a_truncated_file_is_continued_at_its_beginning() {
    let folder = Folder::new();
    let file = folder.path("events.jsonl");
    let running = write_to(&file, "json");
    wait_for(&file, connection(), 4);
    // like logrotate's copytruncate
    fs::OpenOptions::new().write(true).open(&file).and_then(|file| file.set_len(0)).expect("truncate");
    let text = wait_for(&file, connection(), 4);
    stop(running);
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
}

crate::tests![
    a_second_run_appends_without_a_second_header,
    an_incomplete_last_line_is_terminated,
    two_tracers_share_a_file,
    a_truncated_file_is_continued_at_its_beginning,
];
