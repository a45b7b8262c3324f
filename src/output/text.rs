//! Text that fits: its width on a terminal, and what is left out of it.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What stands for what.
#[derive(Debug, Clone, Copy)]
pub struct Glyphs {
    /// Something is left out here.
    pub cut: &'static str,
    /// Bytes sent.
    pub sent: &'static str,
    /// Bytes received.
    pub received: &'static str,
}

/// For terminals that show UTF-8.
pub const UNICODE: Glyphs = Glyphs { cut: "…", sent: "↑", received: "↓" };
/// For all others.
pub const ASCII: Glyphs = Glyphs { cut: "..", sent: ">", received: "<" };

/// An address shortened to fewer columns would say nothing: `1…` may be any of them.
const MIN_HOST_COLUMNS: usize = 5;

/// Columns it takes.
pub fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// With blanks up to `columns`.
pub fn pad(text: &str, columns: usize) -> String {
    let blanks = columns.saturating_sub(width(text));
    format!("{text}{:blanks$}", "")
}

/// Without its middle, where it is wider than `room`.
pub fn shorten<'a>(text: &'a str, room: usize, cut: &str) -> Cow<'a, str> {
    if width(text) <= room {
        return text.into();
    }
    let room = room.saturating_sub(width(cut));
    let head = fitting(text.chars(), room.div_ceil(2));
    let tail = fitting(text.chars().rev(), room / 2);
    let head: String = text.chars().take(head).collect();
    let tail: String = text.chars().skip(text.chars().count() - tail).collect();
    format!("{head}{cut}{tail}").into()
}

/// How many of the first characters fit.
fn fitting(chars: impl Iterator<Item = char>, room: usize) -> usize {
    let ends = chars.scan(0, |end, c| {
        *end += c.width().unwrap_or_default();
        Some(*end)
    });
    ends.take_while(|&end| end <= room).count()
}

/// An address or a name with a port. The port is never shortened, nor left out.
pub fn endpoint(host: &str, port: u16, room: usize, cut: &str) -> String {
    let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
    let around = width(open) + width(close) + width(&format!(":{port}"));
    let left = room.saturating_sub(around);
    if left < MIN_HOST_COLUMNS && left < width(host) {
        return format!(":{port}");
    }
    format!("{open}{}{close}:{port}", shorten(host, left, cut))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_middle_is_left_out() {
        assert_eq!(shorten("systemd-resolved", 16, "…"), "systemd-resolved");
        assert_eq!(shorten("systemd-resolved", 9, "…"), "syst…lved");
        assert_eq!(shorten("systemd-resolved", 9, ".."), "syst..ved");
        assert_eq!(shorten("名前名前", 5, "…"), "名…前");
    }

    #[test]
    fn ports_stay() {
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
        fn what_is_shortened_fits(text in "\\PC{0,60}", room in 3usize..80) {
            prop_assert!(width(&shorten(&text, room, "…")) <= room);
        }

        #[test]
        fn endpoints_fit_and_keep_the_port(host in "[0-9a-f:.]{1,45}", port: u16, room in 6usize..60) {
            let text = endpoint(&host, port, room, "..");
            let port = format!(":{port}");
            prop_assert!(text.ends_with(&port), "{}", text);
            prop_assert!(width(&text) <= room, "{}", text);
        }
    }
}
