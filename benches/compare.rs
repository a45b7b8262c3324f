//! Compares tcptrace with similar tools on the same connections: CPU of the reader per line, losses, start and end,
//! memory, slowdown of traced programs. Run by `make bench`, as root.
//!
//! All tools run the same rounds, and each round makes the same connections once without the tool and once with it, so
//! that ratios are comparable even if absolute times are not. `BENCH=smoke` is one short round, to check that nothing
//! is lost.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

mod bpf_stats;

use bpf_stats::{is_idle, programs};

/// Events of a loopback connection: opened, accepted, and closed at both ends.
const EVENTS: u32 = 4;
/// The results, for use by other programs, and those of `make bench-kernel`, which become part of them.
const JSON: &str = "target/bench.json";
const KERNEL_JSON: &str = "target/bench-kernel.json";
/// Tells a copy of this program to connect there and to wait.
const HOLD: &str = "BENCH_HOLD";

struct Tool {
    name: &'static str,
    /// Searched in PATH; the first one installed is used.
    program: &'static str,
    arguments: &'static [&'static str],
    /// The expected number of lines per connection, if it is checked.
    lines: Option<u32>,
}

const PEERS: [Tool; 4] = [
    Tool { name: "tcplife", program: "tcplife", arguments: &[], lines: None },
    Tool { name: "tcpstates", program: "tcpstates", arguments: &[], lines: None },
    Tool { name: "tcptracer", program: "tcptracer", arguments: &[], lines: None },
    Tool { name: "bpftrace tcplife", program: "tcplife.bt", arguments: &[], lines: None },
];

const OURS: [Tool; 5] = [
    Tool { name: "tcptrace -j", program: "", arguments: &["-j"], lines: Some(EVENTS) },
    Tool { name: "tcptrace -f csv", program: "", arguments: &["-f", "csv"], lines: Some(EVENTS) },
    Tool { name: "tcptrace (table)", program: "", arguments: &[], lines: Some(EVENTS) },
    Tool { name: "tcptrace -j -e close", program: "", arguments: &["-j", "-e", "close"], lines: Some(2) },
    Tool { name: "tcptrace --summary-only", program: "", arguments: &["--summary-only"], lines: None },
];

/// The number of rounds and connections.
#[derive(Clone, Copy)]
struct Extent {
    rounds: usize,
    connections: u32,
    /// Processes with an open connection each, for the peak of memory.
    holders: usize,
}

fn main() {
    if let Ok(address) = std::env::var(HOLD) {
        return hold(address.parse().expect("an address"));
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("the comparison needs root: make bench");
        return;
    }
    let smoke = std::env::var("BENCH").is_ok_and(|bench| bench == "smoke");
    let extent = if smoke {
        Extent { rounds: 1, connections: 500, holders: 100 }
    } else {
        Extent { rounds: 5, connections: 5_000, holders: 1_000 }
    };
    println!(
        "{} rounds of {} connections over loopback, both ends traced; medians. CPU of the reader in us per line or event;\n\
         peak of resident memory without the ring, with {} processes that have a connection open",
        extent.rounds, extent.connections, extent.holders
    );
    println!(
        "{:<24} {:>8} {:>6} {:>9} {:>6} {:>6} {:>9} {:>7} {:>9} {:>8}",
        "", "to file", "ratio", "/dev/null", "ratio", "lost", "start ms", "end ms", "slowdown", "peak MB"
    );
    let mut rows: Vec<Row> = Vec::new();
    for tool in PEERS.iter().chain(&OURS) {
        let is_peer = !tool.program.is_empty();
        if is_peer && smoke {
            continue;
        }
        if is_peer && !is_installed(tool.program) {
            println!("{:<24} is not installed", tool.name);
            continue;
        }
        match measure(tool, extent) {
            Some(row) => {
                row.print(peer(&rows));
                rows.push(row);
            }
            None if is_peer => println!("{:<24} does not run on this kernel", tool.name),
            None => panic!("{} does not start", tool.name),
        }
    }
    let document = json!({
        "rounds": extent.rounds,
        "connections": extent.connections,
        "holders": extent.holders,
        "kernel": kernel(),
        "tools": rows.iter().map(|row| row.json(peer(&rows))).collect::<Vec<_>>(),
    });
    fs::create_dir_all("target").expect("target");
    fs::write(JSON, format!("{document:#}\n")).expect("write the figures");
    println!("results in {JSON}");
    let lost: u32 = rows.iter().filter(|row| row.is_ours).filter_map(|row| row.lost).sum();
    if lost > 0 {
        eprintln!("tcptrace lost {lost} events");
        std::process::exit(1);
    }
}

/// The figures of `make bench-kernel`, which `make bench` runs before; null without virtual machines.
fn kernel() -> Value {
    let figures = fs::read(KERNEL_JSON).ok().and_then(|text| serde_json::from_slice(&text).ok());
    figures.unwrap_or_else(|| {
        println!("instructions in the kernel: not measured (make bench-kernel)");
        Value::Null
    })
}

/// The tool the others are compared with: tcplife, if installed.
fn peer(rows: &[Row]) -> Option<&Row> {
    rows.first().filter(|row| !row.is_ours)
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
    path.split(':').any(|folder| Path::new(folder).join(program).exists())
}

/// A tool that writes its lines to a file. Some need tracefs at its usual place; a mount namespace leaves nothing
/// behind.
fn command(tool: &Tool) -> Command {
    if tool.program.is_empty() {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
        command.args(tool.arguments);
        return command;
    }
    let mut command = Command::new("unshare");
    let script = "mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; PATH=$PATH:/usr/sbin exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh", tool.program]).args(tool.arguments);
    command
}

/// The results of one round.
struct Sample {
    cpu: Duration,
    lines: u32,
    start: Duration,
    end: Duration,
    slowdown: f64,
}

/// The results of all rounds of a tool.
struct Row {
    name: &'static str,
    is_ours: bool,
    /// CPU time of the reader in microseconds per line (per event if there are no lines): to a file, and to /dev/null.
    cpu_us: [f64; 2],
    start_ms: f64,
    end_ms: f64,
    slowdown: f64,
    peak_mb: f64,
    /// Bytes per line, if there are lines.
    line_bytes: Option<u64>,
    lost: Option<u32>,
}

/// None if the tool does not start.
fn measure(tool: &Tool, extent: Extent) -> Option<Row> {
    let mut samples = Vec::new();
    let (mut unread, mut bytes) = (Vec::new(), 0);
    for _ in 0..extent.rounds {
        let file = NamedTempFile::new().expect("a file");
        let mut sample = round(tool, file.reopen().expect("the file"), extent.connections)?;
        sample.lines = lines(file.path());
        bytes = file.as_file().metadata().expect("the file").len();
        let null = File::options().write(true).open("/dev/null").expect("/dev/null");
        unread.push(Sample { lines: sample.lines, ..round(tool, null, extent.connections)? });
        samples.push(sample);
    }
    let median = |samples: &[Sample], of: &dyn Fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let expected = tool.lines.map(|lines| lines * extent.connections);
    Some(Row {
        name: tool.name,
        is_ours: tool.program.is_empty(),
        cpu_us: [&samples, &unread].map(|samples| {
            median(samples, &|sample: &Sample| {
                let has_lines = sample.lines > extent.connections;
                let lines = if has_lines { sample.lines } else { EVENTS * extent.connections };
                sample.cpu.as_secs_f64() * 1e6 / f64::from(lines)
            })
        }),
        start_ms: median(&samples, &|sample| sample.start.as_secs_f64() * 1e3),
        end_ms: median(&samples, &|sample| sample.end.as_secs_f64() * 1e3),
        slowdown: median(&samples, &|sample| sample.slowdown),
        peak_mb: peak(tool, extent.holders)? as f64 / 1e3,
        line_bytes: bytes.checked_div(samples.last().map_or(0, |sample| u64::from(sample.lines))),
        lost: expected
            .map(|expected| samples.iter().map(|sample| expected.saturating_sub(sample.lines)).sum()),
    })
}

impl Row {
    fn ratios(&self, peer: Option<&Row>) -> [f64; 2] {
        [0, 1].map(|at| peer.map_or(1.0, |peer| self.cpu_us[at] / peer.cpu_us[at]))
    }

    fn print(&self, peer: Option<&Row>) {
        let ([file, null], [file_ratio, null_ratio]) = (self.cpu_us, self.ratios(peer));
        println!(
            "{:<24} {file:>8.2} {file_ratio:>6.2} {null:>9.2} {null_ratio:>6.2} {:>6} {:>9.0} {:>7.0} {:>8.0}% {:>8.1}",
            self.name,
            self.lost.map_or("-".to_owned(), |lost| lost.to_string()),
            self.start_ms,
            self.end_ms,
            (self.slowdown - 1.0) * 100.0,
            self.peak_mb,
        );
    }

    fn json(&self, peer: Option<&Row>) -> Value {
        json!({
            "name": self.name,
            "cpu_us_per_line": { "file": self.cpu_us[0], "null": self.cpu_us[1] },
            "cpu_ratio": { "file": self.ratios(peer)[0], "null": self.ratios(peer)[1] },
            "lost": self.lost,
            "start_ms": self.start_ms,
            "end_ms": self.end_ms,
            "slowdown": self.slowdown,
            "peak_mb_without_ring": self.peak_mb,
            "bytes_per_line": self.line_bytes,
        })
    }
}

fn spawn(tool: &Tool, output: impl Into<Stdio>) -> Child {
    let mut command = command(tool);
    command.stdin(Stdio::null()).stdout(output).stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|error| panic!("{}: {error}", tool.name))
}

fn round(tool: &Tool, output: File, count: u32) -> Option<Sample> {
    let alone = connections(count);
    let started = Instant::now();
    let mut child = spawn(tool, output);
    let said = wait_until_ready(&mut child, tool)?;
    let start = started.elapsed();
    let before = cpu(&child);
    let traced = connections(count);
    wait_until_read(&child);
    let used = cpu(&child) - before;
    let stopped = Instant::now();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("interrupt");
    child.wait().expect("wait");
    let end = stopped.elapsed();
    for line in said.join().expect("stderr").lines().filter(|line| line.contains("lost")) {
        println!("{}: {line}", tool.name);
    }
    let slowdown = traced.as_secs_f64() / alone.as_secs_f64();
    Some(Sample { cpu: used, lines: 0, start, end, slowdown })
}

/// The number of lines, without the header, which has no digits.
fn lines(path: &Path) -> u32 {
    let lines = BufReader::new(File::open(path).expect("the file")).split(b'\n');
    lines.map(|line| line.expect("a line")).filter(|line| line.iter().any(u8::is_ascii_digit)).count() as u32
}

/// Waits until the tool traces; a thread reads its stderr from then on. None if it exits instead.
fn wait_until_ready(child: &mut Child, tool: &Tool) -> Option<thread::JoinHandle<String>> {
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    if tool.program.is_empty() {
        let mut line = String::new();
        while !line.contains("tcptrace: ready") {
            line.clear();
            if stderr.read_line(&mut line).expect("stderr") == 0 {
                child.wait().expect("wait");
                return None;
            }
        }
    } else {
        // It prints nothing until its output buffer is full, but it waits for events once it is attached.
        while programs(child.id()).is_empty() || !is_idle(child.id()) {
            if child.try_wait().expect("wait").is_some() {
                return None;
            }
        }
    }
    Some(thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default()))
}

/// Opens and closes connections. The server closes first and keeps the TIME_WAIT, so that ports do not run out. Both
/// ends share a CPU: otherwise this is left to chance, which makes more difference than any tracer.
fn connections(count: u32) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    let mut cpu = CpuSet::new();
    cpu.set(0).expect("a CPU");
    let all = sched_getaffinity(Pid::from_raw(0)).expect("the CPUs");
    sched_setaffinity(Pid::from_raw(0), &cpu).expect("one CPU");
    let started = Instant::now();
    let server = thread::spawn(move || {
        for _ in 0..count {
            drop(listener.accept().expect("accept"));
        }
    });
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).expect("connect");
        let _ = stream.read(&mut [0]);
    }
    server.join().expect("the server");
    let took = started.elapsed();
    sched_setaffinity(Pid::from_raw(0), &all).expect("all CPUs");
    took
}

/// The reader has caught up when its CPU time stops growing, apart from its polling.
fn wait_until_read(child: &Child) {
    const LOOKS: Duration = Duration::from_millis(1);
    let mut before = cpu(child);
    loop {
        thread::sleep(Duration::from_millis(100));
        let now = cpu(child);
        if now - before < LOOKS {
            return;
        }
        before = now;
    }
}

/// User and system time of all threads (/proc/PID/task/TID/schedstat).
fn cpu(child: &Child) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).expect("a running child");
    let ns = tasks.flatten().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(ns.sum())
}

/// The peak of the resident memory in kB, without the ring, while this many processes have a connection open.
fn peak(tool: &Tool, holders: usize) -> Option<u64> {
    let mut child = spawn(tool, Stdio::null());
    let said = wait_until_ready(&mut child, tool)?;
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let mut holder = Command::new(std::env::current_exe().expect("this program"));
    holder.env(HOLD, listener.local_addr().expect("an address").to_string()).stdin(Stdio::piped());
    let held: Vec<_> = (0..holders)
        .map(|_| (holder.spawn().expect("a holder"), listener.accept().expect("accept")))
        .collect();
    wait_until_read(&child);
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("a running child");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    let peak = kb(line) - ring_kb(&child);
    for (mut holder, _) in held {
        drop(holder.stdin.take());
        holder.wait().expect("wait");
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("interrupt");
    child.wait().expect("wait");
    said.join().expect("stderr");
    Some(peak)
}

/// Connects and waits for the end of stdin.
fn hold(address: SocketAddr) {
    let _connection = TcpStream::connect(address).expect("connect");
    let _ = std::io::stdin().read(&mut [0]);
}

/// The resident memory of the mappings of rings and perf buffers.
fn ring_kb(child: &Child) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{}/smaps", child.id())).expect("a running child");
    let mut is_ring = false;
    let mut total = 0;
    for line in maps.lines() {
        if line.split(' ').next().is_some_and(|addresses| addresses.contains('-')) {
            // The other maps that are mapped can be written.
            let is_bpf_ring = line.ends_with("anon_inode:bpf-map") && line.contains(" r--s ");
            is_ring = is_bpf_ring || line.ends_with("anon_inode:[perf_event]");
        } else if let Some(rss) = line.strip_prefix("Rss:").filter(|_| is_ring) {
            total += kb(rss);
        }
    }
    total
}

/// A figure in /proc.
fn kb(text: &str) -> u64 {
    text.trim().trim_end_matches(" kB").parse().expect("a number")
}
