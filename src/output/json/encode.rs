//! A value as JSON text.

use serde::Serialize;

/// The text; for values whose serialisation cannot fail.
pub fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and numbers always serialise")
}
