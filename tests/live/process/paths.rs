//! Paths of executables, as their processes see them.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use crate::{
    common::actor::{Actor, install},
    support::*,
};

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A memfd, and files deleted before and after the exec.
fn memfd_and_deleted_executables() {
    let folder = Folder::new();
    let port = open_door();
    let mut trace = watch_connects();
    let program = this_program();

    let pid = run(&program, &["a"], &format!("memfd hidden {} b\nconnect {port}", text(&program)));
    let event = event_of(&mut trace, pid);
    assert_eq!(event["process"]["binary_path"], "/memfd:hidden");
    assert_eq!(event["process"]["filename"], "memfd:hidden");
    assert_eq!(event["process"]["args"], "b");
    assert_eq!(event["process"]["secureexec"], "FILELESS_EXEC");

    let program = install_program(&folder, "deleted", (0, 0), 0o755);
    let pid = run(&program, &["a"], &format!("unlink {}\nconnect {port}", text(&program)));
    let event = event_of(&mut trace, pid);
    assert_eq!(event["process"]["binary_path"], text(&program));
    assert_eq!(event["process"]["filename"], "deleted");
    assert_eq!(event["process"]["secureexec"], "");

    // its file still has no name when it executes itself again
    let program = install_program(&folder, "again", (0, 0), 0o755);
    let pid =
        run(&program, &["a"], &format!("unlink {}\nexec /proc/self/exe b\nconnect {port}", text(&program)));
    let event = event_of(&mut trace, pid);
    assert_eq!(event["process"]["binary_path"], text(&program));
    assert_eq!(event["process"]["args"], "b");
    assert_eq!(event["process"]["secureexec"], "FILELESS_EXEC");

    // another link to the file does not change this
    let program = install_program(&folder, "linked", (0, 0), 0o755);
    fs::hard_link(&program, folder.path("link")).expect("link");
    let pid =
        run(&program, &["a"], &format!("unlink {}\nexec /proc/self/exe b\nconnect {port}", text(&program)));
    let event = event_of(&mut trace, pid);
    assert_eq!(event["process"]["filename"], "linked");
}

fn a_script_shows_its_interpreter() {
    let folder = Folder::new();
    let port = open_door();
    let mut trace = watch_connects();
    let [source, script] = ["text", "script"].map(|name| folder.path(name));
    fs::write(&source, format!("#!{} -option\n", text(&this_program()))).expect("write a script");
    fs::set_permissions(&source, fs::Permissions::from_mode(0o755)).expect("chmod");
    install(&source, &script);
    let pid = run(&script, &["argument"], &format!("connect {port}"));
    let event = event_of(&mut trace, pid);
    assert_eq!(event["process"]["binary_path"], text(&this_program()));
    assert_eq!(event["process"]["args"], format!("-option {} argument", text(&script)));
}

fn mounts_and_roots() {
    let folder = Folder::new();
    let port = open_door();
    let mut trace = watch_connects();
    let program = install_program(&folder, "program", (0, 0), 0o755);
    let [lower, upper, work, merged, bound] = ["lower", "upper", "work", "merged", "bound"].map(|name| {
        fs::create_dir(folder.path(name)).expect("create a folder");
        folder.path(name)
    });
    install(&program, lower.join("below"));

    // a bind mount that only this process sees
    let script = format!(
        "namespace mount\nbind {} {}\nexec {}/program b\nconnect {port}",
        text(folder.root()),
        text(&bound),
        text(&bound)
    );
    let pid = run(&program, &["a"], &script);
    let event = event_of(&mut trace, pid);
    assert_eq!(event["process"]["binary_path"], text(&bound.join("program")));
    assert_eq!(event["parent"]["binary_path"], text(&this_program()));

    // a mount of a single file
    let file = folder.path("file");
    fs::write(&file, "").expect("create a file");
    let script = format!(
        "namespace mount\nbind {} {}\nexec {} b\nconnect {port}",
        text(&program),
        text(&file),
        text(&file)
    );
    let pid = run(&program, &["a"], &script);
    assert_eq!(event_of(&mut trace, pid)["process"]["binary_path"], text(&file));

    // from the lower layer of an overlayfs
    let options = format!("lowerdir={},upperdir={},workdir={}", text(&lower), text(&upper), text(&work));
    let path = merged.join("below");
    let script = format!(
        "namespace mount\noverlay {} {options}\nexec {} b\nconnect {port}",
        text(&merged),
        text(&path)
    );
    let pid = run(&program, &["a"], &script);
    let event = event_of(&mut trace, pid);
    assert_eq!(event["process"]["binary_path"], text(&path));
    assert_eq!(event["process"]["secureexec"], "");

    // another root directory; the executable there has to be static
    let root = folder.path("root");
    fs::create_dir_all(root.join("bin")).expect("create a folder");
    let busybox = std::env::split_paths(&std::env::var_os("PATH").expect("PATH"))
        .map(|folder| folder.join("busybox"))
        .find(|path| path.exists())
        .expect("busybox");
    install(busybox, root.join("bin/busybox"));
    let script = format!("chroot {}\nexec /bin/busybox nc 127.0.0.1 {port}", text(&root));
    let pid = run(&program, &["a"], &script);
    let event = event_of(&mut trace, pid);
    assert_eq!(event["process"]["binary_path"], "/bin/busybox");
    assert_eq!(event["process"]["args"], format!("nc 127.0.0.1 {port}"));

    // an executable outside the root directory of the process
    let pid = run(&program, &["a"], &format!("chroot {}\nconnect {port}", text(&root)));
    assert_eq!(event_of(&mut trace, pid)["process"]["binary_path"], text(&program));
}

/// 200 components, the maximum length of a path, and a longer path.
fn deep_directories() {
    let folder = Folder::new();
    let port = open_door();
    let script = format!("connect {port}");
    let mut trace = watch_connects();
    let program = install_program(&folder, "p", (0, 0), 0o755);

    let many = folder.root().join(["d123456"; 200].join("/"));
    fs::create_dir_all(&many).expect("create folders");
    fs::hard_link(&program, many.join("deep")).expect("link");
    let pid = run(&many.join("deep"), &["a"], &script);
    let event = event_of(&mut trace, pid);
    assert_eq!(event["process"]["binary_path"], text(&many.join("deep")));

    // execve() accepts 4095 bytes.
    let long = fill(folder.root().join("f"), 4095);
    fs::create_dir_all(long.parent().expect("a folder")).expect("create folders");
    fs::hard_link(&program, &long).expect("link");
    assert_eq!(text(&long).len(), 4095);
    let pid = run(&long, &["a"], &script);
    let event = event_of(&mut trace, pid);
    assert_eq!(event["process"]["binary_path"], text(&long));

    // Longer paths can only be reached step by step; the end of them is shown.
    let beside = long.parent().expect("a folder").to_owned();
    let further = format!("{0}/{0}", "e".repeat(200));
    let make = "mkdir -p \"$1\" && ln \"$0\" \"$1/deeper\" && exec \"$1/deeper\" a";
    let mut command = Actor::program("sh", &script);
    let actor = Actor::spawn(command.current_dir(&beside).args(["-c", make]).arg(&program).arg(&further));
    let event = event_of(&mut trace, actor.pid());
    let reported = event["process"]["binary_path"].as_str().expect("a path");
    assert!(reported.starts_with(".../") && reported.ends_with(&format!("/{further}/deeper")), "{reported}");
    assert!(
        reported.len() >= 4096 && format!("{}/{further}/deeper", text(&beside)).ends_with(&reported[3..]),
        "{reported}"
    );
    actor.leave();
    // the standard library cannot remove such long paths
    Command::new("rm").arg("-rf").arg("e".repeat(200)).current_dir(&beside).status().expect("rm");
}

/// A path below `start` of exactly `length` bytes.
fn fill(start: PathBuf, length: usize) -> PathBuf {
    let mut path = text(&start).to_owned();
    while path.len() < length {
        let room = length - path.len() - 1;
        path.push('/');
        path.push_str(&"n".repeat(if room > 255 + 2 {
            255.min(room - 2)
        } else if room > 255 {
            200
        } else {
            room
        }));
    }
    path.into()
}

crate::tests![
    memfd_and_deleted_executables,
    a_script_shows_its_interpreter,
    mounts_and_roots,
    deep_directories,
];
