//! The odr format: network_connection records for a Nemesis server.

use std::{io::Write, net::SocketAddr, time::SystemTime};

use serde::Serialize;

use super::{sink::Sink, vocabulary};
use crate::record::Record;

/// The metadata of an envelope. The server rejects all other keys.
#[derive(Debug, Clone)]
pub struct Metadata {
    /// The id of this host; by default its machine id.
    pub agent_id: String,
    /// The kind of agent that collects the data.
    pub agent_type: String,
    /// The project the data belongs to.
    pub project: String,
    /// The hostname of this host.
    pub source: String,
    /// When the data may be deleted.
    pub expiration: SystemTime,
}

/// How records are put into envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One envelope per record, one per line.
    Lines,
    /// All records in one envelope, with this time.
    Document {
        /// The time in nanoseconds since 1970.
        wall_ns: i128,
    },
}

/// The sink of the odr format.
#[derive(Debug)]
pub struct Odr {
    metadata: Metadata,
    shape: Framing,
    empty: bool,
}

#[derive(Serialize)]
struct Envelope<'a> {
    data: [Connection<'a>; 1],
    metadata: MetadataObject<'a>,
}

#[derive(Serialize)]
struct MetadataObject<'a> {
    agent_id: &'a str,
    agent_type: &'a str,
    automated: bool,
    data_type: &'static str,
    expiration: String,
    source: &'a str,
    project: &'a str,
    timestamp: String,
}

#[derive(Serialize)]
struct Connection<'a> {
    local_address: SocketAddr,
    remote_address: SocketAddr,
    protocol: &'static str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    process_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
}

impl Odr {
    /// A sink with this metadata.
    pub fn new(metadata: Metadata, shape: Framing) -> Self {
        Odr { metadata, shape, empty: true }
    }
}

impl Sink for Odr {
    fn begin(&mut self, out: &mut Vec<u8>) {
        if let Framing::Document { wall_ns } = self.shape {
            out.extend_from_slice(b"{\"metadata\":");
            put(&self.metadata.object(wall_ns), out);
            out.extend_from_slice(b",\"data\":[\n");
        }
    }

    fn write(&mut self, record: &Record, out: &mut Vec<u8>) {
        if self.shape == Framing::Lines {
            let metadata = self.metadata.object(record.wall_ns);
            put(&Envelope { data: [connection(record)], metadata }, out);
            out.push(b'\n');
            return;
        }
        if !std::mem::take(&mut self.empty) {
            out.extend_from_slice(b",\n");
        }
        put(&connection(record), out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.shape != Framing::Lines {
            out.extend_from_slice(b"\n]}\n");
        }
    }
}

impl Metadata {
    fn object(&self, wall_ns: i128) -> MetadataObject<'_> {
        MetadataObject {
            agent_id: &self.agent_id,
            agent_type: &self.agent_type,
            automated: true,
            data_type: "network_connection",
            expiration: expiration(self.expiration),
            source: &self.source,
            project: &self.project,
            timestamp: vocabulary::time(wall_ns),
        }
    }
}

/// The server parses this with `%Y-%m-%dT%H:%M:%S.000Z`, so the milliseconds must be zeros.
fn expiration(time: SystemTime) -> String {
    let seconds = humantime::format_rfc3339_seconds(time).to_string();
    format!("{}.000Z", seconds.trim_end_matches('Z'))
}

fn connection(record: &Record) -> Connection<'_> {
    let event = &record.event;
    let process = record.process.as_deref().map(|known| &known.process);
    Connection {
        local_address: event.local,
        remote_address: event.remote,
        protocol: if event.local.is_ipv4() { "tcp,ipv4" } else { "tcp,ipv6" },
        state: vocabulary::state(event.kind.state()),
        process_id: (event.owner.pid != 0).then_some(event.owner.pid),
        process_name: process.map(|process| process.filename.as_str()),
        service: process.and_then(|process| process.unit.as_deref()),
    }
}

fn put(value: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out.by_ref(), value).expect("strings and numbers always serialise");
}
