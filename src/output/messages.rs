//! Messages on stderr: the ready line, the summary, and losses.

use std::{ffi::OsStr, io::Write};

use super::{
    summary::Summary,
    summary_render::{self, LineWidth},
    vocabulary::escape,
};
use crate::source::{CONNECTIONS_MAX, Lost};

/// Writes a message of one or more lines with a single write. Untrusted text in it is escaped. Errors on stderr are
/// ignored.
pub fn line(to: &mut impl Write, text: &str) {
    let text = text.split('\n').map(escape).collect::<Vec<_>>().join("\n");
    let _ = to.write_all(format!("tcptrace: {text}\n").as_bytes());
}

/// Writes libbpf's log unchanged.
pub fn log(to: &mut impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes());
}

/// Reports that the probes are attached: every event from here on is captured.
pub fn ready(to: &mut impl Write, probe_set: &str, notes: &[String], command: Option<&OsStr>) {
    for note in notes {
        line(to, note);
    }
    let next = match command {
        Some(program) => format!("running {}", program.to_string_lossy()),
        None => "Ctrl-C to stop".to_owned(),
    };
    line(to, &format!("ready ({probe_set} probes); {next}"));
}

/// For `--verbose`: counts of records that are not events.
pub fn figures(to: &mut impl Write, summary: &Summary) {
    line(to, &format!("{} process records read", summary.images));
}

/// Prints the summary unless `quiet`, and losses in any case.
pub fn summary(to: &mut impl Write, summary: &Summary, quiet: bool, width: LineWidth) {
    if !quiet {
        let _ = to.write_all(summary_render::text(summary, width, "tcptrace: ").as_bytes());
    }
    for loss in losses(&summary.lost) {
        line(to, &loss);
    }
}

/// One sentence for each cause of losses, with the remedy.
fn losses(lost: &Lost) -> Vec<String> {
    let table_full = format!("connections lost: more than {CONNECTIONS_MAX} were open at once");
    let causes = [
        (lost.ring, "events lost: the ring was full (use a larger --ring-size, a filter or a faster reader)"),
        (lost.table, table_full.as_str()),
        (
            lost.process,
            "process records lost: the ring was full or memory was short (their events show only the pid)",
        ),
        (lost.follow, "processes of the command lost: out of memory while following them"),
        (lost.missed, "events lost: the kernel skipped a probe"),
        (lost.answers, "DNS answers not read: the ring was more than half full (names may be missing)"),
        (lost.bad_answers, "DNS answers ignored: malformed"),
        (lost.undecodable, "records could not be decoded: this is a bug, please report it"),
        (lost.undelivered, "events lost: the reader of the output had stopped reading"),
    ];
    causes.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_reported_even_when_quiet() {
        let summary_of = |lost| {
            let mut text = Vec::new();
            let width = LineWidth { columns: None, cut: "..." };
            summary(&mut text, &Summary { lost, ..Summary::default() }, true, width);
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
