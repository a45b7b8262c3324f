//! Arguments of processes.

use std::{
    ffi::{OsStr, OsString},
    os::unix::{ffi::OsStrExt, process::CommandExt},
};

use crate::{common::actor::Actor, support::*};

/// Bytes of argv kept by the kernel side.
const KEPT: usize = 8192;

fn arguments_of_all_kinds() {
    let program = this_program();
    let port = open_door();
    let script = format!("connect {port}");
    let mut trace = watch_connects();
    let long = |length: usize| vec![OsString::from("x".repeat(length))];
    let bytes = |bytes: &[u8]| vec![OsStr::from_bytes(bytes).to_owned()];
    let head = KEPT - program.as_os_str().len() - 1;
    for (arguments, expected) in [
        (vec![], String::new()),
        (vec!["".into()], String::new()),
        (vec!["a".into(), "".into(), "b c".into(), "".into()], "a  b c ".to_owned()),
        (bytes(b"\xff\xfe and \xc3\xa9"), "\u{fffd}\u{fffd} and é".to_owned()),
        (bytes(b"\x1b[31m\r\n\t\x7f\\\""), "\u{1b}[31m\r\n\t\u{7f}\\\"".to_owned()),
        (long(4096), "x".repeat(4096)),
        // Exactly as much as is kept, and one byte more, so that the last NUL is missing.
        (long(head - 1), "x".repeat(head - 1)),
        (long(head), "x".repeat(head) + "..."),
        (long(128 * 1024 - 1), "x".repeat(head) + "..."), // MAX_ARG_STRLEN
        (vec!["é".repeat(KEPT).into()], "é".repeat(head / 2) + "..."),
        (vec!["y".into(); 64 * 1024], "y ".repeat(head / 2) + if head % 2 == 1 { "y..." } else { "..." }),
    ] {
        let pid = run(&program, &arguments, &script);
        let event = event_of(&mut trace, pid);
        let args = event["process"]["args"].as_str().expect("args");
        assert!(args == expected, "{} bytes of args for {}: {args:.200?}", args.len(), expected.len());
    }

    // If argv is empty, without even the program's name, the kernel inserts an empty string.
    let pid = run(&program, &["a", "b"], &format!("exec-bare {}\n{script}", program.display()));
    let event = event_of(&mut trace, pid);
    assert_eq!(event["process"]["args"], "");

    // A name with a blank is not a title.
    let mut command = Actor::program(&program, &script);
    let actor = Actor::spawn(command.arg0("a program"));
    let event = event_of(&mut trace, actor.pid());
    assert_eq!(event["process"]["args"], "");
    actor.leave();
}

/// setproctitle(3), before the first connection, in a process and in its parent.
fn a_process_title_is_reported_as_args() {
    let port = open_door();
    let mut trace = watch_connects();
    for title in ["server:_worker_process", &"long_".repeat(100)] {
        let script = format!("title {title}\nconnect {port}\nfork\nconnect {port}\nsay done\nhear");
        let mut actor = Actor::spawn(Actor::program(this_program(), &script).arg("--option"));
        let pid = actor.pid();
        actor.hear();
        trace.wait("both events", |events| events.iter().any(|event| event["process"]["ppid"] == pid));
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).expect("cmdline");
        let cmdline_text = String::from_utf8_lossy(&cmdline).trim_end_matches('\0').to_owned();
        assert!(cmdline_text.starts_with(&title.replace('_', " ")), "{cmdline_text}");
        for event in events_of(&mut trace, pid, 1) {
            assert_eq!(event["process"]["args"], cmdline_text);
        }
        let child = trace.events.iter().find(|event| event["process"]["ppid"] == pid).expect("found");
        assert_eq!(child["parent"]["args"], cmdline_text);
        actor.tell("end");
        actor.leave();
    }
}

crate::tests![arguments_of_all_kinds, a_process_title_is_reported_as_args,];
