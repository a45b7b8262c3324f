//! Fits text into columns of a terminal.

use std::{fmt::Write, net::IpAddr};

use owo_colors::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::append::dotted;
use crate::event::Zoned;

/// Symbols used in the table.
#[derive(Debug, Clone, Copy)]
pub struct Glyphs {
    /// Marks a place where text is omitted.
    pub cut: &'static str,
    /// Prefix of the number of bytes sent.
    pub sent: &'static str,
    /// Prefix of the number of bytes received.
    pub received: &'static str,
}

/// For terminals that show UTF-8.
pub const UNICODE: Glyphs = Glyphs { cut: "…", sent: "↑", received: "↓" };
/// For terminals that show only ASCII.
pub const ASCII: Glyphs = Glyphs { cut: "..", sent: ">", received: "<" };

/// An address is not shortened below this: `1…` could be any of them.
const MIN_HOST_COLUMNS: usize = 5;

/// The number of columns a text takes.
pub fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { UnicodeWidthStr::width(text) }
}

/// Appends blanks until the text from `start` on is `columns` wide.
pub fn pad(line: &mut String, start: usize, columns: usize) {
    const BLANKS: &str = "                                                ";
    let mut blanks = columns.saturating_sub(width(&line[start..]));
    while blanks > 0 {
        let some = blanks.min(BLANKS.len());
        line.push_str(&BLANKS[..some]);
        blanks -= some;
    }
}

/// Appends a text, with its middle omitted if it is wider than `room`.
pub fn shorten(line: &mut String, text: &str, room: usize, cut: &str) {
    // No character takes more columns than bytes.
    if text.len() <= room || width(text) <= room {
        return line.push_str(text);
    }
    let room = room.saturating_sub(width(cut));
    let head: usize = fitting(text.chars(), room.div_ceil(2));
    let tail: usize = fitting(text.chars().rev(), room / 2);
    line.push_str(&text[..head]);
    line.push_str(cut);
    line.push_str(&text[text.len() - tail..]);
}

/// The length in bytes of the leading characters that fit.
fn fitting(chars: impl Iterator<Item = char>, room: usize) -> usize {
    let mut columns = 0;
    let fits = chars.take_while(|c| {
        columns += c.width().unwrap_or_default();
        columns <= room
    });
    fits.map(char::len_utf8).sum()
}

/// Appends an address; IPv4 addresses faster than `write!`.
pub fn address(line: &mut String, zoned: Zoned) {
    match zoned.address {
        IpAddr::V4(ip) => dotted(ip, |part| line.push_str(part)),
        IpAddr::V6(_) => write!(line, "{zoned}").expect("a String takes everything"),
    }
}

/// The number of columns that a host and a port take.
pub fn endpoint_width(host: &str, port: u16) -> usize {
    let brackets = if host.contains(':') { 2 } else { 0 };
    width(host) + brackets + ":".len() + digits(port)
}

/// Appends what `put` appends, in this style.
pub fn painted(line: &mut String, style: Style, put: impl FnOnce(&mut String)) {
    if style.is_plain() {
        return put(line);
    }
    write!(line, "{}", style.prefix_formatter()).expect("a String takes everything");
    put(line);
    write!(line, "{}", style.suffix_formatter()).expect("a String takes everything");
}

/// Appends an address or a name with a port. The port is always shown in full.
pub fn endpoint(line: &mut String, host: &str, port: u16, room: usize, cut: &str) {
    let around = endpoint_width(host, port) - width(host);
    let left = room.saturating_sub(around);
    if left >= MIN_HOST_COLUMNS || left >= width(host) {
        let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
        line.push_str(open);
        shorten(line, host, left, cut);
        line.push_str(close);
    }
    line.push(':');
    line.push_str(itoa::Buffer::new().format(port));
}

fn digits(port: u16) -> usize {
    port.checked_ilog10().unwrap_or_default() as usize + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shorten(text: &str, room: usize, cut: &str) -> String {
        let mut line = String::new();
        super::shorten(&mut line, text, room, cut);
        line
    }

    fn endpoint(host: &str, port: u16, room: usize, cut: &str) -> String {
        let mut line = String::new();
        super::endpoint(&mut line, host, port, room, cut);
        assert!(width(&line) <= endpoint_width(host, port));
        line
    }

    #[test]
    fn texts_are_shortened_in_the_middle() {
        assert_eq!(shorten("systemd-resolved", 16, "…"), "systemd-resolved");
        assert_eq!(shorten("systemd-resolved", 9, "…"), "syst…lved");
        assert_eq!(shorten("systemd-resolved", 9, ".."), "syst..ved");
        assert_eq!(shorten("名前名前", 5, "…"), "名…前");
        assert_eq!(shorten("名前", 0, "…"), "…");
    }

    #[test]
    fn ports_are_never_shortened() {
        let v6 = "2a00:1450:4010:c01::64";
        assert_eq!(endpoint(v6, 443, 100, "…"), "[2a00:1450:4010:c01::64]:443");
        assert_eq!(endpoint(v6, 443, 21, "…"), "[2a00:14…c01::64]:443");
        assert_eq!(endpoint("192.168.100.123", 51692, 15, "…"), "192.….123:51692");
        assert_eq!(endpoint(v6, 51692, 7, "…"), ":51692");
        assert_eq!(endpoint("10.0.0.1", 65535, 0, ".."), ":65535");
        assert_eq!(endpoint("127.0.0.1", 443, 6, "…"), ":443");
        assert_eq!(endpoint("::1", 1, 7, "…"), "[::1]:1");
    }

    proptest! {
        #[test]
        fn shortened_texts_fit(text in "\\PC{0,60}", room in 3usize..80) {
            prop_assert!(width(&shorten(&text, room, "…")) <= room);
        }

        #[test]
        fn endpoints_fit_and_show_the_full_port(host in "[0-9a-f:.]{1,45}", port: u16, room in 6usize..60) {
            let text = endpoint(&host, port, room, "..");
            let port = format!(":{port}");
            prop_assert!(text.ends_with(&port), "{}", text);
            prop_assert!(width(&text) <= room, "{}", text);
        }
    }
}
