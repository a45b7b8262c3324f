//! From the cgroup a process is in to the container it runs in.

/// The container id in a cgroup path, or none.
///
/// `names` are NUL-ended names, last name first: the cgroup2 path, an empty name, the path in a
/// cgroup v1 hierarchy. The innermost container wins; cgroup2 is asked before v1. Who supervises a
/// machine of systemd-nspawn is not in it.
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

/// The machine in `systemd-nspawn@NAME.service`.
fn nspawn(name: &str) -> Option<&str> {
    name.strip_prefix("systemd-nspawn@")?.strip_suffix(".service")
}

/// The id in one directory name.
///
/// Docker, containerd, CRI-O, podman and Kubernetes name the directory after 64 hexadecimal digits:
/// alone, as `docker-ID.scope`, or as `kubepods-...:cri-containerd:ID`. systemd-nspawn and its
/// machines are `systemd-nspawn@NAME.service` and `machine-NAME.scope`. Monitors (`conmon`) stand
/// beside their container, not in it.
fn of_name(name: &str) -> Option<String> {
    let unit = name.strip_suffix(".scope");
    if let Some(machine) = unit.and_then(|unit| unit.strip_prefix("machine-")).or_else(|| nspawn(name)) {
        let machine = unescape(machine);
        return (!machine.is_empty() && !machine.starts_with("qemu-")).then_some(machine);
    }
    let whole = unit.unwrap_or(name);
    let at = whole.rfind([':', '-']).map_or(0, |separator| separator + 1);
    let (before, id) = whole.split_at(at);
    let is_id = id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_id && !before.contains("conmon")).then(|| id.to_owned())
}

/// Undo systemd's escaping of unit names: `\x2d` is a dash.
fn unescape(name: &str) -> String {
    name.replace("\\x2d", "-")
}

#[cfg(test)]
mod tests {
    use super::id;

    const ID: &str = "3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b";

    /// The wire's form of a path.
    fn names(path: &str) -> Vec<u8> {
        path.split('/')
            .rev()
            .filter(|name| !name.is_empty())
            .flat_map(|name| [name.as_bytes(), &[0]].concat())
            .collect()
    }

    #[test]
    fn knows_every_runtimes_path() {
        for path in [
            "/docker/ID",
            "/system.slice/docker-ID.scope",
            "/k8s.io/ID",
            "/system.slice/containerd.service/ID",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-ID.scope",
            "/system.slice/containerd.service/kubepods-besteffort-pod1.slice:cri-containerd:ID",
            "/kubepods/burstable/pod2b801b7a-5266-4386-864e-45ed71136371/ID",
            "/kubepods.slice/kubepods-pod1.slice/crio-ID.scope",
            "/machine.slice/libpod-ID.scope",
            "/machine.slice/libpod-ID.scope/container",
            "/libpod_parent/libpod-ID",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
            "/docker/ID/init.scope",
        ] {
            assert_eq!(id(&names(&path.replace("ID", ID))).as_deref(), Some(ID), "{path}");
        }
        assert_eq!(id(&names("/machine.slice/systemd-nspawn@deb\\x2d12.service")).as_deref(), Some("deb-12"));
        assert_eq!(id(&names("/machine.slice/machine-web.scope/payload")).as_deref(), Some("web"));
        let within = "/machine.slice/systemd-nspawn@deb.service/payload/system.slice/ssh.service";
        assert_eq!(id(&names(within)).as_deref(), Some("deb"));
    }

    #[test]
    fn services_sessions_and_monitors_are_no_containers() {
        for path in [
            "",
            "/",
            "/system.slice/ssh.service",
            "/user.slice/user-1000.slice/session-3.scope",
            "/init.scope",
            "/machine.slice/libpod-conmon-ID.scope",
            "/kubepods.slice/crio-conmon-ID.scope",
            "/docker/3f4a9c",
            "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope",
            "/machine.slice/systemd-nspawn@deb.service/supervisor",
            "/machine.slice/machine-web.scope/supervisor",
            "/machine.slice/machine-.scope",
        ] {
            assert_eq!(id(&names(&path.replace("ID", ID))), None, "{path}");
        }
    }

    #[test]
    fn cgroup2_is_asked_before_v1() {
        let mut both = names("/system.slice");
        both.push(0);
        both.extend(names(&format!("/docker/{ID}")));
        assert_eq!(id(&both).as_deref(), Some(ID));
    }
}
