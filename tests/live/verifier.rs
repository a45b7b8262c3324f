//! The cost of verifying the programs: the kernel's verifier gives up at a million instructions.

use crate::common::{probes, tcptrace};

/// Far below the limit, so that growth is noticed early.
const MOST: u64 = 12_000;
/// The same with all options.
const MOST_OF_ALL: u64 = 26_000;

/// Parses libbpf's log: (program, instructions processed, states).
fn figures(log: &str) -> Vec<(&str, u64, u64)> {
    let mut program = "";
    let mut figures = Vec::new();
    for line in log.lines() {
        if let Some((name, _)) = line
            .strip_prefix("libbpf: prog '")
            .filter(|rest| rest.ends_with("BEGIN PROG LOAD LOG --"))
            .and_then(|rest| rest.split_once('\''))
        {
            program = name;
        }
        // processed 123 insns (limit 1000000) max_states_per_insn 4 total_states 12 peak_states 12 mark_read 3
        let words: Vec<&str> = line.split(' ').collect();
        if let ["processed", instructions, "insns", .., "total_states", states, _, _, _, _] = words[..] {
            let number = |word: &str| word.parse().expect("a number");
            figures.push((program, number(instructions), number(states)));
        }
    }
    figures
}

fn verify(arguments: &[&str], most: u64) {
    let output = tcptrace()
        .args(["-v", "--timeout", "1ms", "--probes", &probes()])
        .args(arguments)
        .output()
        .expect("start tcptrace");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    let figures = figures(&log);
    for (program, instructions, states) in &figures {
        println!("verifier: {program:20} {instructions:7} instructions {states:5} states");
        assert!(*instructions <= most, "{program}");
    }
    // Which two programs on the state tracepoint there are depends on the kernel.
    for (program, count) in [("on_exec", 1), ("on_state", 2)] {
        let found = figures.iter().filter(|(name, ..)| name.starts_with(program)).count();
        assert_eq!(found, count, "figures of {program}: {log}");
    }
}

fn programs_are_cheap_to_verify() {
    verify(&[], MOST);
}

/// Programs are verified only if they are needed, so this enables everything.
fn everything_optional_loads() {
    let filter = [
        "-b",
        "curl",
        "-b",
        "/usr/",
        "-u",
        "0",
        "--container",
        "0123456789ab",
        "--sport",
        "1",
        "--addr",
        "::1",
    ];
    verify(&[&["-e", "all"], &filter[..]].concat(), MOST_OF_ALL);
}

crate::tests![programs_are_cheap_to_verify, everything_optional_loads,];
