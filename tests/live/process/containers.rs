//! Container ids, in cgroups named like those of the runtimes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{common::actor::Actor, support::*};

const ID: &str = "3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b";

fn containers_of_every_runtime() {
    let port = open_door();
    let mut trace = watch_connects();
    let hierarchies = hierarchies();
    assert!(!hierarchies.is_empty(), "no control groups are mounted");
    for root in &hierarchies {
        for (path, expected) in [
            (format!("docker/{ID}"), Some(ID)),
            (format!("system.slice/docker-{ID}.scope"), Some(ID)),
            (format!("k8s.io/{ID}"), Some(ID)),
            (
                format!("system.slice/containerd.service/kubepods-besteffort-pod7.slice:cri-containerd:{ID}"),
                Some(ID),
            ),
            (
                format!(
                    "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7.slice/cri-containerd-{ID}.scope"
                ),
                Some(ID),
            ),
            (format!("kubepods/burstable/pod2b801b7a-5266-4386-864e-45ed71136371/{ID}"), Some(ID)),
            (format!("kubepods.slice/kubepods-pod7.slice/crio-{ID}.scope"), Some(ID)),
            (format!("machine.slice/libpod-{ID}.scope/container"), Some(ID)),
            (format!("libpod_parent/libpod-{ID}"), Some(ID)),
            (format!("user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"), Some(ID)),
            (format!("docker/{ID}/system.slice/nginx.service"), Some(ID)),
            ("machine.slice/systemd-nspawn@deb\\x2d12.service/payload/init.scope".to_owned(), Some("deb-12")),
            ("machine.slice/machine-web.scope/payload".to_owned(), Some("web")),
            ("machine.slice/systemd-nspawn@deb.service/supervisor".to_owned(), None),
            (format!("machine.slice/libpod-conmon-{ID}.scope"), None),
            ("system.slice/ssh.service".to_owned(), None),
            ("user.slice/user-1000.slice/session-3.scope".to_owned(), None),
        ] {
            let group = Group::new(root, &path);
            let mut actor =
                Actor::spawn(&mut Actor::program(this_program(), &format!("say here\nhear\nconnect {port}")));
            actor.hear();
            group.take(actor.pid());
            actor.tell("connect");
            let event = event_of(&mut trace, actor.pid());
            actor.leave();
            assert_eq!(event["process"]["container_id"].as_str(), expected, "{} {path}", root.display());
            assert_eq!(event["parent"]["container_id"].as_str(), None);
        }
    }

    // moved to a container after it was seen outside
    let group = Group::new(&hierarchies[0], &format!("docker/{ID}"));
    let mut actor = Actor::spawn(&mut Actor::program(
        this_program(),
        &format!("connect {port}\nsay here\nhear\nconnect {port}"),
    ));
    actor.hear();
    group.take(actor.pid());
    actor.tell("connect");
    let events = events_of(&mut trace, actor.pid(), 2);
    actor.leave();
    let reported = events.iter().map(|event| event["process"]["container_id"].as_str());
    assert_eq!(reported.collect::<Vec<_>>(), [None, Some(ID)]);
}

/// cgroup2, and a cgroup v1 hierarchy that all runtimes use.
pub fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let find = |wanted: &dyn Fn(&str, &str) -> bool| {
        mounts.lines().find_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let (kind, options) = kind.split_once(' ')?;
            let options = options.split(' ').next_back()?;
            wanted(kind, options).then(|| PathBuf::from(mount.split(' ').nth(4).unwrap_or_default()))
        })
    };
    let v1 = |name: &'static str| {
        find(&move |kind, options| kind == "cgroup" && options.split(',').any(|option| option == name))
    };
    [find(&|kind, _| kind == "cgroup2"), v1("pids").or_else(|| v1("memory"))].into_iter().flatten().collect()
}

/// A cgroup; directories created for it are removed again.
pub struct Group {
    path: PathBuf,
    made: Vec<PathBuf>,
}

impl Group {
    pub fn new(root: &Path, path: &str) -> Group {
        let mut group = Group { path: root.to_owned(), made: Vec::new() };
        for name in path.split('/') {
            group.path.push(name);
            if !group.path.exists() {
                fs::create_dir(&group.path).expect("create a control group");
                group.made.push(group.path.clone());
            }
        }
        group
    }

    pub fn take(&self, pid: u32) {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).expect("move a process");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for path in self.made.iter().rev() {
            // A process that has been reaped may still be counted for a moment.
            while fs::remove_dir(path).is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY)) {
                std::thread::yield_now();
            }
            assert!(!path.exists(), "{} is left", path.display());
        }
    }
}

crate::tests![containers_of_every_runtime,];
