//! An IP address or CIDR of either family, in one 128-bit space.
//!
//! IPv4 addresses are at `::ffff:0:0/96`, which is also where IPv4-mapped IPv6 addresses are, so dual-stack sockets
//! need no special case. An IPv6 network never contains an IPv4 address, not even `::/0`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The network bits of an address, and the prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Net {
    bits: u128,
    len: u8,
}

impl Net {
    /// The network of all IPv4 addresses.
    pub const IPV4: Net = Net { bits: 0xffff_0000_0000, len: 96 };

    /// The network of all IPv6 addresses.
    pub const IPV6: Net = Net { bits: 0, len: 0 };

    /// The network of a single address.
    pub fn host(address: IpAddr) -> Self {
        Net { bits: unmap(address), len: 128 }
    }

    /// Parses `"10.0.0.0/8"`, `"10.1.2.3"`, `"2000::/3"`, `"::1"`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| explain(text, address))?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let given = match length {
            None => width,
            Some(length) => {
                length.parse::<u8>().ok().filter(|n| *n <= width && !length.starts_with('+')).ok_or_else(
                    || format!("bad prefix length \"{length}\" in \"{text}\": expected 0 to {width}"),
                )?
            }
        };
        let len = given + (128 - width);
        let bits = unmap(address);
        let network = bits & mask(len);
        if network != bits {
            let right = Net { bits: network, len };
            return Err(format!("\"{text}\" has bits set beyond its prefix; did you mean \"{right}\"?"));
        }
        Ok(Net { bits, len })
    }

    /// Whether it is in the IPv4 part of the space.
    pub fn is_ipv4(&self) -> bool {
        self.len >= 96 && self.bits & mask(96) == Net::IPV4.bits
    }

    /// Whether it is a single address.
    pub fn is_host(&self) -> bool {
        self.len == 128
    }

    /// The network bits; IPv4 at `::ffff:0:0/96`.
    pub fn bits(&self) -> u128 {
        self.bits
    }

    /// The prefix length, out of 128.
    pub fn prefix_len(&self) -> u8 {
        self.len
    }

    /// Whether `address` (see [`unmap`]) is inside and of the same family.
    pub fn contains(&self, address: u128) -> bool {
        let ipv4 = address & mask(96) == Net::IPV4.bits;
        address & mask(self.len) == self.bits && ipv4 == self.is_ipv4()
    }
}

impl std::fmt::Display for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_ipv4() {
            write!(f, "{}/{}", Ipv4Addr::from(self.bits as u32), self.len - 96)
        } else {
            write!(f, "{}/{}", Ipv6Addr::from(self.bits), self.len)
        }
    }
}

/// Converts `address` to a number in the common space.
pub fn unmap(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn mask(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

fn explain(text: &str, address: &str) -> String {
    if !address.is_empty() && address.parse::<Ipv4Addr>().is_err() {
        let parts: Vec<&str> = address.split('.').collect();
        let numbers =
            parts.iter().all(|p| !p.is_empty() && p.len() <= 3 && p.bytes().all(|b| b.is_ascii_digit()));
        if numbers && parts.len() < 4 {
            let padded = [&parts[..], &["0"; 3][..4 - parts.len()]].concat().join(".");
            return format!(
                "bad address \"{text}\": IPv4 has four parts; did you mean \"{padded}/{}\"?",
                parts.len() * 8
            );
        }
        if numbers && parts.len() == 4 {
            return format!(
                "bad address \"{text}\": each part of an IPv4 address is 0 to 255, without leading zeros"
            );
        }
    }
    format!("bad address \"{text}\": write an address or a CIDR, as in \"10.0.0.0/8\" or \"2000::/3\"")
}
