//! The scripts of actors: one command per line, followed by the rest of the script.

use std::{
    ffi::CString,
    fs,
    io::{Seek, SeekFrom, Write},
    net::TcpStream,
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Command, Stdio},
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{Uid, chroot, setgroups, setresgid, setresuid},
};

use super::{
    actor::{PART, listen, say},
    net::V4,
    sys,
};

/// Executes a script.
pub fn play(script: &str) {
    let (line, rest) = script.split_once('\n').unwrap_or((script, ""));
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        [""] => return,
        ["connect", port] => drop(TcpStream::connect((V4, number(port))).expect("connect")),
        // nothing listens on port 1
        ["fail", times] => (0..number(times)).for_each(|_| {
            TcpStream::connect((V4, 1)).expect_err("refused");
        }),
        ["say", word] => say(word),
        ["hear"] => drop(listen()),
        ["user", uid] => {
            let uid = Uid::from_raw(number(uid));
            setresuid(uid, uid, uid).expect("setresuid");
        }
        ["group", gid] => {
            let gid = nix::unistd::Gid::from_raw(number(gid));
            setgroups(&[]).and_then(|()| setresgid(gid, gid, gid)).expect("setresgid");
        }
        ["rename", times] => (0..number(times)).for_each(|time| {
            fs::write("/proc/thread-self/comm", format!("\u{1b}[2J{time}")).expect("comm");
            TcpStream::connect((V4, 1)).expect_err("refused");
        }),
        // twice as many processes at each step; each of them connects
        ["bomb", steps] => bomb(number(steps)),
        ["users", times, one, other] => alternate(number(times), number(one), number(other)),
        ["fresh-users", first, last] => (number::<u32>(first)..number(last)).for_each(|uid| {
            sys::set_effective_user(uid);
            TcpStream::connect((V4, 1)).expect_err("refused");
        }),
        ["capabilities", set] => sys::set_capabilities(number(set)),
        ["login", uid] => fs::write("/proc/self/loginuid", uid).expect("loginuid"),
        ["title", title] => set_title(&title.replace('_', " ")),
        ["unlink", path] => fs::remove_file(path).expect("unlink"),
        ["namespace", "mount"] => {
            unshare(CloneFlags::CLONE_NEWNS).expect("unshare");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("make mounts private");
        }
        ["new-networks", times] => (0..number(times)).for_each(|_| {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
            TcpStream::connect((V4, 1)).expect_err("no route");
        }),
        ["namespace", "user"] => {
            let uid = nix::unistd::geteuid();
            unshare(CloneFlags::CLONE_NEWUSER).expect("unshare");
            fs::write("/proc/self/uid_map", format!("0 {uid} 1")).expect("uid_map");
        }
        ["bind", from, to] => {
            mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("bind");
        }
        ["overlay", dir, options] => {
            mount(Some("overlay"), dir, Some("overlay"), MsFlags::empty(), Some(options)).expect("overlay");
        }
        ["chroot", dir] => chroot(dir).and_then(|()| nix::unistd::chdir("/")).expect("chroot"),
        ["cd", dir] => nix::unistd::chdir(dir).expect("chdir"),
        // the child continues the script
        ["fork"] => {
            if let Some(child) = sys::fork_child() {
                nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None).expect("wait");
                sys::leave();
            }
        }
        // the child continues the script, after it has been reparented
        ["fork-away"] => {
            let parent = nix::unistd::getpid();
            if sys::fork_child().is_some() {
                sys::leave();
            }
            while nix::unistd::getppid() == parent {
                thread::yield_now();
            }
            say(std::process::id());
        }
        ["thread"] => {
            let rest = rest.to_owned();
            thread::spawn(move || play(&rest)).join().expect("the thread");
            return;
        }
        // posix_spawn(3): vfork and exec
        ["spawn", program, ref arguments @ ..] => {
            let mut child = with_rest(program, arguments, rest).stdin(Stdio::null()).spawn().expect("spawn");
            say(child.id());
            child.wait().expect("wait");
            return;
        }
        ["exec", program, ref arguments @ ..] => {
            panic!("exec {program}: {}", with_rest(program, arguments, rest).exec())
        }
        ["exec-bare", program] => {
            let (program, part) = (c(program), c(&format!("{PART}={rest}")));
            let none: [CString; 0] = [];
            let error = nix::unistd::execve(&program, &none, &[part]);
            panic!("execve: {error:?}")
        }
        ["memfd", name, program, ref arguments @ ..] => exec_memfd(name, program, arguments, rest),
        _ => panic!("an actor cannot {line}"),
    }
    play(rest);
}

fn bomb(steps: usize) {
    let (mut children, mut first) = (Vec::new(), true);
    for _ in 0..steps {
        match sys::fork_child() {
            Some(child) => children.push(nix::unistd::Pid::from_raw(child)),
            None => (children, first) = (Vec::new(), false),
        }
    }
    TcpStream::connect((V4, 1)).expect_err("refused");
    for child in children {
        nix::sys::wait::waitpid(child, None).expect("wait");
    }
    if !first {
        sys::leave();
    }
}

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("{word} is not a number"))
}

fn c(text: &str) -> CString {
    CString::new(text).expect("no NUL")
}

fn with_rest(program: &str, arguments: &[&str], rest: &str) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env(PART, rest);
    command
}

/// Two threads with different users alternate; all their connects are refused.
fn alternate(times: u32, one: u32, other: u32) {
    let barrier = std::sync::Barrier::new(2);
    thread::scope(|scope| {
        for uid in [one, other] {
            let barrier = &barrier;
            scope.spawn(move || {
                sys::set_thread_user(uid);
                for _ in 0..times {
                    barrier.wait();
                    TcpStream::connect((V4, 1)).expect_err("refused");
                }
            });
        }
    });
}

/// Does what setproctitle(3) does: overwrites argv, including its last NUL, and part of the environment.
fn set_title(title: &str) {
    let stat = fs::read_to_string("/proc/self/stat").expect("stat");
    let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
    let field =
        |number: usize| fields.split(' ').nth(number - 3).expect("a field").parse::<u64>().expect("a number");
    let (start, end) = (field(48), field(49));
    let mut text = title.as_bytes().to_vec();
    text.resize(text.len().max((end - start) as usize), b'.');
    text.push(0);
    let mut memory = fs::File::options().write(true).open("/proc/self/mem").expect("our memory");
    memory.seek(SeekFrom::Start(start)).and_then(|_| memory.write_all(&text)).expect("write the title");
}

fn exec_memfd(name: &str, program: &str, arguments: &[&str], rest: &str) -> ! {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let mut memory =
        fs::File::from(memfd_create(c(name).as_c_str(), MFdFlags::MFD_CLOEXEC).expect("memfd_create"));
    memory.write_all(&fs::read(program).expect("read the program")).expect("fill the memfd");
    let argv: Vec<CString> = [name].iter().chain(arguments).map(|word| c(word)).collect();
    let error = nix::unistd::fexecve(memory.as_fd(), &argv, &[c(&format!("{PART}={rest}"))]);
    panic!("fexecve: {error:?}")
}
