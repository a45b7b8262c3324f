//! Renders a [`Summary`] as text or as JSON.

use std::{collections::BTreeMap, hash::Hash, num::NonZero, rc::Rc};

use serde::Serialize;

use super::{
    summary::{Remote, Summary, Tally, Traffic},
    text::{endpoint, shorten, width},
    units,
    vocabulary::{self, escape},
};
use crate::source::Lost;

/// How many processes and remote ends are shown.
const SHOWN: usize = 5;

/// These kinds come first, in the order of a connection's life.
const KINDS: [&str; 4] = ["connect", "accept", "close", "fail"];

/// The width of a line, and the mark for omitted text.
#[derive(Debug, Clone, Copy)]
pub struct LineWidth {
    /// The maximum number of columns; none for no limit.
    pub columns: Option<usize>,
    /// The mark for omitted text.
    pub cut: &'static str,
}

/// Renders the summary as text; each sentence starts with `speaker`.
pub fn text(summary: &Summary, line: LineWidth, speaker: &str) -> String {
    // The terminal may have echoed ^C on this line.
    let start = line.columns.map(|_| String::new());
    let sentences = sentences(summary).into_iter().map(|text| format!("{speaker}{text}"));
    let lines = start.into_iter().chain(sentences).chain(tables(summary, line));
    lines.map(|line| line + "\n").collect()
}

/// The event counts in one or two sentences.
fn sentences(summary: &Summary) -> Vec<String> {
    let mut kinds: Vec<_> = summary.events.iter().collect();
    kinds.sort_by_key(|(name, _)| KINDS.iter().position(|kind| kind == *name).unwrap_or(KINDS.len()));
    let total = summary.total();
    let events = if total == 1 { "event" } else { "events" };
    let lasted = units::Time(summary.elapsed, false);
    let mut lines = vec![format!("{total} {events} in {lasted}{}", list(": ", kinds))];
    if !summary.failures.is_empty() {
        let failures = failures(summary);
        let mut failures: Vec<_> = failures.iter().collect();
        failures.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        lines.push(format!("failed{}", list(": ", failures)));
    }
    lines
}

/// The number of failures by name of the error.
fn failures(summary: &Summary) -> BTreeMap<String, u64> {
    summary.failures.iter().map(|(error, count)| (vocabulary::failure(*error).to_string(), *count)).collect()
}

fn list<T: std::fmt::Display>(before: &str, counts: Vec<(T, &u64)>) -> String {
    let counts: Vec<String> = counts.into_iter().map(|(name, count)| format!("{count} {name}")).collect();
    if counts.is_empty() { String::new() } else { format!("{before}{}", counts.join(", ")) }
}

/// The tables of processes and remote ends, each after an empty line.
fn tables(summary: &Summary, line: LineWidth) -> Vec<String> {
    let processes = summary.processes.top(SHOWN).into_iter();
    let processes =
        processes.map(|(path, traffic)| (traffic, Name::Path(escape(path).into_owned()))).collect();
    let remotes = summary.remotes.top(SHOWN).into_iter();
    let remotes = remotes
        .map(|(end, traffic)| (traffic, Name::End(*end, summary.names.get(&end.address).cloned())))
        .collect();
    [
        table("PROCESS", processes, summary.processes.others(), line),
        table("REMOTE", remotes, summary.remotes.others(), line),
    ]
    .concat()
}

/// The key of a row.
enum Name {
    Path(String),
    End(Remote, Option<Rc<str>>),
    Others,
}

impl Name {
    fn put(&self, line: &mut String, room: usize, cut: &str) {
        match self {
            Name::Path(path) => shorten(line, path, room, cut),
            Name::End(Remote { address, port: Some(port) }, name) => {
                let address = address.to_string();
                let Some(name) = name else { return endpoint(line, &address, *port, room, cut) };
                let both = format!("{name}:{port} ({address})");
                if width(&both) <= room {
                    line.push_str(&both)
                } else {
                    endpoint(line, name, *port, room, cut)
                }
            }
            Name::End(Remote { address, port: None }, _) => shorten(line, &address.to_string(), room, cut),
            Name::Others => line.push_str("(others)"),
        }
    }
}

fn table(title: &str, mut rows: Vec<(Traffic, Name)>, others: Traffic, line: LineWidth) -> Vec<String> {
    if rows.is_empty() {
        return Vec::new();
    }
    if others != Traffic::default() {
        rows.push((others, Name::Others));
    }
    let figures = |[connections, failed, sent, received]: [&str; 4]| {
        format!("{connections:>11}  {failed:>6}  {sent:>8}  {received:>8}  ")
    };
    let header = figures(["CONNECTIONS", "FAILED", "SENT", "RECEIVED"]);
    let left = line.columns.map_or(usize::MAX, |columns| columns.saturating_sub(header.len()));
    let rows = rows.iter().map(|(traffic, name)| {
        let mut row = figures([
            &traffic.connections().to_string(),
            &traffic.failed.to_string(),
            &units::Bytes(traffic.bytes_sent, false).to_string(),
            &units::Bytes(traffic.bytes_received, false).to_string(),
        ]);
        name.put(&mut row, left, line.cut);
        row
    });
    [String::new(), format!("{header}{title}")].into_iter().chain(rows).collect()
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    duration_us: u64,
    events: &'a BTreeMap<&'static str, u64>,
    failures: BTreeMap<String, u64>,
    processes: Vec<Row<ByProcess<'a>>>,
    remotes: Vec<Row<ByRemote<'a>>>,
    lost: &'a Lost,
}

#[derive(Serialize)]
struct Row<K> {
    #[serde(flatten)]
    key: K,
    connections: u64,
    failed: u64,
    bytes_sent: u64,
    bytes_received: u64,
}

#[derive(Serialize)]
struct ByProcess<'a> {
    binary_path: &'a str,
}

#[derive(Serialize)]
struct ByRemote<'a> {
    addr: std::net::IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    ifindex: Option<NonZero<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<&'a str>,
}

/// Renders the summary as one JSON object.
pub fn json(summary: &Summary) -> String {
    let remote = |end: &Remote| ByRemote {
        addr: end.address.address,
        ifindex: end.address.zone,
        port: end.port,
        dns: summary.names.get(&end.address).map(|name| &**name),
    };
    let document = Document {
        kind: "Summary",
        duration_us: u64::try_from(summary.elapsed.as_micros()).unwrap_or(u64::MAX),
        events: &summary.events,
        failures: failures(summary),
        processes: rows(&summary.processes, |path| ByProcess { binary_path: path }),
        remotes: rows(&summary.remotes, remote),
        lost: &summary.lost,
    };
    serde_json::to_string(&document).expect("strings and numbers always serialise")
}

fn rows<'a, K: Eq + Hash + Ord, R>(tally: &'a Tally<K>, key: impl Fn(&'a K) -> R) -> Vec<Row<R>> {
    let top = tally.top(SHOWN).into_iter();
    top.map(|(who, traffic)| Row {
        key: key(who),
        connections: traffic.connections(),
        failed: traffic.failed,
        bytes_sent: traffic.bytes_sent,
        bytes_received: traffic.bytes_received,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::errno::Errno;

    use super::*;
    use crate::event::{Failure, Zoned};

    fn on(address: &str, zone: Option<u32>) -> Zoned {
        Zoned { address: address.parse().expect("an address"), zone: zone.and_then(NonZero::new) }
    }

    fn summary() -> Summary {
        let mut summary = Summary { elapsed: Duration::from_millis(3_661_000), ..Summary::default() };
        summary.events.extend([("fail", 3), ("accept", 1), ("state", 9), ("close", 2), ("connect", 1)]);
        summary.failures.extend(
            [(Errno::ECONNREFUSED, 1), (Errno::ETIMEDOUT, 2)]
                .map(|(error, count)| (Failure::Errno(error), count)),
        );
        let did =
            Traffic { opened: 1, bytes_sent: 999_999, bytes_received: 123_456_789, ..Traffic::default() };
        summary.processes.insert("/usr/lib/jvm/java-25-openjdk-amd64/bin/java".to_owned(), did);
        let ends = [
            ("2001:db8:81a6:3f56:3fd6:26ed:b655:ec7a", Some(65_535)),
            ("192.0.2.1", Some(443)),
            ("::1", None),
        ];
        for (address, port) in ends {
            summary.remotes.insert(Remote { address: on(address, None), port }, did);
        }
        summary.names.insert(on("192.0.2.1", None), "www.example".into());
        summary
    }

    #[test]
    fn a_link_local_end_has_its_zone() {
        let mut summary = summary();
        for zone in [3, 4] {
            summary
                .remotes
                .insert(Remote { address: on("fe80::1", Some(zone)), port: Some(80) }, Traffic::default());
        }
        let text = text(&summary, LineWidth { columns: None, cut: ".." }, "");
        assert!(text.contains("[fe80::1%3]:80") && text.contains("[fe80::1%4]:80"), "{text}");
        let json = json(&summary);
        assert!(json.contains(r#"{"addr":"fe80::1","ifindex":3,"port":80,"#), "{json}");
    }

    #[test]
    fn kinds_come_in_the_order_of_a_connection_and_failures_by_number() {
        assert_eq!(
            sentences(&summary()),
            [
                "16 events in 1h01m: 1 connect, 1 accept, 2 close, 3 fail, 9 state",
                "failed: 2 ETIMEDOUT, 1 ECONNREFUSED"
            ]
        );
        let one = Summary { events: [("close", 1)].into(), ..Summary::default() };
        assert_eq!(sentences(&one), ["1 event in 0 us: 1 close"]);
        assert_eq!(sentences(&Summary::default()), ["0 events in 0 us"]);
    }

    #[test]
    fn rows_fit_and_show_full_ports() {
        let wide = tables(&summary(), LineWidth { columns: None, cut: "…" }).join("\n");
        for whole in [
            "          1       0    1.0 MB  123.5 MB  /usr/lib/jvm/java-25-openjdk-amd64/bin/java\n",
            "  [2001:db8:81a6:3f56:3fd6:26ed:b655:ec7a]:65535",
            "  www.example:443 (192.0.2.1)",
            "  ::1\n",
        ] {
            assert!(wide.contains(whole), "{whole} in {wide}");
        }
        for columns in [60, 72, 80] {
            let lines = tables(&summary(), LineWidth { columns: Some(columns), cut: "…" });
            assert!(lines.iter().all(|line| width(line) <= columns), "{lines:#?}");
            assert!(lines.iter().any(|line| line.ends_with("]:65535")), "{lines:#?}");
            assert!(lines.iter().any(|line| line.contains(":443")), "{lines:#?}");
        }
    }
}
