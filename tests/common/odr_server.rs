//! The rules of the odr format: the checks made by the server that receives it.
#![allow(dead_code)] // each test program uses its part

use std::path::Path;

use protobuf::reflect::{FileDescriptor, MessageDescriptor};
use serde_json::Value;

/// The state names in the network_connection reference.
pub const STATES: [&str; 12] = [
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSED",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "UNKNOWN",
];

/// The server's checks of an envelope.
pub struct Server {
    envelope: MessageDescriptor,
}

impl Server {
    pub fn new() -> Server {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common");
        let mut parsed = protobuf_parse::Parser::new()
            .pure()
            .include(&folder)
            .input(folder.join("network_connection.proto"))
            .file_descriptor_set()
            .expect("the definition is valid")
            .file;
        let ours = parsed.pop().expect("the file itself is the last");
        let known: Vec<_> =
            std::iter::once(protobuf::well_known_types::timestamp::file_descriptor().clone()).collect();
        let file = FileDescriptor::new_dynamic(ours, &known).expect("a descriptor");
        Server { envelope: file.message_by_package_relative_name("Envelope").expect("Envelope") }
    }

    /// Accepts an envelope as the server would, or returns the reason for a rejection. Unknown keys are rejected.
    pub fn take(&self, text: &str) -> Result<Value, String> {
        protobuf_json_mapping::parse_dyn_from_str(&self.envelope, text).map_err(|error| error.to_string())?;
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let metadata = &value["metadata"];
        if metadata["data_type"] != "network_connection" {
            return Err(format!("data_type {}", metadata["data_type"]));
        }
        let expiration = metadata["expiration"].as_str().unwrap_or_default();
        if !is_expiration(expiration) {
            return Err(format!("expiration {expiration:?}"));
        }
        Ok(value)
    }
}

/// Whether it has exactly the form `%Y-%m-%dT%H:%M:%S.000Z`.
fn is_expiration(text: &str) -> bool {
    let shape = "dddd-dd-ddTdd:dd:dd.000Z";
    text.len() == shape.len()
        && text.bytes().zip(shape.bytes()).all(|(byte, shape)| match shape {
            b'd' => byte.is_ascii_digit(),
            other => byte == other,
        })
}
