//! Finds the container of a process from its cgroup.

pub mod metadata;

/// The container id in a cgroup path, if there is one.
///
/// `names` are NUL-ended names, last name first: the cgroup2 path, an empty name, the path in a cgroup v1 hierarchy.
/// The innermost container wins; cgroup2 is checked before v1. The supervisor of a systemd-nspawn machine is not inside
/// it.
pub fn id(names: &[u8]) -> Option<String> {
    let names: Vec<&str> =
        names.split(|&byte| byte == 0).map(|name| std::str::from_utf8(name).unwrap_or_default()).collect();
    let supervises = |at: usize| {
        at > 0
            && names[at - 1] == "supervisor"
            && (nspawn(names[at]).is_some() || names[at].starts_with("machine-"))
    };
    (0..names.len()).filter(|&at| !supervises(at)).find_map(|at| of_name(names[at]))
}

/// The machine name in `systemd-nspawn@NAME.service`.
fn nspawn(name: &str) -> Option<&str> {
    name.strip_prefix("systemd-nspawn@")?.strip_suffix(".service")
}

/// The container id in one directory name.
///
/// Docker, containerd, CRI-O, podman and Kubernetes use 64 hexadecimal digits: alone, as `docker-ID.scope`, or as
/// `kubepods-...:cri-containerd:ID`. systemd-nspawn uses `systemd-nspawn@NAME.service` and `machine-NAME.scope`.
/// Monitors (`conmon`) have a separate scope, and are not in the container.
fn of_name(name: &str) -> Option<String> {
    let unit = name.strip_suffix(".scope");
    if let Some(machine) = unit.and_then(|unit| unit.strip_prefix("machine-")).or_else(|| nspawn(name)) {
        let machine = unescape(machine);
        return (!machine.is_empty() && !machine.starts_with("qemu-")).then_some(machine);
    }
    let whole = unit.unwrap_or(name);
    let at = whole.rfind([':', '-']).map_or(0, |separator| separator + 1);
    let (before, id) = whole.split_at(at);
    (is_hex_id(id) && !before.contains("conmon")).then(|| id.to_owned())
}

/// Whether it has the form used by all runtimes but systemd-nspawn: 64 hexadecimal digits.
pub fn is_hex_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Reverts systemd's escaping of unit names: `\x2d` is a dash.
fn unescape(name: &str) -> String {
    name.replace("\\x2d", "-")
}

/// Test paths with the container of each: this file and its counterpart in the kernel (src/bpf/filter_process.h) must
/// agree on them.
#[cfg(test)]
pub const PATHS: &[(&str, Option<&str>)] = &[
    ("/docker/3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b", Some(ID)),
    ("/system.slice/docker-3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b.scope", Some(ID)),
    ("/k8s.io/3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b", Some(ID)),
    (
        "/system.slice/containerd.service/3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b",
        Some(ID),
    ),
    (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b.scope",
        Some(ID),
    ),
    (
        "/system.slice/containerd.service/kubepods-besteffort-pod1.slice:cri-containerd:3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b",
        Some(ID),
    ),
    (
        "/kubepods/burstable/pod2b801b7a-5266-4386-864e-45ed71136371/3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b",
        Some(ID),
    ),
    (
        "/kubepods.slice/kubepods-pod1.slice/crio-3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b.scope",
        Some(ID),
    ),
    (
        "/machine.slice/libpod-3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b.scope",
        Some(ID),
    ),
    (
        "/machine.slice/libpod-3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b.scope/container",
        Some(ID),
    ),
    ("/libpod_parent/libpod-3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b", Some(ID)),
    (
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b.scope",
        Some(ID),
    ),
    ("/docker/3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b/init.scope", Some(ID)),
    ("/machine.slice/systemd-nspawn@deb\\x2d12.service", Some("deb-12")),
    ("/machine.slice/machine-web.scope/payload", Some("web")),
    ("/machine.slice/machine-a\\x2db\\x2dc-d.scope", Some("a-b-c-d")),
    ("/machine.slice/systemd-nspawn@deb.service/payload/system.slice/ssh.service", Some("deb")),
    (
        "/docker/3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b/machine.slice/machine-web.scope/supervisor",
        Some(ID),
    ),
    ("", None),
    ("/", None),
    ("/system.slice/ssh.service", None),
    ("/user.slice/user-1000.slice/session-3.scope", None),
    ("/init.scope", None),
    (
        "/machine.slice/libpod-conmon-3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b.scope",
        None,
    ),
    (
        "/kubepods.slice/crio-conmon-3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b.scope",
        None,
    ),
    ("/docker/3f4a9c", None),
    ("/machine.slice/machine-qemu\\x2d1\\x2dweb.scope", None),
    ("/machine.slice/systemd-nspawn@deb.service/supervisor", None),
    ("/machine.slice/machine-web.scope/supervisor", None),
    ("/machine.slice/machine-.scope", None),
];

#[cfg(test)]
const ID: &str = "3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b";

/// Converts a path to the form used in records.
#[cfg(test)]
pub fn names(path: &str) -> Vec<u8> {
    path.split('/')
        .rev()
        .filter(|name| !name.is_empty())
        .flat_map(|name| [name.as_bytes(), &[0]].concat())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_of_every_path() {
        for (path, expected) in PATHS {
            assert_eq!(id(&names(path)).as_deref(), *expected, "{path}");
        }
    }

    #[test]
    fn cgroup2_is_checked_before_v1() {
        let mut both = names("/system.slice");
        both.push(0);
        both.extend(names(&format!("/docker/{ID}")));
        assert_eq!(id(&both).as_deref(), Some(ID));
    }
}
