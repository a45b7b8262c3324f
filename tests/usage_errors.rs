//! Errors in the command line end tcptrace with status 2 and show the position.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tcptrace")).args(arguments).output().expect("run tcptrace")
}

#[test]
fn errors_are_usage_errors_with_a_position() {
    let folder = tempfile::tempdir().expect("a folder");
    let yaml = folder.path().join("bad.yaml");
    std::fs::write(&yaml, "egress:\n  rules:\n  - rule: r\n    event: prot_dst == 1\n").expect("write");
    let name = yaml.to_str().expect("UTF-8");
    let place = format!("tcptrace: {name}:4:12: unknown attribute");
    for (arguments, part) in [
        (&["prot == 1"][..], "did you mean `port`?"),
        (&["port in [1, 2"], "unmatched `[`"),
        (&["port == 1 AND port_src == 2 AND port_dst == 3"], "can ever match"),
        (&["-c", name], &place),
        (&["--dport", "70000"], "out of range"),
        (&["--addr", "10.0.0.0/40"], "0 to 32"),
        (&["-b", "a/b"], "begins with a slash; give the whole path of \"a/b\""),
        (&["--deny"], "nothing to deny"),
        (&["--deny", "-p", "1"], "for a pid, use FILTER: 'pid != 123'"),
        (&["--failed", "-e", "connect,close"], "--failed shows only fail events"),
        (&["--failed", "--snapshot"], "cannot be used with"),
        // binary_name == "curl" without the quotes, which the shell removes
        (&["binary_name", "==", "curl"], "quote the whole filter"),
        (&["--no-dns", "dns == \"one.example\""], "--no-dns disables"),
    ] {
        let output = run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(part), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn formats_without_a_summary_are_rejected() {
    assert_eq!(run(&["--summary-only", "-f", "csv"]).status.code(), Some(2));
}
