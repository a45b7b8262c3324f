//! A [`Summary`] for people, and for programs.

use serde::Serialize;

use crate::{
    cli::Format,
    session::Lost,
    sink::{names::escape, units},
    summary::{Remote, Summary, Traffic},
};

/// How many processes and remote ends are shown.
const SHOWN: usize = 5;

/// Append it in a format; only table and JSON have a place for it.
pub fn put(summary: &Summary, format: Format, out: &mut Vec<u8>) {
    let lines = if format == Format::Json { vec![json(summary)] } else { lines(summary) };
    for line in lines {
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
}

/// In lines.
pub fn lines(summary: &Summary) -> Vec<String> {
    let mut lines = vec![first_line(summary)];
    if !summary.failures.is_empty() {
        let failures: Vec<String> =
            summary.failures.iter().map(|(error, count)| format!("{count} {error}")).collect();
        lines.push(format!("failed: {}", failures.join(", ")));
    }
    let processes: Vec<_> =
        summary.processes.top(SHOWN).into_iter().map(|(path, traffic)| (escape(path), traffic)).collect();
    table(&mut lines, "PROCESS", &processes, summary.processes.others());
    let remotes: Vec<_> =
        summary.remotes.top(SHOWN).into_iter().map(|(end, traffic)| (remote(end), traffic)).collect();
    table(&mut lines, "REMOTE", &remotes, summary.remotes.others());
    lines
}

fn first_line(summary: &Summary) -> String {
    let kinds: Vec<String> = summary.events.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
    format!("{} events{kinds} in {:.1} s", summary.total(), summary.elapsed.as_secs_f64())
}

fn remote(end: &Remote) -> String {
    match end.port {
        Some(port) => std::net::SocketAddr::new(end.address, port).to_string(),
        None => end.address.to_string(),
    }
}

fn table(lines: &mut Vec<String>, title: &str, rows: &[(String, Traffic)], others: Traffic) {
    if rows.is_empty() {
        return;
    }
    lines.push(format!("{:>11} {:>6} {:>9} {:>9}  {title}", "CONNECTIONS", "FAILED", "SENT", "RECEIVED"));
    let others = (others != Traffic::default()).then(|| ("(others)".to_owned(), others));
    for (name, traffic) in rows.iter().chain(&others) {
        lines.push(format!(
            "{:>11} {:>6} {:>9} {:>9}  {name}",
            traffic.connections(),
            traffic.failed,
            units::bytes(traffic.bytes_sent, false),
            units::bytes(traffic.bytes_received, false),
        ));
    }
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    duration_us: u64,
    events: &'a std::collections::BTreeMap<&'static str, u64>,
    failures: &'a std::collections::BTreeMap<String, u64>,
    processes: Vec<Row<ByProcess<'a>>>,
    remotes: Vec<Row<ByRemote>>,
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
struct ByRemote {
    addr: std::net::IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

/// One object.
fn json(summary: &Summary) -> String {
    fn row<K>(key: K, traffic: Traffic) -> Row<K> {
        Row {
            key,
            connections: traffic.connections(),
            failed: traffic.failed,
            bytes_sent: traffic.bytes_sent,
            bytes_received: traffic.bytes_received,
        }
    }
    let document = Document {
        kind: "Summary",
        duration_us: u64::try_from(summary.elapsed.as_micros()).unwrap_or(u64::MAX),
        events: &summary.events,
        failures: &summary.failures,
        processes: summary
            .processes
            .top(SHOWN)
            .into_iter()
            .map(|(path, traffic)| row(ByProcess { binary_path: path }, traffic))
            .collect(),
        remotes: summary
            .remotes
            .top(SHOWN)
            .into_iter()
            .map(|(end, traffic)| row(ByRemote { addr: end.address, port: end.port }, traffic))
            .collect(),
        lost: &summary.lost,
    };
    serde_json::to_string(&document).expect("strings and numbers always serialise")
}
