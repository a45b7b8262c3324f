//! Community ID version 1, the flow hash also printed by Zeek, Suricata and Wireshark
//! (github.com/corelight/community-id-spec).

use std::net::{IpAddr, SocketAddr};

use base64::{Engine, engine::general_purpose::STANDARD};
use sha1_smol::Sha1;

/// The seed, which sites may change to make their hashes distinct; 0 is the default everywhere.
const SEED: u16 = 0;
const IPPROTO_TCP: u8 = 6;

/// The hash of a TCP connection between these ends, in either order. None for a listener, which has no remote end, and
/// for failures before the first packet that have no local port.
pub fn of(one: SocketAddr, other: SocketAddr) -> Option<String> {
    if [one, other].iter().any(|end| end.port() == 0 || end.ip().is_unspecified()) {
        return None;
    }
    let end = |end: SocketAddr| match end.ip() {
        IpAddr::V4(ip) => (ip.octets().to_vec(), end.port()),
        IpAddr::V6(ip) => (ip.octets().to_vec(), end.port()),
    };
    let [low, high] = [end(one).min(end(other)), end(one).max(end(other))];
    let mut hash = Sha1::new();
    hash.update(&SEED.to_be_bytes());
    hash.update(&low.0);
    hash.update(&high.0);
    hash.update(&[IPPROTO_TCP, 0]);
    hash.update(&low.1.to_be_bytes());
    hash.update(&high.1.to_be_bytes());
    Some(format!("1:{}", STANDARD.encode(hash.digest().bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vectors from the specification and from Zeek.
    #[test]
    fn published_vectors() {
        for (one, other, id) in [
            ("128.232.110.120:34855", "66.35.250.204:80", "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
            ("1.2.3.4:1122", "5.6.7.8:3344", "1:wCb3OG7yAFWelaUydu0D+125CLM="),
            (
                "[2001:470:e5bf:dead:4957:2174:e82c:4887]:63943",
                "[2607:f8b0:400c:c03::1a]:25",
                "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=",
            ),
        ] {
            let [one, other] = [one, other].map(|end| end.parse().expect("an address"));
            assert_eq!(of(one, other).as_deref(), Some(id));
            assert_eq!(of(other, one).as_deref(), Some(id));
        }
    }

    #[test]
    fn no_id_without_two_ends() {
        for (one, other) in
            [("127.0.0.1:80", "0.0.0.0:0"), ("[::]:80", "[::]:0"), ("192.0.2.1:0", "192.0.2.2:80")]
        {
            let [one, other] = [one, other].map(|end| end.parse().expect("an address"));
            assert_eq!(of(one, other), None);
        }
    }
}
