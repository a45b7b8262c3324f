//! Opens the files of a recording: plain, gzip or zstd, detected by their first bytes.

use std::{
    cell::OnceCell,
    fs::{File, Metadata},
    io::{self, BufRead, BufReader, Chain, Cursor, Read, stdin},
    os::fd::AsFd,
    path::Path,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;
use nix::poll::{PollFd, PollFlags, poll};

use crate::session::stop::Stop;

/// Size of a read, in bytes.
const CHUNK: usize = 1 << 20;

/// How often a blocked read checks whether to stop, in milliseconds.
const TICK: u8 = 100;

/// An input file of a replay.
pub struct Input {
    /// The name, as given on the command line.
    pub name: String,
    lines: Box<dyn BufRead>,
    live: bool,
    size: u64,
    read: Arc<AtomicU64>,
    stop: Rc<OnceCell<Stop>>,
}

impl Input {
    /// Opens a file, or stdin for `-`.
    ///
    /// # Errors
    /// When it cannot be opened or its first bytes cannot be read, or when it is the file identified by `is_output`.
    pub fn open(path: &Path, is_output: impl Fn(&Metadata) -> bool) -> Result<Input> {
        let name = path.display().to_string();
        let file = match path.to_str() {
            Some("-") => stdin().as_fd().try_clone_to_owned().map(File::from),
            _ => File::open(path),
        };
        let file = file.with_context(|| format!("open {name}"))?;
        let metadata = file.metadata().with_context(|| format!("stat {name}"))?;
        if metadata.is_dir() {
            bail!("open {name}: is a directory");
        }
        if is_output(&metadata) {
            bail!("{name} is also the output");
        }
        let live = !metadata.is_file();
        let (read, stop) = (Arc::default(), Rc::default());
        let source = Source { file, live, read: Arc::clone(&read), stop: Rc::clone(&stop) };
        let lines = decompressed(source).with_context(|| format!("read {name}"))?;
        Ok(Input { name, lines, live, size: metadata.len(), read, stop })
    }

    /// Makes reads fail once `stop` says so, instead of waiting for more input.
    pub fn stops_with(&self, stop: &Stop) {
        self.stop.get_or_init(|| stop.clone());
    }

    /// Whether more input may arrive later (a pipe), so that output must not be held back.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// The size of the file, if known, and the number of bytes read so far.
    pub fn progress(&self) -> (u64, Arc<AtomicU64>) {
        (self.size, Arc::clone(&self.read))
    }
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.lines.read(into)
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.lines.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.lines.consume(amount);
    }
}

/// The bytes of the file: counts the bytes read, and stops blocking once it should stop.
struct Source {
    file: File,
    live: bool,
    read: Arc<AtomicU64>,
    stop: Rc<OnceCell<Stop>>,
}

impl Source {
    /// Waits for input or a signal; a signal does not interrupt read(2).
    fn wait(&self, stop: &Stop) -> io::Result<()> {
        while poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)], TICK)? == 0 {
            if stop.signalled() {
                return Err(io::Error::other("stopped by a signal"));
            }
        }
        Ok(())
    }
}

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if let Some(stop) = self.stop.get().filter(|_| self.live) {
            self.wait(stop)?;
        }
        let read = self.file.read(into)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Selects the decoder by the first four bytes (RFC 1952, RFC 8878); shorter files are plain.
fn decompressed(mut file: impl Read + 'static) -> Result<Box<dyn BufRead>> {
    let mut magic = Vec::with_capacity(4);
    while magic.len() < 4 {
        let mut next = [0; 4];
        match file.read(&mut next[magic.len()..]) {
            Ok(0) => break,
            Ok(read) => {
                let from = magic.len();
                magic.extend_from_slice(&next[from..from + read]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let kind = magic.clone();
    let whole: Chain<_, _> = Cursor::new(magic).chain(file);
    Ok(match kind[..] {
        [0x1f, 0x8b, ..] => Box::new(BufReader::with_capacity(CHUNK, MultiGzDecoder::new(whole))),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(BufReader::with_capacity(CHUNK, zstd::Decoder::new(whole)?)),
        _ => Box::new(BufReader::with_capacity(CHUNK, whole)),
    })
}
