//! Finds the systemd unit of a process from its cgroup.

/// The unit in a cgroup path, if there is one: the innermost service or scope.
///
/// `names` are as in [`crate::process::container::id`]. If services are in a cgroup v1 hierarchy, cgroup2 has none of
/// them, so both are checked, cgroup2 first.
pub fn name(names: &[u8]) -> Option<String> {
    names
        .split(|&byte| byte == 0)
        .filter_map(|name| std::str::from_utf8(name).ok())
        .find(|name| {
            [".service", ".scope"].iter().any(|kind| name.len() > kind.len() && name.ends_with(kind))
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::name;

    /// The unit of a path, given in the form used in records.
    fn unit(path: &str) -> Option<String> {
        let names = path.split('/').rev().filter(|name| !name.is_empty());
        name(&names.flat_map(|name| [name.as_bytes(), &[0]].concat()).collect::<Vec<_>>())
    }

    #[test]
    fn the_innermost_unit_is_used() {
        assert_eq!(unit("/system.slice/nginx.service").as_deref(), Some("nginx.service"));
        assert_eq!(unit("/system.slice/ssh.service/sftp/x").as_deref(), Some("ssh.service"));
        assert_eq!(
            unit("/user.slice/user-1000.slice/user@1000.service/app.slice/app-term.scope").as_deref(),
            Some("app-term.scope")
        );
        assert_eq!(
            unit("/docker/3f4a/system.slice/getty@tty1.service").as_deref(),
            Some("getty@tty1.service")
        );
    }

    #[test]
    fn slices_and_other_names_are_not_units() {
        for path in ["", "/", "/user.slice", "/docker/3f4a", "/.service", "/nginx.service.d"] {
            assert_eq!(unit(path), None, "{path}");
        }
    }
}
