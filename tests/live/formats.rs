//! The csv and odr formats, checked with independent parsers.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Read},
};

use nix::sys::signal::Signal;

use crate::{
    common::{
        Launch, Trace, all,
        launch::Running,
        net,
        net::{Pair, V4, V6},
        of_port,
    },
    odr_server::{STATES, Server},
};

/// The output of tcptrace for one IPv4 and one IPv6 connection, and their ports.
fn trace(arguments: &[&str]) -> (String, [u16; 2]) {
    let running = Launch::new().args(arguments).start();
    let ports = [V4, V6].map(|address| {
        let mut pair = Pair::new(address);
        let port = pair.port();
        net::transfer(&mut pair.client, &mut pair.server, 1234);
        drop(pair.client);
        net::wait_for_end(&mut pair.server);
        port
    });
    (collect(running, ports), ports)
}

/// The output until each port has been printed four times.
fn collect(mut running: Running, ports: [u16; 2]) -> String {
    let mut stdout = BufReader::new(running.stdout.take().expect("stdout is piped"));
    let mut text = String::new();
    let mut owed = ports.map(|_| 4);
    while owed.iter().any(|&lines| lines > 0) {
        let start = text.len();
        assert!(stdout.read_line(&mut text).expect("text") > 0, "tcptrace ended: {text}");
        for (port, lines) in ports.iter().zip(&mut owed) {
            *lines -= i32::from(text[start..].contains(&port.to_string()));
        }
    }
    running.signal(Signal::SIGINT);
    stdout.read_to_string(&mut text).expect("text");
    let (status, stderr) = running.wait();
    assert!(status.success(), "{stderr}");
    text
}

fn csv_has_the_same_columns_for_all_events() {
    let (text, ports) = trace(&["-f", "csv"]);
    assert!(text.ends_with("\r\n") && text.matches('\n').count() == text.matches("\r\n").count());
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().expect("a header").clone();
    let column =
        |name: &str| header.iter().position(|column| column == name).unwrap_or_else(|| panic!("{name}"));
    let rows: Vec<_> = reader.records().map(|row| row.expect("as many fields as columns")).collect();
    for (port, address) in ports.into_iter().zip(["127.0.0.1", "::1"]) {
        let port = port.to_string();
        let of = |event: &str| {
            let mut found = rows.iter().filter(|row| {
                &row[column("event")] == event
                    && (row[column("sport")] == port || row[column("dport")] == port)
            });
            let row = found.next().unwrap_or_else(|| panic!("{event} in {text}"));
            (row, found.count())
        };
        let (connect, more) = of("connect");
        assert_eq!(more, 0);
        assert_eq!(connect[column("dport")], port);
        assert_eq!(&connect[column("saddr")], address);
        assert_eq!(connect[column("pid")], std::process::id().to_string());
        assert!(connect[column("latency_us")].parse::<u64>().is_ok());
        assert_eq!(&connect[column("bytes_sent")], "");
        let (accept, _) = of("accept");
        assert_eq!(accept[column("sport")], port);
        assert_eq!(&accept[column("backlog_max")], "128");
        let closes: Vec<_> = rows
            .iter()
            .filter(|row| {
                &row[column("event")] == "close"
                    && [&row[column("sport")], &row[column("dport")]].contains(&&*port)
            })
            .collect();
        assert_eq!(closes.len(), 2);
        for close in closes {
            let (sent, received, direction) = if close[column("dport")] == port {
                ("1234", "0", "egress")
            } else {
                ("0", "1234", "ingress")
            };
            assert_eq!(&close[column("bytes_sent")], sent);
            assert_eq!(&close[column("bytes_received")], received);
            assert_eq!(&close[column("direction")], direction);
            assert_eq!(close[column("args")], std::env::args().skip(1).collect::<Vec<_>>().join(" "));
        }
    }
}

fn odr_is_accepted_by_the_server() {
    let server = Server::new();
    let (text, ports) =
        trace(&["-f", "odr", "--project", "P \"1\"", "--agent-id", "a", "--expiration", "2031-02-03"]);
    let envelopes: Vec<_> =
        text.lines().map(|line| server.take(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    for envelope in &envelopes {
        let metadata = &envelope["metadata"];
        assert_eq!(metadata["project"], "P \"1\"");
        assert_eq!(metadata["agent_id"], "a");
        assert_eq!(metadata["agent_type"], "tcptrace");
        assert_eq!(metadata["automated"], true);
        assert_eq!(metadata["expiration"], "2031-02-03T00:00:00.000Z");
        assert_eq!(metadata["source"], tcptrace::host::name());
        assert_eq!(envelope["data"].as_array().map(Vec::len), Some(1));
        assert!(STATES.contains(&envelope["data"][0]["state"].as_str().unwrap_or_default()));
    }
    for (end, protocol) in
        [(format!("127.0.0.1:{}", ports[0]), "tcp,ipv4"), (format!("[::1]:{}", ports[1]), "tcp,ipv6")]
    {
        let of: Vec<_> = envelopes
            .iter()
            .map(|envelope| &envelope["data"][0])
            .filter(|data| data["local_address"] == end || data["remote_address"] == end)
            .collect();
        assert_eq!(of.len(), 4, "{of:#?}");
        for data in of {
            assert_eq!(data["protocol"], protocol);
            assert_eq!(data["process_id"], std::process::id());
            assert!(data["process_name"].as_str().is_some_and(|name| name.starts_with("live-")));
        }
    }
}

fn odr_has_defaults() {
    let server = Server::new();
    let (text, _) = trace(&["-f", "odr"]);
    let envelope = server.take(text.lines().next().expect("a line")).expect("an envelope");
    let metadata = &envelope["metadata"];
    if let Ok(id) = std::fs::read_to_string("/etc/machine-id") {
        assert_eq!(metadata["agent_id"], id.trim());
    }
    let year = |time: &serde_json::Value| time.as_str().expect("a time")[..4].parse::<u32>().expect("a year");
    assert!((99..=100).contains(&(year(&metadata["expiration"]) - year(&metadata["timestamp"]))));
}

/// Both ends of a connection have the same id, although their addresses are swapped. A listener has none, nor has a
/// socket without a port yet.
fn community_ids_join_the_ends() {
    let mut json = Trace::start(&["--community-id", "-e", "connect,accept,close,state"]);
    let mut seen = HashSet::new();
    for address in [V4, V6] {
        let mut pair = Pair::new(address);
        let port = pair.port();
        drop(pair.client);
        net::wait_for_end(&mut pair.server);
        drop(pair.server);
        json.wait("both closes", |events| all(&of_port(events, port), "TcpConnectionClose").len() == 2);
        let (of_one_end, of_connection): (Vec<_>, Vec<_>) = of_port(&json.events, port)
            .into_iter()
            .partition(|event| net(event)["sport"] == 0 || net(event)["dport"] == 0);
        assert!(of_one_end.iter().all(|event| net(event).get("community_id").is_none()), "{of_one_end:#?}");
        let ids: HashSet<_> = of_connection.iter().map(|event| net(event)["community_id"].as_str()).collect();
        assert!(ids.len() == 1 && !ids.contains(&None), "{ids:?}");
        assert!(seen.insert(ids.into_iter().flatten().next().map(str::to_owned)), "each has its own");
        assert!(of_connection.len() > 4 && !of_one_end.is_empty());
    }
    json.stop();

    let (text, ports) = trace(&["-f", "csv", "--community-id"]);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let column = reader.headers().expect("a header").iter().position(|name| name == "community_id");
    let rows: Vec<_> = reader.records().map(|row| row.expect("as many fields as columns")).collect();
    for port in ports.map(|port| port.to_string()) {
        let of = rows.iter().filter(|row| row.iter().any(|field| field == port));
        let ids: HashSet<_> = of.map(|row| row[column.expect("a column")].to_owned()).collect();
        assert!(ids.len() == 1 && ids.iter().all(|id| id.starts_with("1:")), "{ids:?}");
    }
}

crate::tests![
    csv_has_the_same_columns_for_all_events,
    community_ids_join_the_ends,
    odr_is_accepted_by_the_server,
    odr_has_defaults,
];
