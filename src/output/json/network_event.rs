//! The `network_event` object in a JSON line.

use std::net::{IpAddr, SocketAddr};

use super::encode::{key, text, word};
use crate::{
    event::{Backlog, EventKind},
    output::{
        append::{address, number, put},
        community_id,
        fields::{FIELDS, Scalar},
        vocabulary,
    },
    record::Record,
};

/// Appends the event as an object.
pub fn network_event(record: &Record, with_community_id: bool, out: &mut Vec<u8>) {
    let event = &record.event;
    let kind = &event.kind;
    if let EventKind::Request = kind {
        return net_tcp_connect(record, out);
    }
    out.extend_from_slice(b"{\"type\":");
    word(out, vocabulary::type_name(kind));
    end(out, ["saddr", "sport"], event.local);
    end(out, ["daddr", "dport"], event.remote);
    key(out, "cookie");
    number(out, event.cookie);
    key(out, "connection");
    put(out, format_args!("\"{}\"", event.connection()));
    key(out, "netns");
    number(out, event.netns);
    let with_community_id = with_community_id && !kind.is_listener();
    if let Some(id) = with_community_id.then(|| community_id::of(event.local, event.remote)).flatten() {
        key(out, "community_id");
        word(out, &id);
    }
    if let Some(asked) = event.asked {
        key(out, "asked");
        out.extend_from_slice(b"{\"daddr\":");
        quoted_address(out, asked.ip());
        key(out, "dport");
        number(out, asked.port());
        out.push(b'}');
    }
    if let Some(interface) = event.interface {
        key(out, "ifindex");
        number(out, interface.get());
    }
    if event.mptcp {
        key(out, "mptcp");
        out.extend_from_slice(b"true");
    }
    states(kind, out);
    for (name, value) in &FIELDS {
        let Some(value) = value(kind) else { continue };
        key(out, name);
        let quote: &[u8] = if matches!(value, Scalar::Word(_)) { b"\"" } else { b"" };
        out.extend_from_slice(quote);
        value.put(out);
        out.extend_from_slice(quote);
    }
    if let Some(Backlog { len, max, drops }) = kind.backlog() {
        key(out, "backlog");
        put(out, format_args!("{{\"len\":{len},\"max\":{max}"));
        if drops > 0 {
            key(out, "drops");
            number(out, drops);
        }
        out.push(b'}');
    }
    if let Some(closer) = &record.closer {
        key(out, "closer");
        process_ref(out, closer.process.pid, &closer.process.filename);
    }
    if record.owners.len() > 1 {
        owners(record, out);
    }
    if !record.names.all().is_empty() {
        key(out, "dns");
        text(out, record.names.all());
    }
    if record.names.guess {
        key(out, "dns_guess");
        out.extend_from_slice(b"true");
    }
    out.push(b'}');
}

/// Appends a connection request in the form of Tracee's net_tcp_connect event.
fn net_tcp_connect(record: &Record, out: &mut Vec<u8>) {
    let to = record.event.remote;
    out.extend_from_slice(b"{\"type\":\"NetTCPConnect\"");
    end(out, ["dstIP", "dstPort"], to);
    key(out, "results");
    text(out, record.names.all());
    out.push(b'}');
}

/// Appends one end of the connection.
fn end(out: &mut Vec<u8>, [ip, port]: [&str; 2], of: SocketAddr) {
    key(out, ip);
    quoted_address(out, of.ip());
    key(out, port);
    number(out, of.port());
}

fn quoted_address(out: &mut Vec<u8>, ip: IpAddr) {
    out.push(b'"');
    address(out, ip);
    out.push(b'"');
}

/// Appends the states of a change or of an existing socket, and the direction if it does not follow from the type.
fn states(kind: &EventKind, out: &mut Vec<u8>) {
    if let Some([from, to]) = kind.state_change() {
        key(out, "old_state");
        word(out, vocabulary::state(from));
        key(out, "new_state");
        word(out, vocabulary::state(to));
    }
    if let Some(state) = kind.lasting_state() {
        key(out, "state");
        word(out, vocabulary::state(state));
    }
    let follows_from_type =
        kind.close().is_none() && kind.existing().is_none() && kind.retransmit().is_none();
    if let Some(direction) = kind.direction().filter(|_| !follows_from_type) {
        key(out, "direction");
        word(out, vocabulary::direction(direction));
    }
}

fn owners(record: &Record, out: &mut Vec<u8>) {
    let mut open = b'[';
    key(out, "owners");
    for (actor, known) in &record.owners {
        out.push(std::mem::replace(&mut open, b','));
        process_ref(out, actor.pid, known.as_deref().map_or("", |known| &known.process.filename));
    }
    out.push(b']');
}

/// Appends a reference to a process other than the owner.
fn process_ref(out: &mut Vec<u8>, pid: u32, filename: &str) {
    put(out, format_args!("{{\"pid\":{pid},\"filename\":"));
    text(out, filename);
    out.push(b'}');
}
