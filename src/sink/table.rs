//! Aligned columns for people.

use std::{io::Write, net::SocketAddr, time::Duration};

use owo_colors::{AnsiColors, OwoColorize};

use super::{
    Sink,
    names::{self, escape},
};
use crate::{
    enrich::Record,
    event::{Close, Direction, What},
};

/// Wide enough for `255.255.255.255:65535`; an IPv6 address moves the rest of its line.
const ENDPOINT: usize = 21;
const COMMAND: usize = 16;

/// Writes the table.
#[derive(Debug)]
pub struct Table {
    color: bool,
}

impl Table {
    /// With or without colour.
    pub fn new(color: bool) -> Self {
        Table { color }
    }
}

impl Sink for Table {
    fn begin(&mut self, out: &mut Vec<u8>) {
        line(out, "TIME", "EVENT".to_owned(), "PID", "COMMAND", "LOCAL", "REMOTE", "DETAILS");
    }

    fn write(&mut self, record: &Record, out: &mut Vec<u8>) {
        let event = &record.event;
        let (kind, color) = match event.what {
            What::Connect { .. } => ("connect", AnsiColors::Green),
            What::Accept { .. } => ("accept", AnsiColors::Cyan),
            What::Fail { .. } => ("fail", AnsiColors::Red),
            What::Close(_) => ("close", AnsiColors::Default),
        };
        let kind = format!("{kind:<7}");
        line(
            out,
            &clock(record.wall_ns),
            if self.color { kind.color(color).to_string() } else { kind },
            &event.owner.pid.to_string(),
            &escape(record.process.as_deref().map_or("?", |known| &known.process.filename)),
            &endpoint(event.local),
            &endpoint(event.remote),
            &details(record),
        );
    }
}

#[allow(clippy::too_many_arguments)]
fn line(
    out: &mut Vec<u8>,
    time: &str,
    kind: String,
    pid: &str,
    command: &str,
    local: &str,
    remote: &str,
    details: &str,
) {
    writeln!(
        out,
        "{time:<12} {kind:<7} {pid:>7} {command:<COMMAND$} {local:<ENDPOINT$} {remote:<ENDPOINT$} {details}",
    )
    .expect("a Vec takes everything");
}

/// Time of day in UTC, with milliseconds.
fn clock(wall_ns: i128) -> String {
    let millis = wall_ns.div_euclid(1_000_000).rem_euclid(86_400_000);
    let (seconds, millis) = (millis / 1000, millis % 1000);
    format!("{:02}:{:02}:{:02}.{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn endpoint(address: SocketAddr) -> String {
    address.to_string()
}

fn details(record: &Record) -> String {
    match &record.event.what {
        What::Connect { latency } => time(*latency),
        What::Accept { backlog: Some(backlog) } => format!("backlog {}/{}", backlog.len, backlog.max),
        What::Accept { backlog: None } => String::new(),
        What::Fail { error, latency } => format!("{} after {}", names::failure(*error), time(*latency)),
        What::Close(close) => closed(close, record),
    }
}

fn closed(close: &Close, record: &Record) -> String {
    let arrow = match close.direction {
        Direction::Egress => "out",
        Direction::Ingress => "in",
    };
    let mut text = format!(
        "{arrow} {} sent {} received {}",
        close.duration.map_or("?".to_owned(), time),
        bytes(close.bytes_sent),
        bytes(close.bytes_received),
    );
    if close.retransmits > 0 {
        text.push_str(&format!(" {} retransmitted", close.retransmits));
    }
    text.push(' ');
    text.push_str(&names::reason(close.reason));
    if let Some(closer) = &record.closer {
        text.push_str(&format!(" by {}[{}]", escape(&closer.process.filename), closer.process.pid));
    }
    text
}

/// Three digits and a unit.
fn time(duration: Duration) -> String {
    let us = duration.as_micros();
    match us {
        0..1000 => format!("{us}us"),
        1000..1_000_000 => format!("{:.1}ms", us as f64 / 1e3),
        _ => format!("{:.2}s", us as f64 / 1e6),
    }
}

/// Powers of 1000, as network people count.
fn bytes(count: u64) -> String {
    match count {
        0..1000 => format!("{count}B"),
        1000..1_000_000 => format!("{:.1}kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}MB", count as f64 / 1e6),
        _ => format!("{:.1}GB", count as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_a_person_reads() {
        assert_eq!(time(Duration::from_micros(999)), "999us");
        assert_eq!(time(Duration::from_micros(3400)), "3.4ms");
        assert_eq!(time(Duration::from_millis(61_500)), "61.50s");
        assert_eq!(bytes(999), "999B");
        assert_eq!(bytes(1_200_000), "1.2MB");
    }

    #[test]
    fn time_of_day() {
        assert_eq!(clock(86_399_999_000_000), "23:59:59.999");
        assert_eq!(clock(0), "00:00:00.000");
    }
}
