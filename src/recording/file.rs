//! The files of a recording: plain, gzip or zstd, known by how they begin.

use std::{
    fs::{File, Metadata},
    io::{self, BufRead, BufReader, Chain, Cursor, Read, stdin},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;

/// Read at a time.
const CHUNK: usize = 1 << 20;

/// One file of a recording.
pub struct Input {
    /// As it was typed.
    pub name: String,
    lines: Box<dyn BufRead>,
    live: bool,
    size: u64,
    read: Arc<AtomicU64>,
}

impl Input {
    /// Open a file, or stdin for `-`.
    ///
    /// # Errors
    /// When it cannot be opened, or its beginning cannot be read, or it is the file that `is_output` knows.
    pub fn open(path: &Path, is_output: impl Fn(&Metadata) -> bool) -> Result<Input> {
        let name = path.display().to_string();
        let (file, live): (Box<dyn Read>, bool) = if name == "-" {
            (Box::new(stdin().lock()), true)
        } else {
            let file = File::open(path).with_context(|| format!("open {name}"))?;
            let metadata = file.metadata().with_context(|| format!("look at {name}"))?;
            if metadata.is_dir() {
                bail!("open {name}: it is a directory");
            }
            if is_output(&metadata) {
                bail!("{name} is the output as well");
            }
            (Box::new(file), !metadata.is_file())
        };
        let size = if live { 0 } else { path.metadata().map_or(0, |metadata| metadata.len()) };
        let read = Arc::default();
        let counted = Counted { file, read: Arc::clone(&read) };
        let lines = decompressed(counted).with_context(|| format!("read {name}"))?;
        Ok(Input { name, lines, live, size, read })
    }

    /// More may come while what is there has been read: lines are not to be held back.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Bytes of the file, as far as they are known, and how many of them have been read.
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

/// Counts what is read.
struct Counted {
    file: Box<dyn Read>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// By the first four bytes (RFC 1952, RFC 8878); what has fewer is plain.
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
