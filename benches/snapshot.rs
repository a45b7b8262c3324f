//! 50,000 open sockets: time and memory of `tcptrace --snapshot` and `ss -tanp`, alternating.
//!
//! Needs root and iproute2. Separate processes hold the sockets. Each measured command is run by a separate process,
//! because the memory of children is known only as the maximum of all.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Instant,
};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};

const HOLDERS: u8 = 5;
/// Each has two sockets.
const CONNECTIONS: usize = 5_000;
const ROUNDS: usize = 7;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("hold") => hold(arguments[1].parse().expect("a number")),
        Some("measure") => measure(&arguments[1..]),
        _ => compare(),
    }
}

fn compare() {
    let mut holders: Vec<Child> = (0..HOLDERS).map(start_holder).collect();
    let tcptrace = env!("CARGO_BIN_EXE_tcptrace");
    let commands: [&[&str]; 4] = [
        &[tcptrace, "--snapshot"],
        &[tcptrace, "--snapshot", "-f", "csv"],
        &[tcptrace, "--snapshot", "-j"],
        &["ss", "-tanp"],
    ];
    println!("{:>9} {:>9}  sockets  command", "ms", "kB");
    for round in 0..ROUNDS {
        for command in commands {
            let output = this("measure").args(command).output().expect("run this program");
            // the first round warms up
            if round > 0 {
                print!("{}", String::from_utf8_lossy(&output.stdout));
            }
        }
    }
    for holder in &mut holders {
        drop(holder.stdin.take());
        holder.wait().expect("wait for a holder");
    }
}

fn this(part: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.arg(part);
    command
}

/// A process that holds its sockets open.
fn start_holder(number: u8) -> Child {
    let mut holder = this("hold")
        .arg(number.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run this program");
    let mut line = String::new();
    BufReader::new(holder.stdout.as_mut().expect("piped")).read_line(&mut line).expect("text");
    assert_eq!(line, "open\n", "a holder could not open its sockets");
    holder
}

fn hold(number: u8) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("setrlimit");
    let address = IpAddr::V4(Ipv4Addr::new(127, 0, 7, number + 1));
    let listener = TcpListener::bind((address, 0)).expect("listen");
    let address = listener.local_addr().expect("an address");
    let open: Vec<_> = (0..CONNECTIONS)
        .map(|_| (TcpStream::connect(address).expect("connect"), listener.accept().expect("accept")))
        .collect();
    println!("open");
    std::io::stdout().flush().expect("flush");
    // until the other end is closed
    let _ = std::io::stdin().read(&mut [0]);
    drop(open);
}

fn measure(command: &[String]) {
    let start = Instant::now();
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("run the command");
    let mut text = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut text).expect("read");
    let status = child.wait().expect("wait");
    assert!(status.success());
    let elapsed = start.elapsed();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("getrusage");
    let sockets = text.iter().filter(|&&byte| byte == b'\n').count();
    let name = command[0].rsplit('/').next().unwrap_or_default();
    println!(
        "{:9.1} {:9}  {sockets:7}  {name} {}",
        elapsed.as_secs_f64() * 1e3,
        usage.max_rss(),
        command[1..].join(" ")
    );
}
