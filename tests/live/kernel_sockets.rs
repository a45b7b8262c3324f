//! Sockets that belong to the kernel: NFS connects from a worker thread. Needs root and a kernel with the NFS module
//! (tests/kernels).

use std::{net::TcpListener, path::PathBuf};

use crate::common::{Trace, all, folder::Folder, harness::in_guest, net, net::V4};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};

/// Mounts a file system from a server that listens but does not respond. Returns only when the server has closed.
fn mount_from(port: u16, at: PathBuf) {
    let options = format!(
        "vers=3,soft,nolock,proto=tcp,mountproto=tcp,addr=127.0.0.1,mountaddr=127.0.0.1,port={port},mountport={port}"
    );
    mount(Some("127.0.0.1:/nothing"), &at, Some("nfs"), MsFlags::empty(), Some(options.as_str()))
        .expect_err("it is not an NFS server");
}

fn kernel_worker_threads_are_owners() {
    let listener = TcpListener::bind((V4, 0)).expect("listen");
    let port = listener.local_addr().expect("an address").port();
    let folder = Folder::new();
    let mut trace = Trace::start(&["-e", "connect,accept,close"]);
    let (at, own) = (folder.root().to_owned(), std::process::id());
    let mounting = std::thread::spawn(move || mount_from(port, at));
    drop(listener.accept().expect("accept"));
    net::stop_listening(listener);
    mounting.join().expect("the mounting thread");
    let events = trace.wait_port(port, 4);

    let connect = all(&events, "TcpConnectionEstablish")[0];
    let cookie = &net(connect)["cookie"];
    let closes = all(&events, "TcpConnectionClose");
    let close = closes.iter().find(|close| net(close)["cookie"] == *cookie).expect("its close");
    for event in [connect, *close] {
        let (process, parent) = (&event["process"], &event["parent"]);
        assert!(process["filename"].as_str().is_some_and(|name| name.starts_with("kworker")), "{event:#}");
        for (field, value) in [("binary_path", ""), ("args", ""), ("secureexec", "")] {
            assert_eq!(process[field], value, "{event:#}");
        }
        assert_eq!([&process["uid"], &process["cloned"]], [&0.into(), &serde_json::Value::from(true)]);
        assert_eq!(process.get("container_id"), None);
        assert_eq!([&parent["pid"], &parent["filename"]], [&2.into(), &serde_json::Value::from("kthreadd")]);
        assert_eq!(parent["ppid"], 0);
    }
    let accept = all(&events, "TcpConnectionAccept")[0];
    assert_eq!(accept["process"]["pid"], own);
}

pub fn tests() -> Vec<Trial> {
    vec![in_guest(
        |name| name.ends_with("-rest"),
        "a kernel with the nfsv3 module loaded",
        module_path!(),
        "kernel_worker_threads_are_owners",
        kernel_worker_threads_are_owners,
    )]
}
