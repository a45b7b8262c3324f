//! The ready line, which scripts wait for too.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStderr},
};

/// Wait until tcptrace says that its probes are attached. What it says later can be read.
pub fn wait(child: &mut Child) -> BufReader<ChildStderr> {
    let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let mut said = String::new();
    while !said.lines().last().is_some_and(|line| line.starts_with("tcptrace: ready")) {
        assert!(stderr.read_line(&mut said).expect("text") > 0, "tcptrace did not start: {said}");
    }
    stderr
}
