//! DNS messages as servers send them, truncated, and malicious.

use super::*;

/// Builds valid and invalid messages.
struct Message(Vec<u8>);

impl Message {
    /// An answer to a question for `name`, with the record count filled in later.
    fn about(name: &[u8]) -> Self {
        let mut message = Self(vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]);
        message.0.extend(name);
        message.0.extend([0, 1, 0, 1]);
        message
    }

    /// A multicast DNS message, which has no question.
    fn unasked() -> Self {
        Self(vec![0, 0, 0x84, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    fn record(mut self, name: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Self {
        self.0[7] += 1;
        self.push(name, kind, ttl, data);
        self
    }

    fn additional(mut self, name: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Self {
        self.0[11] += 1;
        self.push(name, kind, ttl, data);
        self
    }

    fn push(&mut self, name: &[u8], kind: u16, ttl: u32, data: &[u8]) {
        self.0.extend(name);
        self.0.extend(kind.to_be_bytes());
        self.0.extend([0, 1]);
        self.0.extend(ttl.to_be_bytes());
        self.0.extend((data.len() as u16).to_be_bytes());
        self.0.extend(data);
    }
}

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const OPT: u16 = 41;
/// A compression pointer to the question's name.
const ASKED: &[u8] = &[0xc0, 12];

fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> =
        labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes
}

fn binding(name: &str, addr: &str, ttl: u32) -> Binding {
    Binding { name: name.into(), addr: addr.parse().unwrap(), ttl }
}

#[test]
fn one_address() {
    let message = Message::about(&wire("Example.COM")).record(ASKED, A, 300, &[192, 0, 2, 1]);
    assert_eq!(read(&message.0), Ok(vec![binding("example.com", "192.0.2.1", 300)]));
}

#[test]
fn several_addresses_of_both_families() {
    let mapped = "::ffff:192.0.2.3".parse::<Ipv6Addr>().unwrap().octets();
    let message = Message::about(&wire("example.com"))
        .record(ASKED, A, 5, &[192, 0, 2, 1])
        .record(&wire("example.com"), A, 6, &[192, 0, 2, 2])
        .record(ASKED, AAAA, 7, &"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets())
        .record(ASKED, AAAA, 8, &mapped);
    let expected = [("192.0.2.1", 5), ("192.0.2.2", 6), ("2001:db8::1", 7), ("192.0.2.3", 8)];
    let expected = expected.map(|(addr, ttl)| binding("example.com", addr, ttl));
    assert_eq!(read(&message.0), Ok(expected.to_vec()));
}

#[test]
fn the_name_is_the_head_of_the_chain_in_any_order() {
    let message = Message::about(&wire("www.example.com"))
        .record(&wire("C.example.net"), A, 20, &[192, 0, 2, 1])
        .record(&wire("b.example.net"), CNAME, 10, &wire("c.example.net"))
        .record(ASKED, CNAME, 300, &wire("B.example.net"));
    assert_eq!(read(&message.0), Ok(vec![binding("www.example.com", "192.0.2.1", 10)]));
}

#[test]
fn records_not_reachable_from_the_question_are_ignored() {
    let message = Message::about(&wire("evil.example"))
        .record(&wire("bank.example"), A, 300, &[192, 0, 2, 66])
        .record(ASKED, A, 300, &[192, 0, 2, 1])
        .additional(&wire("bank.example"), A, 300, &[192, 0, 2, 66]);
    assert_eq!(read(&message.0), Ok(vec![binding("evil.example", "192.0.2.1", 300)]));
}

#[test]
fn looping_and_overlong_cname_chains_give_no_names() {
    let looping = Message::about(&wire("a.example"))
        .record(ASKED, CNAME, 300, &wire("b.example"))
        .record(&wire("b.example"), CNAME, 300, &wire("a.example"))
        .record(&wire("c.example"), A, 300, &[192, 0, 2, 1]);
    assert_eq!(read(&looping.0), Ok(vec![]));
    let to_itself = Message::about(&wire("a.example")).record(ASKED, CNAME, 300, ASKED);
    assert_eq!(read(&to_itself.0), Ok(vec![]));
    let mut endless = Message::about(&wire("n0.example"));
    for n in 0..100 {
        let (from, to) = (wire(&format!("n{n}.example")), wire(&format!("n{}.example", n + 1)));
        endless = endless.record(&from, CNAME, 300, &to);
    }
    let endless = endless.record(&wire("n100.example"), A, 300, &[192, 0, 2, 1]);
    assert_eq!(read(&endless.0), Ok(vec![]));
}

#[test]
fn looping_and_outside_pointers_are_rejected() {
    for name in [&[0xc0, 12][..], &[0xc0, 14], &[0xff, 0xff], &[1, b'a', 0xc0, 12], &[0x80, 0]] {
        let message = Message::about(name).record(ASKED, A, 300, &[192, 0, 2, 1]);
        assert_eq!(read(&message.0), Err(BadMessage), "{name:x?}");
    }
}

#[test]
fn names_too_long_are_rejected() {
    let name = wire(&"a.".repeat(128));
    let message = Message::about(&name).record(ASKED, A, 300, &[192, 0, 2, 1]);
    assert_eq!(read(&message.0), Err(BadMessage));
    let name = wire(&"a.".repeat(120));
    let message = Message::about(&name).record(ASKED, A, 300, &[192, 0, 2, 1]);
    assert_eq!(read(&message.0).unwrap().len(), 1);
}

#[test]
fn messages_without_addresses_give_no_names() {
    for (flags, rcode) in [(0x01, 0), (0x81, 0x83), (0x81, 0x82), (0xa8, 0)] {
        let mut message = Message::about(&wire("a.example")).record(ASKED, A, 1, &[192, 0, 2, 1]);
        message.0[2] = flags;
        message.0[3] = rcode;
        assert_eq!(read(&message.0), Ok(vec![]), "flags {flags:x} rcode {rcode:x}");
    }
    let no_answer = Message::about(&wire("a.example"));
    assert_eq!(read(&no_answer.0), Ok(vec![]));
    let root = Message::about(&[0]).record(&[0], A, 300, &[192, 0, 2, 1]);
    assert_eq!(read(&root.0), Ok(vec![]));
}

#[test]
fn short_messages_are_rejected() {
    for len in 0..HEADER {
        assert_eq!(read(&vec![0x80; len]), Err(BadMessage), "{len} bytes");
    }
}

#[test]
fn sections_after_the_answers_are_ignored() {
    let cookie = [0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
    let message = Message::about(&wire("a.example")).record(ASKED, A, 300, &[192, 0, 2, 1]).additional(
        &[0],
        OPT,
        0x8000,
        &cookie,
    );
    assert_eq!(read(&message.0).unwrap().len(), 1);
    let broken = Message::about(&wire("a.example")).record(ASKED, A, 300, &[192, 0, 2, 1]).additional(
        &[0],
        OPT,
        0,
        &[0xff; 3],
    );
    assert_eq!(read(&broken.0).unwrap().len(), 1);
}

#[test]
fn complete_records_of_a_truncated_message_are_used() {
    let mut message = Message::about(&wire("a.example"));
    for n in 0..64 {
        message = message.record(ASKED, A, 300, &[192, 0, 2, n]);
    }
    let whole = read(&message.0).unwrap();
    assert_eq!(whole.len(), 64);
    let record = 16;
    for cut in 1..=message.0.len() - HEADER {
        let left = 64_usize.saturating_sub(cut.div_ceil(record));
        match read(&message.0[..message.0.len() - cut]) {
            Ok(some) => {
                assert!(whole.starts_with(&some));
                assert!(some.len() <= left && some.len() * 2 >= left, "{} of {left}", some.len());
            }
            Err(BadMessage) => assert_eq!(left, 0),
        }
    }
}

#[test]
fn record_counts_are_not_trusted() {
    let mut message = Message::about(&wire("a.example")).record(ASKED, A, 300, &[192, 0, 2, 1]);
    message.0[6..8].fill(0xff);
    assert_eq!(read(&message.0).unwrap().len(), 1);
}

#[test]
fn a_ttl_with_the_top_bit_is_zero() {
    let message = Message::about(&wire("a.example")).record(ASKED, A, 1 << 31, &[192, 0, 2, 1]);
    assert_eq!(read(&message.0).unwrap()[0].ttl, 0);
}

#[test]
fn unusual_bytes_are_escaped() {
    let name = b"\x04\x1b[2J\x03a.b\x02\\\"\x06b\xc3\xbcc\xff \x00";
    let message = Message::about(name).record(ASKED, A, 300, &[192, 0, 2, 1]);
    let expected = r#"\027[2j.a\.b.\\".b\195\188c\255\032"#;
    assert_eq!(&*read(&message.0).unwrap()[0].name, expected);
}

#[test]
fn multicast_records_are_used_only_in_local() {
    let printer = wire("Printer.local");
    let message = Message::unasked()
        .record(&wire("_ipp._tcp.local"), 12, 120, &printer)
        .additional(&printer, A, 120, &[192, 0, 2, 9])
        .additional(&wire("bank.example"), A, 120, &[192, 0, 2, 66]);
    assert_eq!(read(&message.0), Ok(vec![binding("printer.local", "192.0.2.9", 120)]));
}

/// xorshift64*: the same inputs on every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }
}

/// A million messages: half are valid ones with a few bytes changed, cut or duplicated, half are random bytes after a
/// header that is accepted.
#[test]
fn a_million_hostile_messages() {
    let real = [
        Message::about(&wire("www.example.com"))
            .record(ASKED, CNAME, 300, &wire("b.example.net"))
            .record(&wire("b.example.net"), A, 20, &[192, 0, 2, 1])
            .additional(&[0], OPT, 0x8000, &[0, 10, 0, 2, 1, 2]),
        Message::about(&wire("a.example")).record(ASKED, AAAA, 300, &[0x20; 16]),
        Message::unasked().record(&wire("a.local"), A, 120, &[192, 0, 2, 9]),
    ];
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut read_well, mut refused) = (0, 0);
    for round in 0..1_000_000 {
        let mut bytes = real[round % real.len()].0.clone();
        if dice.roll(2) == 0 {
            for _ in 0..=dice.roll(4) {
                let at = dice.roll(bytes.len());
                match dice.roll(4) {
                    0 => bytes[at] ^= 1 << dice.roll(8),
                    1 => bytes[at] = dice.roll(256) as u8,
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes.extend_from_within(at..),
                }
            }
        } else {
            bytes.truncate(HEADER);
            bytes[7] = dice.roll(8) as u8;
            bytes.extend((0..dice.roll(80)).map(|i| match i % 4 {
                0 => dice.roll(8) as u8,
                1 => [0xc0, 0][dice.roll(2)],
                _ => dice.roll(256) as u8,
            }));
        }
        match read(&bytes) {
            Ok(bindings) => {
                assert!(bindings.len() <= bytes.len() / RECORD_MIN);
                for Binding { name, ttl, .. } in bindings {
                    read_well += 1;
                    assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name}");
                    assert!(name.len() <= 4 * 255 && ttl <= i32::MAX as u32);
                }
            }
            Err(BadMessage) => refused += 1,
        }
    }
    assert!(read_well > 100_000 && refused > 100_000, "{read_well} read, {refused} refused");
}

/// As many records as fit, each with as many pointers as fit: the most expensive 4 KiB message.
#[test]
fn the_worst_message_is_read_in_bounded_time() {
    let mut worst = Message::about(b"\x01a\x00").0;
    let pointers = 1000;
    // One record that holds a chain of pointers, each to the previous one.
    worst.extend([0xc0, 12, 0, 10, 0, 1, 0, 0, 0, 0]);
    worst.extend((2 * pointers as u16).to_be_bytes());
    let mut last = 12_u16;
    for _ in 0..pointers {
        let here = worst.len() as u16;
        worst.extend((0xc000 | last).to_be_bytes());
        last = here;
    }
    let mut records = 1_u16;
    while worst.len() < 4096 - 14 {
        worst.extend((0xc000 | last).to_be_bytes());
        worst.extend([0, 5, 0, 1, 0, 0, 0, 0, 0, 2]);
        worst.extend((0xc000 | last).to_be_bytes());
        records += 1;
    }
    worst[6..8].copy_from_slice(&records.to_be_bytes());
    let start = std::time::Instant::now();
    assert_eq!(read(&worst), Ok(vec![]));
    let took = start.elapsed();
    assert!(took.as_millis() < 250, "{took:?}");
}
