//! The cost of watching DNS on a host that transfers bulk data: 1 GB over loopback TCP, with and without it.
//!
//! `cargo bench --bench dns_throughput` (as root). Both variants alternate, so that other load affects both; the result
//! is the median of the ratios of pairs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const BYTES: usize = 1 << 30;
const CHUNK: usize = 1 << 16;
const PAIRS: usize = 15;

fn main() {
    let mut ratios = Vec::new();
    let mut rates = [Vec::new(), Vec::new()];
    transfer();
    for pair in 0..PAIRS {
        let mut rate = [0.0; 2];
        // The second one benefits from warm caches: alternate.
        for turn in [pair % 2, 1 - pair % 2] {
            let mut tracer = trace(["--no-dns", "--color=never"][turn]);
            rate[turn] = transfer();
            tracer.kill().unwrap();
            tracer.wait().unwrap();
            rates[turn].push(rate[turn]);
        }
        ratios.push(rate[1] / rate[0]);
    }
    let [off, on] = rates.map(median);
    let ratio = median(ratios);
    println!("1 GB by loopback TCP: {off:.0} MB/s without DNS, {on:.0} MB/s with, ratio {ratio:.3}");
}

/// Starts tcptrace with few events to report.
fn trace(option: &str) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
        .args(["-j", option])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stderr.take().unwrap()).lines();
    let ready = said.map_while(Result::ok).any(|line| line.contains("ready"));
    assert!(ready, "tcptrace did not start: root?");
    child
}

/// The throughput in MB/s.
fn transfer() -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let sender = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(addr).unwrap();
        let chunk = vec![1; CHUNK];
        for _ in 0..BYTES / CHUNK {
            stream.write_all(&chunk).unwrap();
        }
    });
    let (mut stream, _) = listener.accept().unwrap();
    let start = Instant::now();
    let mut chunk = vec![0; 1 << 20];
    let mut received = 0;
    while received < BYTES {
        received += stream.read(&mut chunk).unwrap();
    }
    let took = start.elapsed().as_secs_f64();
    sender.join().unwrap();
    BYTES as f64 / took / 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
