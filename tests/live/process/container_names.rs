//! Container names, read through the sandbox from sample files, and with a real runtime if there is one.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::PathBuf,
    process::Command,
};

use libtest_mimic::Completion;
use nix::{sys::stat::Mode, unistd::mkfifo};
use serde_json::Value;

use crate::{
    common::{Launch, Trace, actor::Actor, harness::skipped, probes, procfs::runs, wait_until},
    containers::{Group, hierarchies},
    support::*,
};

/// Mounts the directory `$0` where runtimes have theirs, in a private mount namespace, and runs the arguments.
const ELSEWHERE: &str = "mount --bind \"$0/lib\" /var/lib && mount --bind \"$0/run\" /run && \
     mount --bind \"$0/passwd\" /etc/passwd && exec \"$@\"";

const ANN: u32 = 54321;

/// An id that starts with this digit.
fn id(digit: char) -> String {
    format!("{digit}{}", "0".repeat(63))
}

/// Files of runtimes on a host.
struct Fixture(Folder);

impl Fixture {
    fn new() -> Fixture {
        let fixture = Fixture(Folder::new());
        fs::create_dir(fixture.0.path("run")).expect("create a folder");
        fixture.write("passwd", &format!("root:x:0:0::/root:\nann:x:{ANN}:{ANN}::/var/lib/ann:\n"));
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.0.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        path
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("write");
    }

    /// tcptrace with these files in place.
    fn launch(&self, arguments: &[&str]) -> Launch {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", ELSEWHERE]).arg(self.0.root()).arg(env!("CARGO_BIN_EXE_tcptrace"));
        Launch::with(command).args(["-j", "-e", "connect", "--probes", &probes()]).args(arguments)
    }
}

fn docker(name: &str) -> String {
    format!(r#"{{"Name": "/{name}", "Config": {{"Image": "shop/{name}:2", "Labels": {{}}}}}}"#)
}

fn all_runtimes() -> Fixture {
    let fixture = Fixture::new();
    let docker_file = |id: &str| format!("lib/docker/containers/{id}/config.v2.json");
    fixture.write(&docker_file(&id('a')), &docker("web"));
    let cri = r#"{"annotations": {"io.kubernetes.cri.container-name": "app", "io.kubernetes.cri.image-name": "nginx:1",
        "io.kubernetes.cri.sandbox-name": "web-7d4b-x2kqp", "io.kubernetes.cri.sandbox-namespace": "shop"}}"#;
    let tasks = "run/containerd/io.containerd.runtime.v2.task/k8s.io";
    fixture.write(&format!("{tasks}/{}/config.json", id('b')), cri);
    let crio = r#"{"annotations": {"io.kubernetes.container.name": "db", "io.kubernetes.cri-o.ImageName": "pg:15",
        "io.kubernetes.pod.name": "db-0", "io.kubernetes.pod.namespace": "shop"}}"#;
    let storage = "lib/containers/storage/overlay-containers";
    fixture.write(&format!("{storage}/{}/userdata/config.json", id('c')), crio);
    let list = |id: &str, name: &str| {
        let metadata = r#"{\"image-name\":\"localhost/box:1\"}"#;
        format!(r#"[{{"id": "{id}", "names": ["{name}"], "metadata": "{metadata}"}}]"#)
    };
    fixture.write(&format!("{storage}/{}/userdata/config.json", id('d')), "{}");
    fixture.write(&format!("{storage}/containers.json"), &list(&id('d'), "cart"));

    // rootless, in a home directory
    let storage = "lib/ann/.local/share/containers/storage/overlay-containers";
    fixture.write(&format!("{storage}/{}/userdata/config.json", id('e')), "{}");
    fixture.write(&format!("{storage}/volatile-containers.json"), &list(&id('e'), "hers"));
    let home = fixture.path("lib/ann");
    chown(&home, Some(ANN), Some(ANN)).expect("chown");
    fs::set_permissions(&home, Permissions::from_mode(0o700)).expect("chmod");

    // files replaced by something else
    mkfifo(&fixture.path(&docker_file(&id('1'))), Mode::S_IRUSR).expect("a pipe");
    let large = File::create(fixture.path(&docker_file(&id('2')))).expect("create");
    large.set_len(1 << 30).expect("a gigabyte");
    symlink(format!("../{}/config.v2.json", id('a')), fixture.path(&docker_file(&id('3')))).expect("a link");
    fixture.write(&docker_file(&id('4')), r#"{"Name": "/web"#);
    fixture
}

/// The names in a process object.
fn names(process: &Value) -> [Option<&str>; 4] {
    ["container_name", "container_image", "pod", "namespace"].map(|name| process[name].as_str())
}

/// Makes a process connect in the container with this id; returns its process id.
fn connect_in(id: &str, port: u16) -> u32 {
    let group = Group::new(&hierarchies()[0], &format!("docker/{id}"));
    let script = format!("say here\nhear\nconnect {port}");
    let mut actor = Actor::spawn(&mut Actor::program(this_program(), &script));
    actor.hear();
    let pid = actor.pid();
    group.take(pid);
    actor.tell("connect");
    actor.leave();
    pid
}

/// The same, but returns its event.
fn event_in(id: &str, port: u16, trace: &mut Trace) -> Value {
    let event = event_of(trace, connect_in(id, port));
    assert_eq!(event["process"]["container_id"], *id);
    event
}

fn names_of_every_runtime() {
    let port = open_door();
    let fixture = all_runtimes();
    for (user, later) in [(None, '6'), (Some(65534), '7')] {
        let mut launch = fixture.launch(&["--dport", &port.to_string()]);
        if let Some(user) = user {
            launch = launch.env("SUDO_UID", &user.to_string()).env("SUDO_GID", "65534");
        }
        let mut trace = Trace::of(launch);
        for (digit, expected) in [
            ('a', [Some("web"), Some("shop/web:2"), None, None]),
            ('b', [Some("app"), Some("nginx:1"), Some("web-7d4b-x2kqp"), Some("shop")]),
            ('c', [Some("db"), Some("pg:15"), Some("db-0"), Some("shop")]),
            ('d', [Some("cart"), Some("localhost/box:1"), None, None]),
            ('e', [Some("hers"), Some("localhost/box:1"), None, None]),
            ('1', [None; 4]),
            ('2', [None; 4]),
            ('3', [None; 4]),
            ('4', [None; 4]),
            ('5', [None; 4]),
        ] {
            let event = event_in(&id(digit), port, &mut trace);
            assert_eq!(names(&event["process"]), expected, "{digit} as {user:?}");
            assert_eq!(names(&event["parent"]), [None; 4]);
        }
        // a container that starts during tracing
        let file = format!("lib/docker/containers/{}/config.v2.json", id(later));
        fixture.write(&file, &docker("later"));
        let event = event_in(&id(later), port, &mut trace);
        assert_eq!(names(&event["process"])[0], Some("later"));
        // it is not read again
        fs::remove_file(fixture.path(&file)).expect("remove");
        let event = event_in(&id(later), port, &mut trace);
        assert_eq!(names(&event["process"])[0], Some("later"));
        trace.stop();
    }
}

fn filters_on_names() {
    let port = open_door();
    let fixture = all_runtimes();
    for (filter, selected) in [
        (&["--container", "web"][..], "a"),
        (&["--container", "web", "--container", &id('d')[..12]], "ad"),
        (&[r#"pod == "web-*" OR container_name == "hers""#], "be"),
        (&[r#"namespace == "shop" AND NOT pod == "db-0""#], "b"),
        (&[r#"container_id == "a" OR container_id == "b""#], "ab"),
    ] {
        let mut trace = Trace::of(fixture.launch(&["--dport", &port.to_string()]).args(filter));
        // The last connection is selected: once its event is seen, all earlier ones have been evaluated.
        let last = selected.chars().last().expect("one");
        for digit in "abcde".chars().filter(|digit| *digit != last) {
            connect_in(&id(digit), port);
        }
        event_in(&id(last), port, &mut trace);
        let mut seen: Vec<char> = trace
            .events
            .iter()
            .filter_map(|event| event["process"]["container_id"].as_str()?.chars().next())
            .collect();
        seen.sort_unstable();
        assert_eq!(String::from_iter(seen), selected, "{filter:?}");
        trace.stop();
    }
}

/// The process that reads names for another one.
fn reader_of(tracer: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children")).ok()?;
    let reads = |pid: &u32| {
        let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline"));
        arguments.is_ok_and(|arguments| arguments.contains("--read-containers"))
    };
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(reads)
}

fn the_reader_is_confined_and_ends_with_the_tracer() {
    let port = open_door();
    let mut trace = Trace::of(all_runtimes().launch(&["--dport", &port.to_string()]));
    event_in(&id('a'), port, &mut trace);
    let reader = reader_of(trace.pid()).expect("a reader");
    let status = fs::read_to_string(format!("/proc/{reader}/status")).expect("status");
    for (name, value) in [
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000004"),
        ("CapEff", "0000000000000004"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        assert!(status.contains(&format!("{name}:\t{value}\n")), "{name} of {status}");
    }
    trace.stop();
    wait_until(&format!("{reader} is left"), || !runs(reader));
}

/// Without directories of a runtime there is no reader process.
fn without_runtimes_there_is_no_reader() {
    let fixture = Fixture::new();
    fixture.path("lib/x");
    let trace = Trace::of(fixture.launch(&[]));
    assert_eq!(reader_of(trace.pid()), None);
    trace.stop();
}

/// Prepares podman's storage, then runs tcptrace.
const WITH_PODMAN: &str = "mount -t tmpfs none /var/lib && mount -t tmpfs none /run && \
     busybox tar -C \"$0\" -cf - bin | podman import -q - localhost/tcptrace-test:1 >&2 && exec \"$@\"";

/// Limits that any root user may set, because this host may not allow raising them.
const PODMAN_RUN: &str = "run --rm --network host --ulimit nofile=1000:1000 --ulimit nproc=1000:1000 \
     --name tcptrace-test localhost/tcptrace-test:1 /bin/busybox nc -w 10 127.0.0.1";

/// Runs podman in a private environment.
fn podman(runtime: &[&str], arguments: &str, within: u32) -> std::process::Output {
    Command::new("nsenter")
        .args(["-m", "-t", &within.to_string(), "podman"])
        .args(runtime)
        .args(arguments.split_whitespace())
        .output()
        .expect("nsenter, from util-linux")
}

fn a_container_of_podman() -> Completion {
    if Command::new("podman").arg("--version").output().is_err() {
        return skipped("podman is not installed");
    }
    let has_runc = Command::new("runc").arg("--version").output().is_ok();
    let runtime: &[&str] = if has_runc { &["--runtime", "runc"] } else { &[] };
    let image = Folder::new();
    fs::create_dir(image.path("bin")).expect("create a folder");
    fs::copy("/bin/busybox", image.path("bin/busybox"))
        .expect("busybox-static; `make test-deps` installs it");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", WITH_PODMAN]).arg(image.root()).arg(env!("CARGO_BIN_EXE_tcptrace"));
    let port = open_door();
    let launch = Launch::with(command).args([
        "-j",
        "-e",
        "connect",
        "--dport",
        &port.to_string(),
        "--probes",
        &probes(),
    ]);
    let mut trace = Trace::of(launch);
    let ran = podman(runtime, &format!("{PODMAN_RUN} {port}"), trace.pid());
    if !ran.status.success() {
        trace.stop();
        let why = String::from_utf8_lossy(&ran.stderr).trim().replace('\n', "; ");
        return skipped(&format!("podman runs no container here: {why}"));
    }
    let event = events_at(&mut trace, port, 1).remove(0);
    let expected = [Some("tcptrace-test"), Some("localhost/tcptrace-test:1"), None, None];
    assert_eq!(names(&event["process"]), expected, "{event:#}");
    trace.stop();
    Completion::Completed
}

crate::tests![
    names_of_every_runtime,
    filters_on_names,
    the_reader_is_confined_and_ends_with_the_tracer,
    without_runtimes_there_is_no_reader,
    a_container_of_podman,
];
