//! A process and its connection, to evaluate filters on.

use tcptrace::filter::{Direction, Subject};

/// curl, started by bash, of a set-uid user, connected to a host with a name.
pub fn curl() -> Subject {
    Subject {
        binary_name: b"curl".to_vec(),
        binary_path: b"/usr/bin/curl".to_vec(),
        parent_binary_name: b"bash".to_vec(),
        parent_binary_path: b"/bin/bash".to_vec(),
        uid: 1000,
        euid: 0,
        gid: 1000,
        egid: 1000,
        auid: u32::MAX,
        pid: 77,
        ppid: 7,
        container_id: Vec::new(),
        container_name: Vec::new(),
        pod: Vec::new(),
        namespace: Vec::new(),
        in_cgroup: false,
        netns: 4_026_531_840,
        saddr: "10.1.0.1".parse().expect("an address"),
        daddr: "10.2.0.2".parse().expect("an address"),
        sport: 40_000,
        dport: 443,
        direction: Direction::Egress,
        dns: vec!["www.example.com".to_owned()],
    }
}
