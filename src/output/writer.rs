//! Writes whole lines to a descriptor, without blocking on a reader that has stopped.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::{SFlag, fstat, makedev},
    unistd::{Whence, ftruncate, lseek, write},
};

/// After this time without progress, at the end of a run, a reader counts as stopped.
pub const STALLED: Duration = Duration::from_secs(1);

/// The number of bytes that a pipe takes without blocking when poll(2) reports it writable.
const PIPE_BUF: usize = 4096;
/// Bytes of lines buffered before a write(2): as much as a pipe holds.
const LINES_MAX: usize = 1 << 16;
/// The same for a file: each write begins in the middle of a page, for which the page cache then allocates small folios.
const FILE_LINES_MAX: usize = 1 << 18;
/// How often a blocked writer checks whether to give up.
const WRITE_POLL: Duration = Duration::from_millis(50);

/// The outcome of a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Everything in the buffer was written.
    All,
    /// The reader has closed its end.
    ReaderGone,
    /// The reader is not reading, and the caller wanted to stop.
    GaveUp,
}

/// A buffered writer of lines.
#[derive(Debug)]
pub struct Writer<Fd> {
    fd: Fd,
    kind: Kind,
    buffer: Vec<u8>,
}

/// The type of a descriptor, which determines how much can be written at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Never blocks, and can be truncated.
    File,
    /// /dev/null, which never blocks.
    Null,
    /// Its size: that many bytes fit when it is empty.
    Pipe(usize),
    /// A terminal or a socket, which may block on larger writes.
    Other,
}

impl<Fd: AsFd> Writer<Fd> {
    /// A writer to `fd`.
    pub fn new(fd: Fd) -> Self {
        let stat = fstat(&fd).ok();
        let kind = match stat.map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT) {
            Some(SFlag::S_IFREG) => Kind::File,
            Some(SFlag::S_IFIFO) => Kind::Pipe(rustix::pipe::fcntl_getpipe_size(&fd).unwrap_or(PIPE_BUF)),
            Some(SFlag::S_IFCHR) if stat.is_some_and(|stat| stat.st_rdev == makedev(1, 3)) => Kind::Null,
            _ => Kind::Other,
        };
        Writer { fd, kind, buffer: Vec::new() }
    }

    /// The buffer to append lines to.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Whether the buffer holds as much as should be written at once.
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= if self.kind == Kind::File { FILE_LINES_MAX } else { LINES_MAX }
    }

    /// The number of lines in the buffer that were not written.
    pub fn pending_lines(&self) -> u64 {
        self.buffer.iter().filter(|&&byte| byte == b'\n').count() as u64
    }

    /// Whether the descriptor is a terminal.
    pub fn is_terminal(&self) -> bool {
        std::io::IsTerminal::is_terminal(&self.fd())
    }

    /// The descriptor, to poll for its reader closing it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Writes everything that is buffered. While the reader is not reading, `give_up` is called with the time since it
    /// stopped.
    ///
    /// # Errors
    /// Errors of write(2) other than EPIPE. A regular file then ends with its last complete line.
    pub fn flush(&mut self, give_up: impl Fn(Duration) -> bool) -> io::Result<Flushed> {
        let mut written = 0;
        let mut stalled_since: Option<Instant> = None;
        let outcome = loop {
            let rest = &self.buffer[written..];
            if rest.is_empty() {
                break Ok(Flushed::All);
            }
            if !matches!(self.kind, Kind::File | Kind::Null) && !self.is_writable()? {
                if give_up(stalled_since.get_or_insert_with(Instant::now).elapsed()) {
                    break Ok(Flushed::GaveUp);
                }
                continue;
            }
            match write(&self.fd, whole_lines(rest, self.room())) {
                Ok(count) => {
                    written += count;
                    stalled_since = None;
                }
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(Errno::EPIPE) => break Ok(Flushed::ReaderGone),
                Err(error) => {
                    self.cut_to_whole_lines(written);
                    break Err(error.into());
                }
            }
        };
        self.buffer.drain(..written);
        outcome
    }

    /// How many bytes can be written without blocking, once it is writable.
    fn room(&self) -> usize {
        match self.kind {
            Kind::File | Kind::Null => usize::MAX,
            // If the pipe is not empty, the space left depends on how its pages are filled.
            Kind::Pipe(size) if rustix::io::ioctl_fionread(&self.fd).is_ok_and(|waiting| waiting == 0) => {
                size
            }
            Kind::Pipe(_) | Kind::Other => PIPE_BUF,
        }
    }

    fn is_writable(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)];
        let patience = PollTimeout::try_from(WRITE_POLL).unwrap_or(PollTimeout::ZERO);
        loop {
            match poll(&mut fds, patience) {
                Ok(ready) => return Ok(ready > 0),
                // The timeout starts again after a signal, such as the one to stop.
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// After an error within a line, removes the part of the line that was written.
    fn cut_to_whole_lines(&self, written: usize) {
        let part =
            written - self.buffer[..written].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        if part == 0 || self.kind != Kind::File {
            return;
        }
        // Do not cut what another process has appended meanwhile.
        if let Ok(end) = lseek(&self.fd, 0, Whence::SeekCur)
            && fstat(&self.fd).is_ok_and(|stat| stat.st_size == end)
        {
            // If this fails too, nothing more can be done; the error of write() is reported.
            let _ = ftruncate(&self.fd, end - part as i64);
        }
    }
}

/// As many whole lines as fit, so that giving up happens between lines; part of a line if it is longer than that.
fn whole_lines(bytes: &[u8], most: usize) -> &[u8] {
    let part = &bytes[..bytes.len().min(most)];
    let end = part.iter().rposition(|&byte| byte == b'\n').map_or(part.len(), |at| at + 1);
    &part[..end]
}

/// Whether poll(2) reported that the other end is closed.
pub fn is_gone(outcome: nix::Result<i32>, fds: &[PollFd<'_>]) -> bool {
    let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
    outcome.is_ok_and(|ready| ready > 0)
        && fds.iter().any(|fd| fd.revents().is_some_and(|events| events.intersects(gone)))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Seek},
        os::fd::OwnedFd,
    };

    use super::*;

    fn pipe() -> (File, Writer<OwnedFd>) {
        let (reader, writer) = nix::unistd::pipe().expect("a pipe");
        (reader.into(), Writer::new(writer))
    }

    #[test]
    fn chunks_end_at_a_line_end_if_possible() {
        assert_eq!(whole_lines(b"ab\ncd\nef", 7), b"ab\ncd\n");
        assert_eq!(whole_lines(b"ab\ncd\n", 100), b"ab\ncd\n");
        assert_eq!(whole_lines(b"abcdef\n", 4), b"abcd");
        assert_eq!(whole_lines(b"", 4), b"");
    }

    #[test]
    fn a_stopped_reader_does_not_block_the_writer() {
        let (mut reader, mut output) = pipe();
        for _ in 0..100_000 {
            output.buffer().extend_from_slice(b"a line of odd length\n");
        }
        assert_eq!(output.flush(|_| true).expect("flush"), Flushed::GaveUp);
        let left = output.pending_lines();
        drop(output);
        let mut seen = Vec::new();
        reader.read_to_end(&mut seen).expect("read");
        let whole = seen.iter().filter(|&&byte| byte == b'\n').count() as u64;
        assert_eq!(seen.last(), Some(&b'\n'), "the last line is whole");
        assert_eq!(whole + left, 100_000);
        assert!(whole > 0 && left > 0);
    }

    #[test]
    fn a_slow_reader_gets_everything() {
        let (mut reader, mut output) = pipe();
        let lines = b"a line\n".repeat(40_000);
        output.buffer().extend_from_slice(&lines);
        std::thread::scope(|scope| {
            // Slower than the writer's checks, but faster than a reader that counts as stopped.
            let slow = scope.spawn(move || {
                let (mut seen, mut part) = (Vec::new(), vec![0; 1 << 16]);
                loop {
                    std::thread::sleep(2 * WRITE_POLL);
                    match reader.read(&mut part).expect("read") {
                        0 => return seen,
                        count => seen.extend_from_slice(&part[..count]),
                    }
                }
            });
            let outcome = output.flush(|stalled| stalled >= 20 * WRITE_POLL).expect("flush");
            assert_eq!(outcome, Flushed::All);
            drop(output);
            assert!(slow.join().expect("the reader") == lines);
        });
    }

    fn reader_gone(output: &Writer<OwnedFd>) -> bool {
        let mut fds = [PollFd::new(output.fd(), PollFlags::empty())];
        is_gone(poll(&mut fds, PollTimeout::ZERO), &fds)
    }

    #[test]
    fn a_closed_reader_is_detected() {
        let (reader, mut output) = pipe();
        assert!(!reader_gone(&output));
        drop(reader);
        assert!(reader_gone(&output));
        output.buffer().extend_from_slice(b"x\n");
        assert_eq!(output.flush(|_| true).expect("flush"), Flushed::ReaderGone);
        assert_eq!(output.pending_lines(), 1);
    }

    #[test]
    fn a_full_disk_leaves_whole_lines() {
        let limit = 10_000;
        let mut file = tempfile();
        // A file size limit simulates a full disk; without a handler, SIGXFSZ would kill the process.
        let mut output = Writer::new(OwnedFd::from(file.try_clone().expect("clone")));
        for _ in 0..1000 {
            output.buffer().extend_from_slice(b"this is a line of 31 characters\n");
        }
        let error = limited(limit, || output.flush(|_| true)).expect_err("the file must not grow");
        assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
        let mut text = String::new();
        file.rewind().expect("rewind");
        file.read_to_string(&mut text).expect("read");
        assert!(text.ends_with('\n') && text.len() < limit as usize && text.len() > limit as usize - 64);
        assert_eq!(output.pending_lines() + text.lines().count() as u64, 1000);
    }

    fn tempfile() -> File {
        let path = std::env::temp_dir().join(format!("tcptrace-output-{}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).expect("create");
        std::fs::remove_file(path).expect("remove");
        file
    }

    fn limited<T>(limit: u64, run: impl FnOnce() -> T) -> T {
        use nix::sys::{
            resource::{Resource, getrlimit, setrlimit},
            signal::{SigSet, Signal},
        };
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGXFSZ);
        blocked.thread_block().expect("block SIGXFSZ");
        let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE).expect("getrlimit");
        setrlimit(Resource::RLIMIT_FSIZE, limit, hard).expect("setrlimit");
        let result = run();
        setrlimit(Resource::RLIMIT_FSIZE, soft, hard).expect("setrlimit");
        result
    }
}
