//! The summary, and the schema of everything that `--json` prints.

use std::{fs, process::Stdio};

use crate::common::{
    self, Trace,
    net::{self, Pair, V4},
    schema, tcptrace,
};
use serde_json::{Value, json};

/// The output of a run with `-- sh -c SCRIPT`.
fn run(options: &[&str], script: &str) -> (String, String) {
    let output = tcptrace()
        .args(["--probes", &common::probes(), "-o", "-"])
        .args(options)
        .args(["--", "sh", "-c", script])
        .stdin(Stdio::null())
        .output()
        .expect("run tcptrace");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (text(&output.stdout), text(&output.stderr))
}

/// A server for two connections, and a port on which nothing listens.
fn two_connections_and_a_failure() -> (String, u16) {
    let listener = net::listen(V4);
    let port = listener.local_addr().expect("an address").port();
    let nobody = Pair::new(V4).port();
    std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().expect("accept");
            std::io::Write::write_all(&mut stream, &[b'x'; 1500]).expect("send");
            net::half_close(&stream);
            net::wait_for_end(&mut stream);
        }
    });
    let to = |port| format!("busybox nc 127.0.0.1 {port} >/dev/null; ");
    (to(port) + &to(port) + &to(nobody), port)
}

fn only_the_summary_as_json() {
    let (script, port) = two_connections_and_a_failure();
    let (stdout, _) = run(&["--summary-only", "-j"], &script);
    let summary: Value = serde_json::from_str(&stdout).expect("one JSON object");
    schema::check(&summary);
    assert_eq!(summary["events"], json!({"connect": 2, "close": 2, "fail": 1}));
    assert_eq!(summary["failures"], json!({"ECONNREFUSED": 1}));
    let busybox = fs::canonicalize("/bin/busybox").expect("busybox");
    assert_eq!(
        summary["processes"],
        json!([{
            "binary_path": busybox,
            "connections": 2, "failed": 1, "bytes_sent": 0, "bytes_received": 3000
        }])
    );
    assert_eq!(
        summary["remotes"][0],
        json!({
            "addr": "127.0.0.1", "port": port,
            "connections": 2, "failed": 0, "bytes_sent": 0, "bytes_received": 3000
        })
    );
    assert!(summary["lost"].as_object().is_some_and(|lost| lost.values().all(|count| count == 0)));
}

fn only_the_summary_as_a_table() {
    let (script, port) = two_connections_and_a_failure();
    let (stdout, stderr) = run(&["--summary-only"], &script);
    assert!(stdout.starts_with("5 events in "), "{stdout}");
    assert!(stdout.contains(": 2 connect, 2 close, 1 fail\nfailed: 1 ECONNREFUSED\n"), "{stdout}");
    assert!(stdout.contains("          2       1       0 B    3.0 kB  "), "{stdout}");
    assert!(
        stdout.contains(&format!("          2       0       0 B    3.0 kB  127.0.0.1:{port}\n")),
        "{stdout}"
    );
    assert!(!stderr.contains("events in"), "printed once: {stderr}");
}

fn the_summary_follows_the_events_on_stderr() {
    let (script, _) = two_connections_and_a_failure();
    let (stdout, stderr) = run(&[], &script);
    assert_eq!(stdout.lines().count(), 6, "{stdout}");
    assert!(stderr.contains("tcptrace: 5 events in "), "{stderr}");
    assert!(
        stderr.contains(": 2 connect, 2 close, 1 fail\ntcptrace: failed: 1 ECONNREFUSED\n\n"),
        "{stderr}"
    );
    assert!(stderr.contains("\nCONNECTIONS  FAILED      SENT  RECEIVED  REMOTE\n"), "{stderr}");
}

fn the_schema_is_strict() {
    let mut trace = Trace::start(&[]);
    let pair = Pair::new(V4);
    let port = pair.port();
    drop(pair);
    let events = trace.wait_port(port, 4);
    trace.stop();
    for event in &events {
        assert!(schema::allows(event), "{event}");
        for part in ["", "/process", "/network_event"] {
            let mut more = event.clone();
            more.pointer_mut(part).expect("a part")["unheard_of"] = json!(1);
            assert!(!schema::allows(&more), "{more}");
            let keys: Vec<String> =
                event.pointer(part).and_then(Value::as_object).expect("an object").keys().cloned().collect();
            for key in
                keys.iter().filter(|key| !["backlog", "duration_us", "latency_us"].contains(&key.as_str()))
            {
                let mut less = event.clone();
                less.pointer_mut(part).and_then(Value::as_object_mut).expect("an object").remove(key);
                assert!(!schema::allows(&less), "without {key}: {less}");
            }
        }
    }
}

crate::tests![
    only_the_summary_as_json,
    only_the_summary_as_a_table,
    the_summary_follows_the_events_on_stderr,
    the_schema_is_strict,
];
