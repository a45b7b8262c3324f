//! Values as JSON text.

use std::io::Write;

use serde::Serialize;

use crate::hostile::is_hostile;

/// Append formatted text that needs no quoting.
pub fn put(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("a Vec takes everything");
}

/// Append a value whose serialisation cannot fail: strings, numbers and lists of them.
pub fn text<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    out.extend_from_slice(object(value).as_bytes());
}

/// The same as a string. What a terminal obeys stands there by number, as JSON allows: it is the same text for every
/// parser, and harmless for whoever looks at the line.
pub fn object<T: Serialize + ?Sized>(value: &T) -> String {
    let text = serde_json::to_string(value).expect("strings and numbers always serialise");
    if !text.contains(is_hostile) {
        return text;
    }
    let mut harmless = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_hostile(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                harmless.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            harmless.push(character);
        }
    }
    harmless
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_written_by_number() {
        for text in ["plain", "naïve 名", "\u{1b}[2J", "\u{9b}31m", "\u{202e}gnp", "\u{7f}", "\u{e0001}tag"]
        {
            let json = object(text);
            assert!(!json.contains(is_hostile), "{json:?}");
            assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), text);
        }
        assert_eq!(object("naïve"), "\"naïve\"");
        assert_eq!(object("\u{202e}"), "\"\\u202e\"");
    }
}
