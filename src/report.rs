//! What is said on stderr: the ready line, the summary, and every loss.

use std::{ffi::OsStr, io::Write};

use crate::{
    bpf::{ProbeSet, layout::netmon_limit},
    digest::{self, Room},
    session::Lost,
    sink::names::escape,
    summary::Summary,
};

/// One line, in one write. That stderr takes it is more than we can ask.
pub fn line(to: &mut impl Write, text: &str) {
    let _ = to.write_all(format!("tcptrace: {text}\n").as_bytes());
}

/// libbpf's own log, as it is.
pub fn log(to: &mut impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes());
}

/// Probes are attached: everything from here on is seen.
pub fn ready(to: &mut impl Write, set: ProbeSet, notes: &[String], verbose: bool, command: Option<&OsStr>) {
    let name = match set {
        ProbeSet::Trampoline => "trampoline",
        ProbeSet::Tracepoint => "tracepoint",
    };
    if verbose {
        let which = if set == ProbeSet::Tracepoint { "without" } else { "with" };
        line(to, &format!("{which} BPF trampolines these are not seen: {}", set.limits().join("; ")));
    } else if set == ProbeSet::Tracepoint {
        // Rare enough for few words, which leave a terminal's first lines to the events.
        line(to, "without BPF trampolines some io_uring, Fast Open and 32-bit cases are not seen (-v)");
    }
    for note in notes {
        line(to, note);
    }
    let next = match command {
        Some(program) => format!("running {}", escape(&program.to_string_lossy())),
        None => "Ctrl-C to stop".to_owned(),
    };
    line(to, &format!("ready ({name} probes); {next}"));
}

/// For `--verbose`: what came that is no event.
pub fn figures(to: &mut impl Write, summary: &Summary) {
    line(to, &format!("{} process records read", summary.images));
}

/// What happened, and what was lost. Losses are told even when nothing else is.
pub fn summary(to: &mut impl Write, summary: &Summary, quiet: bool, room: Room) {
    if !quiet {
        let _ = to.write_all(digest::text(summary, room, "tcptrace: ").as_bytes());
    }
    for loss in losses(&summary.lost) {
        line(to, &loss);
    }
}

// The number in TABLE_LOST.
const _: () = assert!(netmon_limit::NETMON_CONNECTIONS_MAX.0 == 1_048_576);
const TABLE_LOST: &str = "connections lost: more than 1048576 were open at a time";

/// One sentence for each cause that lost something, with the remedy.
fn losses(lost: &Lost) -> Vec<String> {
    let causes = [
        (
            lost.ring,
            "events lost: the ring was full (a larger --ring-size, a filter or a faster reader helps)",
        ),
        (lost.table, TABLE_LOST),
        (
            lost.process,
            "process records lost: the ring was full or memory short (their events show the pid only)",
        ),
        (lost.follow, "processes of the command lost: no memory to follow them"),
        (lost.missed, "events lost: the kernel skipped a probe that was already running on that CPU"),
        (lost.answers, "DNS answers not read: the ring was more than half full (names may be missing)"),
        (lost.bad_answers, "DNS answers not understood: damaged or hostile (no names were taken from them)"),
        (lost.undecodable, "records not understood: this is a bug, please report it"),
        (lost.undelivered, "events lost: the reader of the output had stopped"),
    ];
    causes.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told_even_when_quiet() {
        let summary_of = |lost| {
            let mut text = Vec::new();
            let room = Room { columns: None, cut: "..." };
            summary(&mut text, &Summary { lost, ..Summary::default() }, true, room);
            String::from_utf8(text).expect("text")
        };
        assert_eq!(summary_of(Lost::default()), "");
        let all = Lost {
            ring: 1,
            table: 2,
            process: 3,
            follow: 4,
            missed: 5,
            answers: 6,
            undecodable: 7,
            bad_answers: 8,
            undelivered: 9,
        };
        let text = summary_of(all);
        for count in 1..=9 {
            assert!(text.contains(&format!("tcptrace: {count} ")), "{count} in {text}");
        }
    }
}
