//! Reads addresses from DNS messages. The input is untrusted.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, ResourceRecord};

/// Longer CNAME chains are not followed; resolvers stop at 8 to 16.
const CHAIN_MAX: usize = 16;
const HEADER: usize = 12;
/// The smallest record: a one-byte name, type, class, TTL and length.
const RECORD_MIN: usize = 11;

/// An address that an answer gives for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The queried name: the head of the CNAME chain, in the form that `text` writes.
    pub name: Rc<str>,
    /// The address it resolved to; never IPv4-mapped.
    pub addr: IpAddr,
    /// The smallest TTL on the way from name to address, in seconds.
    pub ttl: u32,
}

/// The bytes cannot be parsed as a DNS message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadMessage;

/// Reads the addresses from a DNS answer.
///
/// Only records reachable from the question are used, so an answer cannot claim addresses for other names. Without a
/// question (multicast DNS) each record stands alone and must be in `.local`. In a truncated message the complete
/// records count.
pub fn read(bytes: &[u8]) -> Result<Vec<Binding>, BadMessage> {
    let mut message = bytes.to_vec();
    let header = message.first_chunk_mut::<HEADER>().ok_or(BadMessage)?;
    let is_answer = header[2] & 0xf8 == 0x80 && header[3] & 0x0f == 0;
    if !is_answer {
        return Ok(Vec::new());
    }
    // A reserved bit that the parser would reject.
    header[3] &= !0x40;
    let is_multicast = header[4..6] == [0, 0];
    if !is_multicast {
        // Ignore the sections after the answers (EDNS, signatures, name servers).
        header[8..12].fill(0);
    }
    let packet = parse(&mut message)?;
    let Some(question) = packet.questions.first() else {
        return Ok(read_multicast(&packet));
    };
    Ok(read_chain(&packet.answers, &question.qname))
}

/// Parses the message, or its complete leading answers if it is truncated.
fn parse(message: &mut [u8]) -> Result<Packet<'_>, BadMessage> {
    // The record count is untrusted: limit it to what fits into the message.
    let fits = message.len().saturating_sub(HEADER) / RECORD_MIN;
    let fits = u16::try_from(fits).unwrap_or(u16::MAX);
    for at in [4, 6, 8, 10] {
        let claimed = u16::from_be_bytes([message[at], message[at + 1]]);
        message[at..at + 2].copy_from_slice(&claimed.min(fits).to_be_bytes());
    }
    let mut answers = u16::from_be_bytes([message[6], message[7]]);
    while answers > 1 && Packet::parse(message).is_err() {
        message[8..12].fill(0);
        answers /= 2;
        message[6..8].copy_from_slice(&answers.to_be_bytes());
    }
    Packet::parse(message).map_err(|_| BadMessage)
}

/// Follows the CNAME records from the question to its addresses.
fn read_chain(answers: &[ResourceRecord], question: &Name) -> Vec<Binding> {
    let Some(name) = text(question) else {
        return Vec::new();
    };
    let mut end = question;
    let mut ttl = u32::MAX;
    for _ in 0..CHAIN_MAX {
        let next = answers.iter().filter(|r| is_about(r, end)).find_map(|r| match &r.rdata {
            RData::CNAME(target) => Some((&target.0, seconds(r.ttl))),
            _ => None,
        });
        match next {
            Some((target, seconds)) => (end, ttl) = (target, ttl.min(seconds)),
            None => break,
        }
    }
    let addresses = answers.iter().filter(|r| is_about(r, end));
    addresses.filter_map(|r| bind(r, name.clone(), ttl)).collect()
}

fn read_multicast(packet: &Packet) -> Vec<Binding> {
    let records = packet.answers.iter().chain(&packet.additional_records);
    let local = records.filter(|r| r.class == CLASS::IN && r.name.is_link_local());
    local.filter_map(|r| bind(r, text(&r.name)?, u32::MAX)).collect()
}

fn is_about(record: &ResourceRecord, name: &Name) -> bool {
    record.class == CLASS::IN && record.name == *name
}

fn bind(record: &ResourceRecord, name: Rc<str>, ttl: u32) -> Option<Binding> {
    let addr = match &record.rdata {
        RData::A(a) => IpAddr::V4(Ipv4Addr::from(a.address)),
        RData::AAAA(aaaa) => IpAddr::V6(Ipv6Addr::from(aaaa.address)).to_canonical(),
        _ => return None,
    };
    let ttl = ttl.min(seconds(record.ttl));
    Some(Binding { name, addr, ttl })
}

/// RFC 2181, section 8: a TTL with the top bit set is zero.
fn seconds(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

/// A name as `dig` prints it, in lower case and without the final dot: letters, digits and punctuation as they are,
/// dots inside a label and all other bytes as `\.` and `\DDD`. None for the root.
fn text(name: &Name) -> Option<Rc<str>> {
    let mut text = String::new();
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        for &byte in label.as_ref() {
            match byte {
                b'.' | b'\\' => text.extend(['\\', char::from(byte)]),
                b'!'..=b'~' => text.push(char::from(byte.to_ascii_lowercase())),
                // Writing to a String cannot fail.
                _ => drop(write!(text, "\\{byte:03}")),
            }
        }
    }
    (!text.is_empty()).then(|| text.into())
}

#[cfg(test)]
mod tests;
