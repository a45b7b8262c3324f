//! Appends numbers and addresses to a line, faster than the formatting machinery.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr},
};

/// Appends formatted text that needs no quoting.
pub fn put(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("a Vec takes everything");
}

/// Appends a number in decimal.
pub fn number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Passes on the parts of an address in dotted form.
pub fn dotted(ip: Ipv4Addr, mut put: impl FnMut(&str)) {
    for (index, octet) in ip.octets().into_iter().enumerate() {
        put(if index > 0 { "." } else { "" });
        put(itoa::Buffer::new().format(octet));
    }
}

/// Appends an address without brackets.
pub fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(ip) => dotted(ip, |part| out.extend_from_slice(part.as_bytes())),
        IpAddr::V6(ip) => put(out, format_args!("{ip}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_matches_the_standard_library() {
        for text in ["0.0.0.0", "192.0.2.1", "255.255.255.255", "::", "2001:db8::1", "::ffff:192.0.2.1"] {
            let mut out = Vec::new();
            address(&mut out, text.parse().expect("an address"));
            assert_eq!(String::from_utf8_lossy(&out), text);
        }
    }
}
