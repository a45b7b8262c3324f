//! The object `network_event`.

use std::net::IpAddr;

use super::encode::{put, text};
use crate::{
    event::{Backlog, EventKind},
    output::{
        community_id,
        fields::{FIELDS, Scalar},
        vocabulary,
    },
    record::Record,
};

/// What happened, as an object.
pub fn network_event(record: &Record, with_community_id: bool, out: &mut Vec<u8>) {
    let event = &record.event;
    let kind = &event.kind;
    if let EventKind::Request = kind {
        return net_tcp_connect(record, out);
    }
    put(out, format_args!("{{\"type\":\"{}\"", vocabulary::type_name(kind)));
    end(out, ["saddr", "sport"], event.local.ip(), event.local.port());
    end(out, ["daddr", "dport"], event.remote.ip(), event.remote.port());
    put(
        out,
        format_args!(
            ",\"cookie\":{},\"connection\":\"{}\",\"netns\":{}",
            event.cookie,
            event.connection(),
            event.netns
        ),
    );
    let with_community_id = with_community_id && !kind.is_listener();
    if let Some(id) = with_community_id.then(|| community_id::of(event.local, event.remote)).flatten() {
        put(out, format_args!(",\"community_id\":\"{id}\""));
    }
    if let Some(asked) = event.asked {
        put(out, format_args!(",\"asked\":{{\"daddr\":\"{}\",\"dport\":{}}}", asked.ip(), asked.port()));
    }
    if let Some(interface) = event.interface {
        put(out, format_args!(",\"ifindex\":{interface}"));
    }
    if event.mptcp {
        out.extend_from_slice(b",\"mptcp\":true");
    }
    states(kind, out);
    for (name, value) in &FIELDS {
        match value(kind) {
            None => {}
            Some(Scalar::Number(number)) => put(out, format_args!(",\"{name}\":{number}")),
            Some(Scalar::Word(word)) => put(out, format_args!(",\"{name}\":\"{word}\"")),
        }
    }
    if let Some(Backlog { len, max, drops }) = kind.backlog() {
        put(out, format_args!(",\"backlog\":{{\"len\":{len},\"max\":{max}"));
        if drops > 0 {
            put(out, format_args!(",\"drops\":{drops}"));
        }
        out.push(b'}');
    }
    if let Some(closer) = &record.closer {
        out.extend_from_slice(b",\"closer\":");
        process_ref(out, closer.process.pid, &closer.process.filename);
    }
    if record.owners.len() > 1 {
        owners(record, out);
    }
    if !record.names.names.is_empty() {
        out.extend_from_slice(b",\"dns\":");
        text(out, &record.names.names);
    }
    if record.names.guess {
        out.extend_from_slice(b",\"dns_guess\":true");
    }
    out.push(b'}');
}

/// An attempt to connect, in the form that Tracee gives such an event.
fn net_tcp_connect(record: &Record, out: &mut Vec<u8>) {
    let to = record.event.remote;
    put(
        out,
        format_args!(
            "{{\"type\":\"NetTCPConnect\",\"dstIP\":\"{}\",\"dstPort\":{},\"results\":",
            to.ip(),
            to.port()
        ),
    );
    text(out, &record.names.names);
    out.push(b'}');
}

/// One end of the connection.
fn end(out: &mut Vec<u8>, [address, port]: [&str; 2], ip: IpAddr, number: u16) {
    put(out, format_args!(",\"{address}\":\"{ip}\",\"{port}\":{number}"));
}

/// The states of a change, or of what exists, and the direction where it does not follow from the type.
fn states(kind: &EventKind, out: &mut Vec<u8>) {
    if let Some(states) = kind.state_change() {
        let [from, to] = states.map(vocabulary::state);
        put(out, format_args!(",\"old_state\":\"{from}\",\"new_state\":\"{to}\""));
    }
    if let Some(state) = kind.lasting_state() {
        put(out, format_args!(",\"state\":\"{}\"", vocabulary::state(state)));
    }
    let follows_from_type =
        kind.close().is_none() && kind.existing().is_none() && kind.retransmit().is_none();
    if let Some(direction) = kind.direction().filter(|_| !follows_from_type) {
        put(out, format_args!(",\"direction\":\"{}\"", vocabulary::direction(direction)));
    }
}

fn owners(record: &Record, out: &mut Vec<u8>) {
    let mut open = b'[';
    out.extend_from_slice(b",\"owners\":");
    for (actor, known) in &record.owners {
        out.push(std::mem::replace(&mut open, b','));
        process_ref(out, actor.pid, known.as_deref().map_or("", |known| &known.process.filename));
    }
    out.push(b']');
}

/// A process that is not the event's own.
fn process_ref(out: &mut Vec<u8>, pid: u32, filename: &str) {
    put(out, format_args!("{{\"pid\":{pid},\"filename\":"));
    text(out, filename);
    out.push(b'}');
}
