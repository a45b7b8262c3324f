//! The right-hand side of a comparison: sets of values, checked against the type of the attribute.

use super::attribute::{Attribute, ValueKind};
use super::net::Net;
use super::token::Token;

/// Maximum length of a string that the kernel side can compare, in bytes.
pub const TEXT_MAX: usize = 254;

/// An inclusive range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    /// The lowest port in the range.
    pub low: u16,
    /// The highest port, not below `low`.
    pub high: u16,
}

/// The members that a comparison tests for. Order and repetition have no meaning.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Set {
    /// Numbers: ids, namespaces, families (4, 6), directions (0 egress, 1 ingress).
    Numbers(Vec<u32>),
    /// Byte strings: names, paths, prefixes, domain names.
    Texts(Vec<Vec<u8>>),
    /// Networks of either family.
    Nets(Vec<Net>),
    /// Port ranges, which may overlap.
    Ports(Vec<PortRange>),
}

impl Set {
    /// The empty set for `kind`.
    pub(crate) fn empty(kind: ValueKind) -> Self {
        match kind {
            ValueKind::Text | ValueKind::Domain => Set::Texts(Vec::new()),
            ValueKind::Number | ValueKind::Family | ValueKind::Direction => Set::Numbers(Vec::new()),
            ValueKind::Net | ValueKind::Net4 | ValueKind::Net6 => Set::Nets(Vec::new()),
            ValueKind::Port => Set::Ports(Vec::new()),
        }
    }

    /// Adds the members of `other`, which must be of the same type.
    pub(crate) fn extend(&mut self, other: Set) {
        match (self, other) {
            (Set::Numbers(ours), Set::Numbers(theirs)) => ours.extend(theirs),
            (Set::Texts(ours), Set::Texts(theirs)) => ours.extend(theirs),
            (Set::Nets(ours), Set::Nets(theirs)) => ours.extend(theirs),
            (Set::Ports(ours), Set::Ports(theirs)) => ours.extend(theirs),
            _ => unreachable!("sets of one attribute are of one kind"),
        }
    }

    /// Sorts and deduplicates the members, so that equal sets compare equal.
    pub(crate) fn normalize(&mut self) {
        fn tidy<T: Ord>(list: &mut Vec<T>) {
            list.sort_unstable();
            list.dedup();
        }
        match self {
            Set::Numbers(list) => tidy(list),
            Set::Texts(list) => tidy(list),
            Set::Nets(list) => tidy(list),
            Set::Ports(list) => tidy(list),
        }
    }

    /// The number of values listed.
    pub fn len(&self) -> usize {
        match self {
            Set::Numbers(list) => list.len(),
            Set::Texts(list) => list.len(),
            Set::Nets(list) => list.len(),
            Set::Ports(list) => list.len(),
        }
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Converts a literal to a set of one member, if it is a valid value of `attribute`.
pub(crate) fn member(attribute: Attribute, literal: &Token) -> Result<Set, String> {
    let name = attribute.name();
    match (attribute.kind(), literal) {
        (ValueKind::Text, Token::Text(text)) => {
            check_text(attribute, text.as_bytes())?;
            Ok(Set::Texts(vec![text.as_bytes().to_vec()]))
        }
        (ValueKind::Domain, Token::Text(text)) => {
            let domain = text.trim_end_matches('.').to_ascii_lowercase();
            if domain.is_empty() || domain.strip_prefix("*.").unwrap_or(&domain).contains('*') {
                return Err(format!(
                    "\"{text}\" is not a domain name; expected e.g. \"example.com\" or \"*.example.com\""
                ));
            }
            if !domain.is_ascii() {
                return Err(format!(
                    "\"{text}\" contains non-ASCII letters; write international labels in punycode (xn--...)"
                ));
            }
            Ok(Set::Texts(vec![domain.into_bytes()]))
        }
        (ValueKind::Number, Token::Number(n)) => u32::try_from(*n)
            .map(|n| Set::Numbers(vec![n]))
            .map_err(|_| format!("{n} is out of range: {name} is 0 to {}", u32::MAX)),
        (ValueKind::Family, Token::Number(n @ (4 | 6))) => Ok(Set::Numbers(vec![*n as u32])),
        (ValueKind::Family, _) => Err("family is 4 or 6".to_owned()),
        (ValueKind::Direction, Token::Text(text)) => match text.as_str() {
            "egress" => Ok(Set::Numbers(vec![0])),
            "ingress" => Ok(Set::Numbers(vec![1])),
            _ => Err(format!("direction is \"egress\" or \"ingress\", not \"{text}\"")),
        },
        (ValueKind::Port, Token::Number(n)) => {
            let port =
                u16::try_from(*n).map_err(|_| format!("port {n} is out of range: ports are 0 to 65535"))?;
            Ok(Set::Ports(vec![PortRange { low: port, high: port }]))
        }
        (ValueKind::Port, Token::Text(text)) => parse_ports(text).map(|range| Set::Ports(vec![range])),
        (kind @ (ValueKind::Net | ValueKind::Net4 | ValueKind::Net6), Token::Text(text)) => {
            let net = Net::parse(text)?;
            match kind {
                ValueKind::Net4 if !net.is_ipv4() => Err(format!(
                    "\"{text}\" is not IPv4; {name} matches only IPv4, saddr and daddr match both"
                )),
                ValueKind::Net6 if net.is_ipv4() => Err(format!(
                    "\"{text}\" is an IPv4 address, mapped or not; {name} matches only IPv6, saddr and daddr match both"
                )),
                _ => Ok(Set::Nets(vec![net])),
            }
        }
        (ValueKind::Number, Token::Text(text)) => match parse_number(text) {
            Ok(n) => Err(format!("{name} takes a number; write {n} without quotes")),
            Err(_) => Err(format!("{name} takes a number, not a string")),
        },
        (kind, _) => {
            let example = match kind {
                ValueKind::Text => "\"curl\"",
                ValueKind::Domain => "\"example.com\"",
                ValueKind::Direction => "\"egress\"",
                ValueKind::Net4 => "\"10.0.0.0/8\"",
                ValueKind::Net6 => "\"2000::/3\"",
                _ => "\"10.0.0.0/8\" or \"2000::/3\"",
            };
            Err(format!("{name} takes a string in double quotes, e.g. {example}"))
        }
    }
}

/// Checks that the kernel side can compare `text` with `attribute`, and that they can ever be equal.
pub fn check_text(attribute: Attribute, text: &[u8]) -> Result<(), String> {
    let name = attribute.name();
    if text.is_empty() {
        return Err(format!("{name} must not be empty"));
    }
    if text.len() > TEXT_MAX {
        return Err(format!("{name} is {} bytes long; the limit is {TEXT_MAX}", text.len()));
    }
    if text.contains(&0) {
        return Err(format!("{name} cannot contain a NUL byte"));
    }
    let shown = String::from_utf8_lossy(text);
    match attribute {
        Attribute::BinaryName | Attribute::ParentBinaryName if text.contains(&b'/') => Err(format!(
            "{name} is a name without slashes; did you mean {} for \"{shown}\"?",
            name.replace("_name", "_path")
        )),
        Attribute::BinaryPath
        | Attribute::ParentBinaryPath
        | Attribute::BinaryPrefix
        | Attribute::ParentBinaryPrefix
            if text[0] != b'/' =>
        {
            let advice = match text.contains(&b'/') {
                true => format!("give the whole path of \"{shown}\""),
                false => format!(
                    "did you mean {} for \"{shown}\"?",
                    name.replace("_path", "_name").replace("_prefix", "_name")
                ),
            };
            Err(format!("{name} begins with a slash; {advice}"))
        }
        Attribute::ContainerName | Attribute::Pod | Attribute::Namespace
            if text[..text.len() - 1].contains(&b'*') =>
        {
            Err(format!("{name} allows * only at the end, as a wildcard; not \"{shown}\""))
        }
        _ => Ok(()),
    }
}

/// Parses a 32-bit number, decimal or with 0x.
pub fn parse_number(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if !hex.starts_with('+') => u32::from_str_radix(hex, 16),
        _ if !text.starts_with('+') => text.parse(),
        _ => return Err(format!("\"{text}\" is not a number")),
    };
    parsed.map_err(|e| match e.kind() {
        std::num::IntErrorKind::PosOverflow => format!("{text} is out of range: 0 to {}", u32::MAX),
        _ => format!("\"{text}\" is not a number (decimal, or hexadecimal with 0x)"),
    })
}

/// Parses `N` or `N-M`.
pub fn parse_ports(text: &str) -> Result<PortRange, String> {
    let port = |part: &str| -> Result<u16, String> {
        let number = parse_number(part.trim())
            .map_err(|_| format!("\"{text}\" is not a port; expected N or N-M, e.g. 443 or 8000-8999"))?;
        u16::try_from(number).map_err(|_| format!("port {number} is out of range: ports are 0 to 65535"))
    };
    let (low, high) = match text.split_once('-') {
        Some((low, high)) => (port(low)?, port(high)?),
        None => (port(text)?, port(text)?),
    };
    if low > high {
        return Err(format!("\"{text}\" is an empty range; did you mean \"{high}-{low}\"?"));
    }
    Ok(PortRange { low, high })
}
