//! Checks that the stand-in for the odr server rejects what the real server rejects.

#[path = "common/odr_server.rs"]
mod odr_server;

use odr_server::Server;

#[test]
fn the_server_rejects_invalid_envelopes() {
    let server = Server::new();
    let good = r#"{"data": [{"local_address": "1.2.3.4:5", "process_id": 7}], "metadata": {"automated": true,
        "data_type": "network_connection", "expiration": "2030-01-01T00:00:00.000Z"}}"#;
    server.take(good).expect("a good one");
    for (from, to) in [
        ("\"automated\"", "\"automatic\""),
        ("true", "1"),
        (".000Z", "Z"),
        (".000Z", ".001Z"),
        ("network_connection", "file_data"),
        ("\"process_id\"", "\"pid\""),
        (": 7", ": -7"),
    ] {
        assert!(server.take(&good.replacen(from, to, 1)).is_err(), "{to}");
    }
}
