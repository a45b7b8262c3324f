//! The user who called sudo: commands run as this user, and new files belong to this user.

use std::{ffi::OsString, io};

use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

/// The user given by SUDO_UID, as far as local files describe it.
///
/// NSS is not used: a static binary cannot load its modules. Users from a directory service get only the groups in
/// which /etc/group lists them, and keep the HOME that sudo set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SudoUser {
    /// The user id, from SUDO_UID.
    pub uid: u32,
    /// The primary group id, from SUDO_GID.
    pub gid: u32,
    /// The groups in /etc/group that list the user, and `gid`.
    pub groups: Vec<u32>,
    /// Variables that a login would set: USER, LOGNAME, HOME and SHELL.
    pub environment: Vec<(&'static str, String)>,
}

impl SudoUser {
    /// From sudo's variables and the contents of /etc/passwd and /etc/group.
    pub fn new(variable: impl Fn(&str) -> Option<OsString>, passwd: &str, group: &str) -> Option<SudoUser> {
        let number = |name: &str| variable(name)?.to_str()?.parse::<u32>().ok();
        let (uid, gid) = (number("SUDO_UID")?, number("SUDO_GID")?);
        let entry = passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.get(2).and_then(|field| field.parse().ok()) == Some(uid));
        let name = variable("SUDO_USER")
            .and_then(|name| name.into_string().ok())
            .or_else(|| Some((*entry.as_ref()?.first()?).to_owned()))
            .unwrap_or_default();
        let mut groups = vec![gid];
        groups.extend(group.lines().filter_map(|line| group_of(line, &name)).filter(|&id| id != gid));

        let mut environment = vec![("USER", name.clone()), ("LOGNAME", name)];
        for (variable, at) in [("HOME", 5), ("SHELL", 6)] {
            let value = entry.as_ref().and_then(|fields| fields.get(at)).filter(|value| !value.is_empty());
            environment.extend(value.map(|value| (variable, (*value).to_owned())));
        }
        environment.retain(|(_, value)| !value.is_empty());
        Some(SudoUser { uid, gid, groups, environment })
    }

    /// Switches to this user permanently. The environment is left to the caller.
    ///
    /// # Errors
    /// When the kernel refuses, for example if we are not root.
    pub fn take_over(&self) -> io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups)?;
        setgid(Gid::from_raw(self.gid))?;
        setuid(Uid::from_raw(self.uid))?;
        Ok(())
    }
}

/// The id of a group that lists `name`, from `group:x:1000:one,two`.
fn group_of(line: &str, name: &str) -> Option<u32> {
    let mut fields = line.split(':').skip(2);
    let id = fields.next()?.parse().ok()?;
    fields.next()?.split(',').any(|member| member == name && !name.is_empty()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000:Ann,,,:/home/ann:/bin/zsh\n\nbad\n";
    const GROUP: &str = "root:x:0:\nann:x:1000:\nwheel:x:10:bob,ann\ndocker:x:999:annabel\nx:y\nz:x:-1:ann\n";

    fn variables(uid: &'static str) -> impl Fn(&str) -> Option<OsString> {
        move |name| match name {
            "SUDO_UID" => Some(uid.into()),
            "SUDO_GID" => Some("1000".into()),
            "SUDO_USER" => Some("ann".into()),
            _ => None,
        }
    }

    #[test]
    fn finds_the_user_who_called_sudo() {
        let ann = SudoUser::new(variables("1000"), PASSWD, GROUP).expect("an invoker");
        assert_eq!((ann.uid, ann.gid), (1000, 1000));
        assert_eq!(ann.groups, [1000, 10]);
        assert_eq!(
            ann.environment,
            [("USER", "ann"), ("LOGNAME", "ann"), ("HOME", "/home/ann"), ("SHELL", "/bin/zsh")]
                .map(|(name, value)| (name, value.to_owned()))
        );
    }

    #[test]
    fn users_not_in_passwd_keep_home() {
        let guest = SudoUser::new(variables("70000"), PASSWD, GROUP).expect("an invoker");
        assert_eq!(guest.environment.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["USER", "LOGNAME"]);
    }

    #[test]
    fn without_sudo_there_is_none() {
        assert_eq!(SudoUser::new(|_| None, PASSWD, GROUP), None);
        assert_eq!(SudoUser::new(variables("-1"), PASSWD, GROUP), None);
        assert_eq!(SudoUser::new(variables(""), PASSWD, GROUP), None);
    }
}
