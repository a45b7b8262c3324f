//! Credentials: their origin, and changes.

use std::{os::unix::process::CommandExt, process::Command};

use serde_json::{Value, json};

use crate::{
    common::{Trace, actor::Actor},
    support::*,
};

const NET_RAW: u64 = 1 << 13;

fn set_id_executables() {
    let folder = Folder::new();
    let port = open_door();
    let mut trace = watch_connects();
    // owner, group, mode, run by (uid and gid), then euid, egid, secureexec
    for (owner, group, mode, by, euid, egid, secureexec) in [
        (1234, 0, 0o4755, 1000, 1234, 1000, "SETUID"),
        (0, 4321, 0o2755, 1000, 1000, 4321, "SETGID"),
        (1234, 4321, 0o6755, 1000, 1234, 4321, "SETUID | SETGID"),
        (1000, 1000, 0o6755, 1000, 1000, 1000, ""), // same user and group as before
        (1234, 1000, 0o4755, 0, 1234, 0, "SETUID"),
        (0, 4321, 0o2745, 1000, 1000, 1000, ""), // once used for mandatory locking
        (0, 0, 0o755, 1000, 1000, 1000, ""),
    ] {
        let program = install_program(&folder, "program", (owner, group), mode);
        let mut command = Actor::program(&program, &format!("connect {port}\nfork\nconnect {port}"));
        let actor = Actor::spawn(command.uid(by).gid(by));
        let pid = actor.pid();
        let event = event_of(&mut trace, pid);
        let reported =
            ["uid", "euid", "gid", "egid", "secureexec"].map(|name| event["process"][name].clone());
        assert_eq!(reported, [json!(by), json!(euid), json!(by), json!(egid), json!(secureexec)], "{mode:o}");
        actor.leave();
        trace.wait("the child's event", |events| events.iter().any(|event| event["process"]["ppid"] == pid));
        let child = trace.events.iter().find(|event| event["process"]["ppid"] == pid).expect("found");
        assert_eq!(child["process"]["secureexec"], secureexec);
    }
    // root's privileges are those of the user, not gained through the file
    let program = install_program(&folder, "root", (0, 0), 0o4755);
    let actor = Actor::spawn(Actor::program(&program, &format!("connect {port}")).uid(1000));
    let event = event_of(&mut trace, actor.pid());
    assert_eq!(event["process"]["secureexec"], "SETUID");
    assert_eq!(event["process"]["euid"], 0);
    assert_ne!(event["process"]["cap_effective"], "");
    actor.leave();
}

fn file_capabilities() {
    let folder = Folder::new();
    let program = install_program(&folder, "capable", (0, 0), 0o755);
    let plain = install_program(&folder, "plain", (0, 0), 0o755);
    let status = Command::new("setcap").arg("cap_net_raw+ep").arg(&program).status().expect("run setcap");
    assert!(status.success(), "the file system keeps no capabilities");
    let port = open_door();
    let script = format!("connect {port}\nfork\nconnect {port}");
    let mut trace = watch_connects();
    let mut check = |actor: Actor, permitted: &str, secureexec: &str| {
        let pid = actor.pid();
        let event = event_of(&mut trace, pid);
        assert_eq!(event["process"]["cap_permitted"], permitted, "{event:#}");
        assert_eq!(event["process"]["secureexec"], secureexec, "{event:#}");
        actor.leave();
        trace.wait("the child's event", |events| events.iter().any(|event| event["process"]["ppid"] == pid));
        let child = trace.events.iter().find(|event| event["process"]["ppid"] == pid).expect("found");
        assert_eq!(child["process"]["secureexec"], secureexec);
        assert_eq!(child["process"]["cloned"], true);
    };
    let unprivileged = |program| {
        let mut command = Actor::program(program, &script);
        command.uid(1000).gid(1000);
        Actor::spawn(&mut command)
    };
    check(unprivileged(&program), "CAP_NET_RAW", "FILE_CAPS");
    check(unprivileged(&plain), "", "");
    // ambient capabilities are those of the process
    let mut command = Actor::program("setpriv", &script);
    command
        .args(["--reuid=1000", "--clear-groups", "--inh-caps=+net_raw", "--ambient-caps=+net_raw"])
        .arg(&plain);
    check(Actor::spawn(&mut command), "CAP_NET_RAW", "");
}

/// One image with several identities: each is reported from the time it applies.
fn changing_credentials() {
    let port = open_door();
    let mut trace = watch_connects();
    let login =
        std::fs::read_to_string("/proc/self/loginuid").is_ok_and(|login| login.trim() == "4294967295");
    let login_line = if login { "login 77\n" } else { "" };
    let script = format!(
        "connect {port}\nconnect {port}\ncapabilities {}\nconnect {port}\n{login_line}connect {port}\n\
         group 1001\nuser 1000\nconnect {port}",
        NET_RAW | 0b1100_0000 // CAP_SETGID, CAP_SETUID
    );
    let pid = run(&this_program(), &["changing"], &script);
    let events = events_of(&mut trace, pid, 5);
    events.iter().for_each(check);
    let column =
        |name: &str| events.iter().map(|event| event["process"][name].clone()).collect::<Vec<Value>>();
    let caps = "CAP_SETGID | CAP_SETUID | CAP_NET_RAW";
    assert_eq!(column("cap_effective")[2..], [json!(caps), json!(caps), json!("")]);
    assert_eq!(column("uid"), [0, 0, 0, 0, 1000].map(Value::from));
    assert_eq!(column("egid"), [0, 0, 0, 0, 1001].map(Value::from));
    if login {
        assert_eq!(column("auid")[..3], [4294967295_u32; 3].map(Value::from));
        assert_eq!(column("auid")[3..], [77, 77].map(Value::from));
    }
    // it remains the same process
    assert!(column("exec_id").windows(2).all(|pair| pair[0] == pair[1]));
    assert!(column("args").iter().all(|args| args == "changing"));
}

fn threads_with_different_users() {
    let mut trace = Trace::start(&["-e", "fail"]);
    let pid = run(&this_program(), &["server"], "users 200 1001 1002\nfail 1");
    let events = events_of(&mut trace, pid, 401);
    for uid in [1001, 1002] {
        let of: Vec<_> = events.iter().filter(|event| event["process"]["euid"] == uid).collect();
        assert_eq!(of.len(), 200);
        assert!(of.windows(2).all(|pair| pair[0]["process"]["tid"] == pair[1]["process"]["tid"]));
    }
    events.iter().for_each(check);
    assert_eq!(events[400]["process"]["uid"], 0);
}

/// It has all capabilities, but none outside the namespace, and did not gain them through the file.
fn root_in_a_user_namespace() {
    let folder = Folder::new();
    let program = install_program(&folder, "program", (0, 0), 0o755);
    let path = program.to_str().expect("UTF-8");
    let port = open_door();
    let mut trace = watch_connects();
    let script = format!("namespace user\nexec {path} inside\nconnect {port}");
    let actor = Actor::spawn(Actor::program(&program, &script).uid(1000).gid(1000));
    let event = event_of(&mut trace, actor.pid());
    assert_eq!(event["process"]["args"], "inside");
    assert_eq!(event["process"]["uid"], 1000);
    assert_ne!(event["process"]["cap_effective"], "");
    assert_eq!(event["process"]["secureexec"], "");
    actor.leave();
}

crate::tests![
    set_id_executables,
    file_capabilities,
    changing_credentials,
    threads_with_different_users,
    root_in_a_user_namespace,
];
