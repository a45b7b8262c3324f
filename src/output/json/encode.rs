//! Encodes values as JSON text.

use serde::Serialize;

use crate::{hostile::is_hostile, output::append::put};

/// The one ASCII control character that JSON does not escape.
const DELETE: u8 = 0x7f;

/// Appends a member name: a comma, the name in quotes, and a colon.
pub fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Appends a word that needs no escaping, in quotes.
pub fn word(out: &mut Vec<u8>, word: &str) {
    out.push(b'"');
    out.extend_from_slice(word.as_bytes());
    out.push(b'"');
}

/// Appends a value whose serialisation cannot fail: strings, numbers and lists of them. Control and invisible
/// characters are written as \u escapes: the same text for every parser, and safe to show on a terminal.
pub fn text<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let start = out.len();
    serde_json::to_writer(&mut *out, value).expect("strings and numbers always serialise");
    if out[start..].is_ascii() && !out[start..].contains(&DELETE) {
        return; // other control characters are already escaped
    }
    let plain = String::from_utf8_lossy(&out[start..]).into_owned();
    out.truncate(start);
    for character in plain.chars() {
        if is_hostile(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                put(out, format_args!("\\u{unit:04x}"));
            }
        } else {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

/// The same as a new string.
pub fn object<T: Serialize + ?Sized>(value: &T) -> String {
    let mut out = Vec::new();
    text(&mut out, value);
    String::from_utf8(out).expect("JSON is UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_written_as_unicode_escapes() {
        for original in
            ["plain", "naïve 名", "\u{1b}[2J", "\u{9b}31m", "\u{202e}gnp", "\u{7f}", "\u{e0001}tag"]
        {
            let json = object(original);
            assert!(!json.contains(is_hostile), "{json:?}");
            assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), original);
        }
        assert_eq!(object("naïve"), "\"naïve\"");
        assert_eq!(object("\u{202e}"), "\"\\u202e\"");
    }
}
