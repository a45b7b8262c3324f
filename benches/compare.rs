//! tcptrace beside bcc's tcplife on the same connections: nanoseconds in the kernel, CPU of the
//! reader, start-up, loss. Run by `make bench`, as root.
//!
//! Every figure comes from one run of both tools on one workload, so that the ratios hold where
//! the numbers do not.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

mod bpf_stats;

use bpf_stats::{BpfStats, field, is_idle, programs};

/// Loopback connections, one after the other; tcptrace reports four events of each.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    connections: u32,
    /// Between one and the next: a reader that is woken for each then sleeps.
    pause: Duration,
}

const LOADS: [Load; 2] = [
    Load { name: "as fast as they go", connections: 20_000, pause: Duration::ZERO },
    Load { name: "with a millisecond in between", connections: 3_000, pause: Duration::from_millis(1) },
];
const TCPLIFE: &str = "/usr/sbin/tcplife";

fn main() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("the comparison needs root");
        return;
    }
    let _stats = BpfStats::enable();
    LOADS.iter().for_each(|&load| compare(load));
}

fn compare(load: Load) {
    let mut rows = Vec::new();
    if fs::exists(TCPLIFE).unwrap_or(false) {
        rows.push(measure("tcplife", tcplife(), None, load));
    } else {
        eprintln!("{TCPLIFE} is missing (package libbpf-tools): no side by side");
    }
    let variants: [(&str, &[&str]); 3] =
        [("tcptrace", &[]), ("tcptrace -j", &["-j"]), ("tcptrace -j -e close", &["-j", "-e", "close"])];
    for (name, arguments) in variants {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
        command.args(arguments);
        rows.push(measure(name, command, Some("tcptrace: ready"), load));
    }
    report(&rows, load);
}

/// It needs tracefs at its usual place; a mount namespace of its own leaves nothing behind.
fn tcplife() -> Command {
    let mut command = Command::new("unshare");
    let script = format!("mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; exec {TCPLIFE}");
    command.args(["--mount", "sh", "-c", &script]);
    command
}

struct Row {
    name: &'static str,
    kernel_ns: f64,
    runs: f64,
    misses: u64,
    cpu_us: f64,
    start: Duration,
    rate: f64,
    lines: usize,
}

fn measure(name: &'static str, mut command: Command, ready: Option<&str>, load: Load) -> Row {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    match ready {
        Some(word) => {
            let mut line = String::new();
            while stderr.read_line(&mut line).expect("stderr") > 0 && !line.contains(word) {
                line.clear();
            }
        }
        // It says nothing until its output buffer is full; it waits for events once it is attached.
        None => {
            while programs(child.id()).is_empty() || !is_idle(child.id()) {
                assert!(child.try_wait().expect("wait").is_none(), "{name} does not start");
            }
        }
    }
    let start = started.elapsed();
    let counter = thread::spawn(move || {
        let mut text = Vec::new();
        stdout.read_to_end(&mut text).expect("stdout");
        text.iter().filter(|&&byte| byte == b'\n').count()
    });
    let said = thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());

    let before = Totals::of(&child);
    let took = connections(load);
    wait_until_read(&child);
    let after = Totals::of(&child);

    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("interrupt");
    child.wait().expect("wait");
    for line in said.join().expect("stderr").lines().filter(|line| line.contains("lost")) {
        println!("{name}: {line}");
    }
    let each = |total: u64| total as f64 / f64::from(load.connections);
    Row {
        name,
        kernel_ns: each(after.ns - before.ns),
        runs: each(after.runs - before.runs),
        misses: after.misses - before.misses,
        cpu_us: each(after.cpu_us - before.cpu_us),
        start,
        rate: f64::from(load.connections) / took.as_secs_f64(),
        lines: counter.join().expect("stdout"),
    }
}

/// Open and close connections. The server closes first and keeps the
/// TIME_WAIT, so that ports do not run out.
fn connections(load: Load) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    let started = Instant::now();
    let server = thread::spawn(move || {
        for _ in 0..load.connections {
            drop(listener.accept().expect("accept"));
        }
    });
    for _ in 0..load.connections {
        let mut stream = TcpStream::connect(address).expect("connect");
        let _ = stream.read(&mut [0]);
        thread::sleep(load.pause);
    }
    server.join().expect("the server");
    started.elapsed()
}

/// The reader has caught up when its CPU time stands still.
fn wait_until_read(child: &Child) {
    let mut before = cpu_us(child);
    loop {
        thread::sleep(Duration::from_millis(100));
        let now = cpu_us(child);
        if now == before {
            return;
        }
        before = now;
    }
}

/// What the BPF programs and the reader have used so far.
struct Totals {
    ns: u64,
    runs: u64,
    misses: u64,
    cpu_us: u64,
}

impl Totals {
    fn of(child: &Child) -> Totals {
        let programs = programs(child.id());
        let sum = |name: &str| programs.iter().map(|program| field(program, name)).sum();
        Totals {
            ns: sum("run_time_ns"),
            runs: sum("run_cnt"),
            misses: sum("recursion_misses"),
            cpu_us: cpu_us(child),
        }
    }
}

/// User and system time (/proc/PID/stat), in steps of 10 ms.
fn cpu_us(child: &Child) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("a running child");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("a name").split(' ').collect();
    [11, 12].iter().map(|&at| fields[at].parse::<u64>().expect("ticks") * 10_000).sum()
}

fn report(rows: &[Row], load: Load) {
    println!("{} loopback connections {}, both ends traced; per connection:", load.connections, load.name);
    println!(
        "{:<22} {:>10} {:>6} {:>9} {:>9} {:>9} {:>8} {:>7}",
        "", "kernel ns", "runs", "CPU us", "start ms", "conn/s", "lines", "missed"
    );
    for row in rows {
        println!(
            "{:<22} {:>10.0} {:>6.1} {:>9.1} {:>9.1} {:>9.0} {:>8} {:>7}",
            row.name,
            row.kernel_ns,
            row.runs,
            row.cpu_us,
            row.start.as_secs_f64() * 1e3,
            row.rate,
            row.lines,
            row.misses
        );
    }
    if let [peer, ours, ..] = rows
        && peer.name == "tcplife"
    {
        println!("tcptrace / tcplife in the kernel: {:.2}", ours.kernel_ns / peer.kernel_ns);
    }
}
