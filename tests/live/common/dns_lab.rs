//! Network namespaces with a DNS server, to resolve names in.
//!
//! The documentation networks are local there, so all names lead to listeners of the test.

use std::{
    fs,
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdin, Command, Output, Stdio},
};

use super::folder::Folder;

/// A network and mount namespace that exist until this is dropped.
pub struct DnsLab {
    holder: Child,
    files: Folder,
    _stdin: ChildStdin,
}

impl DnsLab {
    /// A lab without additional setup.
    pub fn new() -> Self {
        Self::with("")
    }

    /// `setup` is a shell script that is run in the namespaces.
    pub fn with(setup: &str) -> Self {
        let files = Folder::new();
        let resolv = files.write("resolv.conf", "nameserver 127.0.0.53\noptions timeout:2 attempts:2\n");
        let script = format!(
            "set -e
            mount --bind {resolv} $(readlink -f /etc/resolv.conf)
            ip link set lo up
            for net in 192.0.2 198.51.100 203.0.113; do ip route add local $net.0/24 dev lo; done
            ip -6 route add local 2001:db8::/32 dev lo
            {setup}
            echo ready
            read -r end"
        );
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare, from util-linux");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("stdout is piped")).read_line(&mut line).expect("text");
        assert_eq!(line, "ready\n", "the lab could not be set up");
        let stdin = holder.stdin.take().expect("stdin is piped");
        Self { holder, files, _stdin: stdin }
    }

    /// A command to run in the lab.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--target", &self.holder.id().to_string(), program]);
        command
    }

    /// The inode number of the network namespace.
    pub fn netns(&self) -> u64 {
        let link = fs::read_link(format!("/proc/{}/ns/net", self.holder.id())).expect("a network namespace");
        let digits: String = link.to_string_lossy().chars().filter(|c| c.is_ascii_digit()).collect();
        digits.parse().expect("a number")
    }

    /// Runs a program in the lab, which must succeed.
    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        let output = self.command(program).args(args).output().expect("run a program in the lab");
        assert!(output.status.success(), "{program} {args:?}: {output:?}");
        output
    }

    /// Starts a DNS server on 127.0.0.53 and ::1 with these records.
    pub fn serve(&self, records: &str) -> Server {
        let fixed = "no-resolv\nno-hosts\nport=53\nbind-interfaces\nlisten-address=127.0.0.53\n\
             listen-address=::1\nno-daemon\npid-file=\nuser=root\nlocal=/example/\n";
        let config = self.files.write("dnsmasq.conf", &format!("{fixed}{records}\n"));
        let mut child = self
            .command("dnsmasq")
            .arg(format!("--conf-file={config}"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsenter, from util-linux");
        let mut log = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let started = log.any(|line| line.expect("text").contains("started, version"));
        assert!(started, "dnsmasq, from dnsmasq-base, did not start");
        Server { child, _log: log }
    }

    /// Starts a listener on all addresses of the lab, IPv4 and IPv6, which answers with one byte.
    pub fn listen(&self) -> Listener {
        let code = "
import socket
server = socket.create_server(('::', 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
print(server.getsockname()[1], flush=True)
while True:
    client, _ = server.accept()
    client.send(b'x')
    client.close()";
        let mut child = self
            .command("python3")
            .args(["-c", code])
            .stdout(Stdio::piped())
            .spawn()
            .expect("nsenter, from util-linux");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout is piped")).read_line(&mut line).expect("text");
        Listener { child, port: line.trim().parse().expect("a port"), netns: self.netns() }
    }

    /// For each host in turn, does what any program does: getaddrinfo(), connect() to the first address that accepts,
    /// read to the end.
    pub fn connect(&self, hosts: &[&str], port: u16) {
        let code = "
import socket, sys
for host in sys.argv[2:]:
    try:
        with socket.create_connection((host, int(sys.argv[1])), 10) as end:
            while end.recv(9): pass
    except ConnectionRefusedError: pass";
        let port = port.to_string();
        self.run("python3", &[&["-c", code, &port], hosts].concat());
    }
}

impl Drop for DnsLab {
    fn drop(&mut self) {
        end(&mut self.holder);
    }
}

/// A running dnsmasq.
pub struct Server {
    child: Child,
    /// Kept open, because dnsmasq exits if it cannot log.
    _log: Lines<BufReader<ChildStderr>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A listener; its port is unique only in its namespace.
pub struct Listener {
    child: Child,
    pub port: u16,
    pub netns: u64,
}

impl Listener {
    /// Connections are refused from now on.
    pub fn close(&mut self) {
        end(&mut self.child);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Kills and reaps a child, which may have ended before.
pub fn end(child: &mut Child) {
    drop(child.kill());
    drop(child.wait());
}
