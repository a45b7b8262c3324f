//! The cost of tracing in the kernel, in instructions, compared with libbpf-tools. Run by `make bench-kernel`.
//!
//! Meant for a guest that counts instructions (`tests/kernels/run --count-instructions`): there one nanosecond is one
//! instruction, and `kernel.bpf_stats_enabled` gives the same figure every time. Elsewhere it counts nanoseconds, which
//! vary. The last line of the output has the figures as JSON, for `make bench`.
#![allow(unsafe_code, reason = "the empty program is loaded by hand")]

use std::{
    ffi::CStr,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use libbpf_rs::libbpf_sys;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

mod bpf_stats;

use bpf_stats::{BpfStats, field, is_idle, programs};

const CONNECTIONS: u64 = 500;
const CALLS: u32 = 2_000;
const TCPLIFE: &str = "/usr/sbin/tcplife";

/// The maximum fraction of tcplife's cost, where there is a target.
const OURS: [(&str, &[&str], Option<f64>); 8] = [
    ("trampolines", &["--probes", "trampoline"], Some(0.30)),
    ("  -e close", &["--probes", "trampoline", "-e", "close"], Some(0.22)),
    ("  rejected by -b", &["--probes", "trampoline", "-b", "nobody"], Some(0.10)),
    ("  rejected by --port", &["--probes", "trampoline", "--port", "1"], None),
    ("tracepoints", &["--probes", "tracepoint"], Some(0.38)),
    ("  -e close", &["--probes", "tracepoint", "-e", "close"], Some(0.28)),
    ("  rejected by -b", &["--probes", "tracepoint", "-b", "nobody"], Some(0.14)),
    ("  rejected by --port", &["--probes", "tracepoint", "--port", "1"], None),
];

fn main() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("counting needs root: make bench-kernel");
        return;
    }
    let only = std::env::var("ONLY").unwrap_or_default();
    let is_plain = std::env::var("PLAIN").is_ok_and(|plain| !plain.is_empty());
    connections();
    println!("{CONNECTIONS} loopback connections with one byte, both ends; per connection:");
    println!(
        "{:<22} {:>12} {:>6} {:>6} {:>6} {:>9} {:>9} {:>6}",
        "", "instructions", "runs", "part", "goal", "syscall", "start us", "ratio"
    );
    let idle = syscall();
    let empty = empty_program(idle);
    let mut peer = None;
    let mut rows = Vec::new();
    for name in ["tcplife", "tcpstates", "tcptracer"] {
        let path = format!("/usr/sbin/{name}");
        if fs::exists(&path).unwrap_or(false) && (only.is_empty() || only.contains(name)) {
            let row = measure(Command::new(&path), None, idle);
            row.print(name, peer.as_ref(), None);
            rows.push(row.json(name));
            if path == TCPLIFE {
                peer = Some(row);
            }
        }
    }
    empty.print("empty program", peer.as_ref(), None);
    let mut group = "";
    for (name, arguments, goal) in OURS {
        if !name.starts_with(' ') {
            group = name;
        }
        if !only.is_empty() && !only.contains(group) || is_plain && name != group {
            continue;
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
        command.arg("-j").args(arguments);
        let row = measure(command, Some("tcptrace: ready"), idle);
        row.print(name, peer.as_ref(), goal);
        rows.push(row.json(if name == group { name.to_owned() } else { format!("{group}{}", &name[1..]) }));
    }
    println!("json: {}", Value::from(rows));
}

struct Row {
    ns: u64,
    runs: u64,
    syscall: f64,
    start: Duration,
    said: String,
    programs: Vec<(String, u64, u64)>,
}

impl Row {
    fn json(&self, name: impl Into<String>) -> Value {
        json!({
            "name": name.into(),
            "instructions_per_connection": self.ns / CONNECTIONS,
            "instructions_per_unrelated_call": self.syscall.round(),
        })
    }

    fn print(&self, name: &str, peer: Option<&Row>, goal: Option<f64>) {
        let part = peer.map_or("-".to_owned(), |peer| format!("{:.3}", self.ns as f64 / peer.ns as f64));
        let goal = goal.map_or("".to_owned(), |goal| format!("{goal:.2}"));
        let ratio = peer.map_or("".to_owned(), |peer| {
            format!("{:.1}", self.start.as_secs_f64() / peer.start.as_secs_f64())
        });
        println!(
            "{name:<22} {:>12.0} {:>6.1} {part:>6} {goal:>6} {:>9.0} {:>9} {ratio:>6}",
            self.ns as f64 / CONNECTIONS as f64,
            self.runs as f64 / CONNECTIONS as f64,
            self.syscall,
            self.start.as_micros(),
        );
        if std::env::var("EACH").is_ok_and(|each| !each.is_empty()) {
            for (name, ns, runs) in &self.programs {
                let per = |n: &u64| *n as f64 / CONNECTIONS as f64;
                println!(
                    "    {name:<20} {:>10.0} {:>6.1} {:>8.0} per run",
                    per(ns),
                    per(runs),
                    *ns as f64 / *runs as f64
                );
            }
        }
        self.said.lines().for_each(|line| println!("    {line}"));
        std::io::stdout().flush().expect("stdout");
    }
}

fn measure(mut command: Command, ready: Option<&str>, idle: Duration) -> Row {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the tool");
    let mut stdout = child.stdout.take().expect("piped");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut said = String::new();
    match ready {
        Some(word) => {
            let mut line = String::new();
            while !line.contains(word) {
                line.clear();
                if stderr.read_line(&mut line).expect("stderr") == 0 {
                    break;
                }
                if !line.contains(word) && !line.contains("(-v)") {
                    said.push_str(&line);
                }
            }
        }
        // Its header stays in a buffer, but it waits for events once it is attached.
        None => {
            while programs(child.id()).is_empty() || !is_idle(child.id()) {
                if child.try_wait().expect("wait").is_some() {
                    break;
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
    let start = started.elapsed();
    let reader = thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    let rest = thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());
    // warm up, so that one-time work is not measured
    one();
    thread::sleep(Duration::from_millis(50));
    let before = totals(child.id());
    measured_connections();
    let after = totals(child.id());
    let each = after.iter().map(|(name, ns, runs)| {
        let (_, ns0, runs0) = before.iter().find(|(other, ..)| other == name).expect("the same programs");
        (name.clone(), ns - ns0, runs - runs0)
    });
    let each: Vec<_> = each.filter(|(_, _, runs)| *runs > 0).collect();
    let call = syscall();
    interrupt(&mut child);
    reader.join().expect("stdout").expect("stdout");
    for line in rest.join().expect("stderr").lines().filter(|line| line.contains("lost")) {
        said.push_str(line);
        said.push('\n');
    }
    Row {
        ns: each.iter().map(|(_, ns, _)| ns).sum(),
        runs: each.iter().map(|(_, _, runs)| runs).sum(),
        syscall: per_call(call, idle),
        start,
        said,
        programs: each,
    }
}

fn interrupt(child: &mut Child) {
    let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGINT);
    child.wait().expect("wait");
}

fn one() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    exchange(&listener, 1);
}

fn connections() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    exchange(&listener, CONNECTIONS);
}

/// Only with statistics are run times counted; the duration of a system call is measured without.
fn measured_connections() {
    let _stats = BpfStats::enable();
    connections();
}

/// The server writes a byte, closes first and keeps the TIME_WAIT, so that ports do not run out.
fn exchange(listener: &TcpListener, count: u64) {
    let address = listener.local_addr().expect("an address");
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..count {
                let (mut stream, _) = listener.accept().expect("accept");
                stream.write_all(b"x").expect("write");
            }
        });
        for _ in 0..count {
            let mut stream = TcpStream::connect(address).expect("connect");
            let mut bytes = [0; 2];
            while stream.read(&mut bytes).expect("read") > 0 {}
        }
    });
}

/// The duration of an unrelated system call.
fn syscall() -> Duration {
    let began = Instant::now();
    for _ in 0..CALLS {
        std::hint::black_box(nix::unistd::getppid());
    }
    began.elapsed()
}

fn per_call(traced: Duration, idle: Duration) -> f64 {
    (traced.as_nanos() as f64 - idle.as_nanos() as f64) / f64::from(CALLS)
}

/// The cost of a program that does nothing: at each transition, and at the exit of each system call.
fn empty_program(idle: Duration) -> Row {
    let code = [
        libbpf_sys::bpf_insn {
            code: (libbpf_sys::BPF_ALU64 | libbpf_sys::BPF_MOV | libbpf_sys::BPF_K) as u8,
            ..Default::default()
        },
        libbpf_sys::bpf_insn {
            code: (libbpf_sys::BPF_JMP | libbpf_sys::BPF_EXIT) as u8,
            ..Default::default()
        },
    ];
    // SAFETY: the pointers are to constant strings and to `code`, of the stated length.
    let program = unsafe {
        let program = libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_RAW_TRACEPOINT,
            c"empty".as_ptr(),
            c"GPL".as_ptr(),
            code.as_ptr(),
            code.len() as _,
            std::ptr::null_mut(),
        );
        assert!(program >= 0, "load the empty program");
        OwnedFd::from_raw_fd(program)
    };
    // SAFETY: as above.
    let attach = |tracepoint: &CStr| unsafe {
        let link = libbpf_sys::bpf_raw_tracepoint_open(tracepoint.as_ptr(), program.as_raw_fd());
        assert!(link >= 0, "attach the empty program");
        OwnedFd::from_raw_fd(link)
    };
    let text =
        || fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).expect("its counters");
    let link = attach(c"inet_sock_set_state");
    let before = text();
    measured_connections();
    let after = text();
    drop(link);
    let link = attach(c"sys_exit");
    let call = syscall();
    drop(link);
    let of = |name| field(&after, name) - field(&before, name);
    Row {
        ns: of("run_time_ns"),
        runs: of("run_cnt"),
        syscall: per_call(call, idle),
        start: Duration::ZERO,
        said: String::new(),
        programs: Vec::new(),
    }
}

/// The name, run time and run count of each BPF program that a process holds.
fn totals(pid: u32) -> Vec<(String, u64, u64)> {
    let of = |text: &String| {
        let id = field(text, "prog_id");
        (name_of(id as u32), field(text, "run_time_ns"), field(text, "run_cnt"))
    };
    programs(pid).iter().map(of).collect()
}

fn name_of(id: u32) -> String {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut len = size_of_val(&info) as u32;
    // SAFETY: `info` is a plain structure of the length given, for the kernel to fill.
    unsafe {
        let fd = libbpf_sys::bpf_prog_get_fd_by_id(id);
        if fd < 0 {
            return id.to_string();
        }
        let fd = OwnedFd::from_raw_fd(fd);
        libbpf_sys::bpf_obj_get_info_by_fd(fd.as_raw_fd(), std::ptr::from_mut(&mut info).cast(), &mut len);
    }
    let bytes: Vec<u8> = info.name.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    format!("{}#{id}", String::from_utf8_lossy(&bytes))
}
