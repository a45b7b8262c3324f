//! Values as JSON text.

use std::io::Write;

use serde::Serialize;

/// Append formatted text that needs no quoting.
pub fn put(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("a Vec takes everything");
}

/// Append a value whose serialisation cannot fail: strings, numbers and lists of them.
pub fn text<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("strings and numbers always serialise");
}
