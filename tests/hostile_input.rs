//! Filters and configurations that are large, deeply nested or full of control characters are refused with a short
//! message.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

/// The message of a usage error.
fn refused(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
        .args(["--timeout", "1ms"])
        .args(arguments)
        .output()
        .expect("run tcptrace");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    let start: String = stderr.chars().take(500).collect();
    assert_eq!(output.status.code(), Some(2), "{start}");
    assert!(stderr.starts_with("tcptrace: ") && stderr.len() < 4096, "{start}");
    assert!(stderr.chars().all(|c| c == '\n' || !c.is_control()), "{start:?}");
    stderr
}

fn refused_config(folder: &Path, text: &str) -> String {
    let file = folder.join("config.yaml");
    fs::write(&file, text).expect("write");
    refused(&["-c", file.to_str().expect("UTF-8")])
}

/// As an argument (each is limited to 128 KB, but the words of a filter are joined), and as a line of a configuration.
#[test]
fn a_large_predicate() {
    let folder = tempfile::tempdir().expect("a folder");
    let word = "port == 1 OR ".repeat(8000);
    let mut words = vec![word.as_str(); 10];
    words.push("prot == 1");
    assert!(refused(&words).contains("unknown attribute `prot`"));
    for (start, part, end, message) in [
        ("", "(", "", "nest deeper than 64"),
        ("", "NOT ", "", "expected a comparison"),
        ("", "NOT (", "", "nest deeper than 64"),
        ("port in ", "[", "", "a list must follow `in`"),
        ("binary_name == \\\"", "a", "\\\"", "the limit is 254"),
        ("", "a", "", "unknown attribute"),
        ("port == ", "9", "", "`99999"),
        ("port == 1", " AND port == 1", " AND port == 2", "more than 256 terms"),
        ("uid == 0", " AND (uid == 1 OR gid == 2)", "", "more than 256 terms"),
        ("", "(uid == 0 AND gid == 1) OR ", "uid == 0 AND (uid == 1", "unmatched `(`"),
    ] {
        let text =
            format!("egress:\n  rules:\n  - rule: r\n    event: \"{start}{}{end}\"\n", part.repeat(100_000));
        assert!(text.len() >= 100_000);
        let said = refused_config(folder.path(), &text);
        assert!(said.contains(message), "{part:?}: {said}");
    }
}

#[test]
fn a_large_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let large = folder.path().join("large.yaml");
    File::create(&large).and_then(|file| file.set_len(100 << 20)).expect("a file of 100 MB");
    for file in [large.to_str().expect("UTF-8"), "/dev/zero"] {
        assert!(refused(&["-c", file]).contains("larger than 16 MB"), "{file}");
    }
    // Just below the limit, and almost only a list.
    let text = format!("process_filter:\n  uid: [{}x]\n", "1,".repeat(2_000_000));
    let said = refused_config(folder.path(), &text);
    assert!(said.contains("\"x\" is not a number"), "{said}");
}

#[test]
fn anchors_and_aliases_are_rejected() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..10 {
        let before = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", [before.as_str(); 9].join(","));
    }
    assert!(refused_config(folder.path(), &bomb).contains("anchors and aliases are not supported"));
    for (part, message) in
        [("[", "recursion limit"), ("{a: ", "recursion limit"), ("- ", "nested too deeply"), ("? ", "")]
    {
        let said = refused_config(folder.path(), &part.repeat(100_000));
        assert!(said.contains(message), "{part:?}: {said}");
    }
    let deep: String = (0..5_000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    refused_config(folder.path(), &deep);
}

#[test]
fn control_characters_in_messages() {
    let folder = tempfile::tempdir().expect("a folder");
    let evil = "\u{1b}[2J\u{202e}\u{9b}31m\r";
    for arguments in
        [&[evil][..], &["-c", evil], &["-b", &format!("a/{evil}")], &["--cgroup", evil], &["--netns", evil]]
    {
        let said = refused(arguments);
        assert!(!said.contains('\u{202e}'), "{said:?}");
    }
    let evil = "\\e[2J\\u202e\\x9b";
    for text in [
        format!("\"{evil}\": 1\n"),
        format!("egress: \"{evil}\"\n"),
        format!("egress:\n  enabled: \"{evil}\"\n"),
        format!("egress:\n  rules:\n  - rule: \"{evil}\"\n    event: uid == 1 AND uid == 2\n"),
        format!("egress:\n  rules:\n  - rule: r\n    event: \"{evil}\"\n"),
    ] {
        let said = refused_config(folder.path(), &text);
        assert!(!said.contains('\u{202e}'), "{said:?}");
    }
    fs::write(folder.path().join("bytes"), b"\xff\xfe\x1b[2J").expect("write");
    refused(&["-c", folder.path().join("bytes").to_str().expect("UTF-8")]);
}
