//! Files as runtimes write them, and what an attacker could put in their place.

use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
};

use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::*;

const ID: &str = "3f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b2d7f80613f4a9c5e1b";
const NAMED: &str = r#"{"Name": "/web"}"#;

/// A directory in which a runtime keeps its containers.
struct Runtime {
    folder: TempDir,
    layout: Layout,
}

impl Runtime {
    fn new(layout: Layout) -> Runtime {
        Runtime { folder: TempDir::new().expect("a folder"), layout }
    }

    /// The path of a file; its directories are created.
    fn path(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        path
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("write");
    }

    fn name(&self) -> Option<String> {
        let path = self.folder.path().to_str().expect("UTF-8");
        let folders = Folders(vec![(self.layout, folder(AT_FDCWD, path, OFlag::empty()).expect("open"))]);
        folders.look_up(ID)?.name
    }
}

#[test]
fn each_layout_is_recognised() {
    let docker = Runtime::new(Layout::Docker);
    assert_eq!(docker.name(), None);
    docker.write(&format!("{ID}/config.v2.json"), NAMED);
    assert_eq!(docker.name().as_deref(), Some("web"));

    let containerd = Runtime::new(Layout::Containerd);
    containerd.write(&format!("moby/{ID}/config.json"), "{}");
    containerd.write("k8s.io/other/config.json", "{}");
    assert_eq!(containerd.name(), None);
    let bundle = r#"{"annotations": {"io.kubernetes.cri.container-name": "app"}}"#;
    containerd.write(&format!("k8s.io/{ID}/config.json"), bundle);
    assert_eq!(containerd.name().as_deref(), Some("app"));

    let storage = Runtime::new(Layout::Storage);
    let list = |name: &str| format!(r#"[{{"id": "{ID}", "names": ["{name}"]}}]"#);
    storage.write("volatile-containers.json", &list("gone"));
    assert_eq!(storage.name(), None, "a container that is not there");
    storage.write(&format!("{ID}/userdata/config.json"), "{}");
    assert_eq!(storage.name().as_deref(), Some("gone"));
    storage.write("containers.json", &list("cart"));
    assert_eq!(storage.name().as_deref(), Some("cart"));
    let own = r#"{"annotations": {"io.kubernetes.container.name": "app"}}"#;
    storage.write(&format!("{ID}/userdata/config.json"), own);
    assert_eq!(storage.name().as_deref(), Some("app"));
}

#[test]
fn only_regular_files_are_read_without_following_links() {
    let file = format!("{ID}/config.v2.json");
    let docker = || Runtime::new(Layout::Docker);

    let linked = docker();
    linked.write("elsewhere/config.v2.json", NAMED);
    symlink("../elsewhere/config.v2.json", linked.path(&file)).expect("a link");
    assert_eq!(linked.name(), None, "a link to a file");

    let linked = docker();
    linked.write("elsewhere/config.v2.json", NAMED);
    symlink("elsewhere", linked.path(ID)).expect("a link");
    assert_eq!(linked.name(), None, "a link to a folder");

    let pipe = docker();
    mkfifo(&pipe.path(&file), Mode::S_IRUSR).expect("a pipe");
    assert_eq!(pipe.name(), None, "a pipe that nobody writes to");

    let folder = docker();
    folder.path(&format!("{file}/x"));
    assert_eq!(folder.name(), None, "a folder");

    let large = docker();
    large.write(&file, NAMED);
    let long = File::options().write(true).open(large.path(&file)).expect("open");
    long.set_len(FILE_MAX).expect("as long as may be");
    assert_eq!(large.name(), None, "NULs behind it are no JSON");
    long.set_len(1 << 30).expect("longer");
    assert_eq!(large.name(), None, "a gigabyte");
    long.set_len(NAMED.len() as u64).expect("short again");
    assert_eq!(large.name().as_deref(), Some("web"));

    let hidden = docker();
    hidden.write(&file, NAMED);
    fs::set_permissions(hidden.path(&file), fs::Permissions::from_mode(0o000)).expect("chmod");
    let root = nix::unistd::geteuid().is_root();
    assert_eq!(hidden.name().is_some(), root, "a file that may not be read");
}

#[test]
fn invalid_ids_open_no_file() {
    let docker = Runtime::new(Layout::Docker);
    docker.write("config.v2.json", NAMED);
    let folders = Folders(vec![(
        Layout::Docker,
        folder(AT_FDCWD, docker.folder.path().to_str().expect("UTF-8"), OFlag::empty()).expect("open"),
    )]);
    for id in ["", ".", "..", "/", "3f4a", &ID.to_uppercase(), &format!("{ID}0"), &format!("../{}", &ID[3..])]
    {
        assert_eq!(folders.look_up(id), None, "{id}");
    }
}

#[test]
fn homes_are_read_from_the_passwd_file() {
    let passwd = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1:1::/home/ann:\n\
                  none:x:2:2::/:\nbad\nx:x:3:3::relative:\n";
    assert_eq!(homes(passwd), ["/home/ann", "/root"]);
}

#[test]
fn links_in_home_directories_are_not_followed() {
    let home = TempDir::new().expect("a folder");
    let path = home.path().to_str().expect("UTF-8");
    let storage = home.path().join(OF_USER[0].1);
    fs::create_dir_all(&storage).expect("folders");
    assert_eq!(of_user(path).len(), 1);
    fs::rename(&storage, home.path().join("elsewhere")).expect("rename");
    symlink(home.path().join("elsewhere"), &storage).expect("a link");
    assert!(of_user(path).is_empty());
    assert!(of_user("/no/such/home").is_empty());
}
