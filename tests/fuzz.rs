//! Runs the fuzz targets for a short time, without coverage: the corpus, then random modifications of it. `fuzz/run`
//! runs them for longer, with libFuzzer. TCPTRACE_TEST_FUZZ sets the number of seconds per target.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant},
};

#[path = "../fuzz/targets.rs"]
mod targets;

/// The default number of seconds per target.
const SECONDS: u64 = 30;
/// Maximum length of an input.
const LENGTH_MAX: usize = 4096;
/// Maximum time for one input.
const PATIENCE: Duration = Duration::from_secs(5);

/// Random numbers (xorshift64*), the same for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// A number below `end`, which must not be 0.
    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }
}

/// Makes a few random changes, some with parts of another input.
fn change(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(16)).min(input.len());
        match random.below(6) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'\n', b'('][random.below(8)],
            2 => drop(input.drain(at..end)),
            3 => input.insert(at, random.next() as u8),
            4 => {
                let part = input[at..end].to_vec();
                input.splice(at..at, part);
            }
            _ if !other.is_empty() => {
                let from = random.below(other.len());
                let to = (from + 1 + random.below(32)).min(other.len());
                input.splice(at..end, other[from..to].iter().copied());
            }
            _ => {}
        }
    }
    input.truncate(LENGTH_MAX);
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let files = fs::read_dir(folder).expect("a corpus");
    files.map(|file| fs::read(file.expect("a file").path()).expect("an input")).collect()
}

fn fuzz(name: &str) {
    let (_, target) = targets::TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let run = |input: &[u8]| {
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
        assert!(outcome.is_ok(), "{name} panics for {input:02x?}");
        assert!(started.elapsed() < PATIENCE, "{name} takes {:?} for {input:02x?}", started.elapsed());
    };
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "{name} has no corpus");
    corpus.iter().for_each(|input| run(input));
    let seconds =
        std::env::var("TCPTRACE_TEST_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970");
    let mut random = Random(now.as_nanos() as u64 | 1);
    let mut count = 0_u64;
    while Instant::now() < deadline {
        let mut input = corpus[random.below(corpus.len())].clone();
        change(&mut input, &corpus[random.below(corpus.len())], &mut random);
        run(&input);
        count += 1;
    }
    println!("{name}: {count} inputs");
}

#[test]
fn records() {
    fuzz("wire");
}

#[test]
fn lines() {
    fuzz("table");
}

#[test]
fn dns_messages() {
    fuzz("dns");
}

#[test]
fn predicates() {
    fuzz("predicate");
}

#[test]
fn configurations() {
    fuzz("yaml");
}

#[test]
fn recordings() {
    fuzz("recording");
}

#[test]
fn containers() {
    fuzz("container");
}
