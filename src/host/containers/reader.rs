//! A helper process that reads the runtimes' files during tracing. Only it may read them, and it may do nothing else.
//!
//! The protocol, over a socket pair: a request is a container id; the answer is that id and the four names, each ended
//! by a NUL, empty if not known.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    unistd::{close, read, write},
};
use signal_hook::{consts::SIGHUP, flag};

use super::{
    super::{sandbox, sudo_user::SudoUser},
    Folders,
};
use crate::{event::Container, process::container::is_hex_id};

/// The hidden option that makes a second tcptrace process this helper, see [`serve`].
pub const READ: &str = "--read-containers";

/// Maximum number of cached containers; beyond this, the cache is cleared.
const KNOWN_MAX: usize = 4096;

/// Timeout for an answer, and the number of failures after which nothing more is asked: a file system may hang.
const PATIENCE: Duration = Duration::from_millis(500);
const PATIENCE_ENDS: u32 = 3;

/// Maximum length of an answer in bytes: an id and four names of up to 512.
const ANSWER_MAX: usize = 4096;

/// Looks up container names through the helper, once per container.
#[derive(Debug, Default)]
pub struct Reader(RefCell<Asking>);

#[derive(Debug, Default)]
struct Asking {
    /// None if there is nothing to read, or the helper has stopped answering.
    socket: Option<OwnedFd>,
    known: HashMap<String, Option<Rc<Container>>>,
    in_vain: u32,
}

impl Reader {
    /// Starts the helper, if any runtime has a directory here.
    ///
    /// It is in a separate process group, so that Ctrl-C does not end it before the last event is shown.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(sandbox: bool) -> Result<Reader> {
        if !Folders::exist() {
            return Ok(Reader::default());
        }
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, its) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .context("create a socket pair")?;
        Command::new("/proc/self/exe")
            .arg(READ)
            .args((!sandbox).then_some("--no-sandbox"))
            .stdin(its)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start the process that reads container names")?;
        Ok(Reader::over(ours))
    }

    fn over(socket: OwnedFd) -> Reader {
        Reader(RefCell::new(Asking { socket: Some(socket), ..Asking::default() }))
    }

    /// The names of the container with this id, as they were on the first look-up.
    pub fn container(&self, id: &str) -> Option<Rc<Container>> {
        self.0.borrow_mut().container(id)
    }
}

impl Asking {
    fn container(&mut self, id: &str) -> Option<Rc<Container>> {
        if let Some(known) = self.known.get(id) {
            return known.clone();
        }
        if !is_hex_id(id) || self.socket.is_none() {
            return None;
        }
        if self.ask(id).is_err() {
            self.in_vain += 1;
            if self.in_vain == PATIENCE_ENDS {
                self.socket = None;
            }
        }
        self.known.get(id).cloned().flatten()
    }

    /// Sends a request and caches all answers up to the one for this id: earlier ones may arrive late.
    fn ask(&mut self, id: &str) -> Result<()> {
        let socket = self.socket.as_ref().context("no helper process")?;
        write(socket, id.as_bytes())?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.checked_duration_since(Instant::now()).context("no answer")?;
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) => continue,
                Err(nix::errno::Errno::EINTR) => continue,
                result => result?,
            };
            let mut answer = [0; ANSWER_MAX];
            let length = read(socket, &mut answer)?;
            let (of, container) = decode(&answer[..length]).context("no answer")?;
            if self.known.len() >= KNOWN_MAX {
                self.known.clear();
            }
            let found = of == id;
            self.known.insert(of, container.map(Rc::new));
            if found {
                return Ok(());
            }
        }
    }
}

/// Runs as the helper: answers requests on stdin until the other end is closed.
///
/// # Errors
/// When the kernel refuses the confinement, or the socket fails.
pub fn serve(sandbox: bool, invoker: Option<&SudoUser>) -> Result<()> {
    close_inherited_descriptors()?;
    // `systemctl kill --signal=HUP` reaches all processes of a unit; it only concerns the output of tcptrace.
    flag::register(SIGHUP, Arc::default()).context("catch SIGHUP")?;
    let folders = Folders::find();
    if sandbox {
        sandbox::reader::confine(invoker, folders.fds())?;
    }
    let stdin = io::stdin();
    let mut question = [0; 65];
    loop {
        let length = read(&stdin, &mut question)?;
        if length == 0 {
            return Ok(());
        }
        let id = String::from_utf8_lossy(&question[..length]);
        let container = folders.look_up(&id).unwrap_or_default();
        write(&stdin, &encode(&id, &container))?;
    }
}

/// Closes inherited descriptors, such as that of `--ready-fd`: once tcptrace closes its own, the reader must see
/// the end of the file.
fn close_inherited_descriptors() -> Result<()> {
    let open = fs::read_dir("/proc/self/fd").context("list open descriptors")?;
    let numbers: Vec<i32> =
        open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // One of them is the descriptor of the list itself, now closed.
        let _ = close(number);
    }
    Ok(())
}

fn encode(id: &str, container: &Container) -> Vec<u8> {
    let Container { name, image, pod, namespace } = container;
    let names = [name, image, pod, namespace].map(|name| name.as_deref().unwrap_or_default());
    let parts = std::iter::once(id).chain(names);
    parts.flat_map(|part| [part.as_bytes(), &[0]].concat()).collect()
}

/// Decodes an answer to the id and the container's names. None if it is malformed.
fn decode(answer: &[u8]) -> Option<(String, Option<Container>)> {
    let text = std::str::from_utf8(answer.strip_suffix(&[0])?).ok()?;
    let [id, names @ ..] = &text.split('\0').collect::<Vec<_>>()[..] else { return None };
    let &[name, image, pod, namespace] = names else { return None };
    let [name, image, pod, namespace] =
        [name, image, pod, namespace].map(|name| (!name.is_empty()).then(|| name.to_owned()));
    let container = Container { name, image, pod, namespace };
    Some(((*id).to_owned(), (!container.is_empty()).then_some(container)))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn pair() -> (Reader, OwnedFd) {
        let (ours, its) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::empty()).expect("a pair");
        (Reader::over(ours), its)
    }

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    fn named(name: &str) -> Container {
        Container { name: Some(name.to_owned()), ..Container::default() }
    }

    #[test]
    fn each_container_is_looked_up_once_and_late_answers_are_used() {
        let (reader, its) = pair();
        let answers = thread::spawn(move || {
            let mut asked = Vec::new();
            let mut question = [0; 65];
            while let Ok(length @ 1..) = read(&its, &mut question) {
                let of = String::from_utf8_lossy(&question[..length]).into_owned();
                if of == id('b') {
                    write(&its, &encode(&id('c'), &named("early"))).expect("write");
                }
                let container = if of == id('a') { named("web") } else { Container::default() };
                write(&its, &encode(&of, &container)).expect("write");
                asked.push(of);
            }
            asked
        });
        for _ in 0..2 {
            assert_eq!(reader.container(&id('a')).as_deref(), Some(&named("web")));
            assert_eq!(reader.container(&id('b')), None);
            assert_eq!(reader.container(&id('c')).as_deref(), Some(&named("early")));
            assert_eq!(reader.container("deb-12"), None);
        }
        drop(reader);
        assert_eq!(answers.join().expect("a thread"), [id('a'), id('b')]);
    }

    #[test]
    fn a_helper_that_does_not_answer_is_given_up() {
        for junk in [&b""[..], b"junk", b"a\0b\0", &[0xff; 70]] {
            let (reader, its) = pair();
            for _ in 0..PATIENCE_ENDS {
                if !junk.is_empty() {
                    write(&its, junk).expect("write");
                }
                assert_eq!(reader.container(&id('a')), None);
            }
            assert!(reader.0.borrow().socket.is_none());
            assert_eq!(reader.container(&id('a')), None);
        }
        let (reader, its) = pair();
        drop(its);
        assert_eq!(reader.container(&id('a')), None);
    }

    #[test]
    fn the_name_cache_is_bounded() {
        let mut asking = Asking::default();
        let (reader, its) = pair();
        asking.socket = reader.0.into_inner().socket;
        for number in 0..KNOWN_MAX + 10 {
            let id = format!("{number:064x}");
            write(&its, &encode(&id, &Container::default())).expect("write");
            asking.container(&id);
            read(&its, &mut [0; 65]).expect("read");
        }
        assert_eq!(asking.known.len(), 10);
    }

    proptest! {
        #[test]
        fn answers_round_trip(names in prop::array::uniform4(prop::option::of("[^\0]{1,20}"))) {
            let [name, image, pod, namespace] = names;
            let container = Container { name, image, pod, namespace };
            let known = (!container.is_empty()).then(|| container.clone());
            prop_assert_eq!(decode(&encode("id", &container)), Some(("id".to_owned(), known)));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            decode(&bytes);
        }
    }
}
