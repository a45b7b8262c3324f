//! The `process` and `parent` objects.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use serde::Serialize;

use super::encode::object;
use crate::{
    event::{BootTime, Container, Process},
    output::vocabulary,
};

#[derive(Serialize)]
struct BeforeTid {
    start_time: String,
    cloned: bool,
    pid: u32,
}

#[derive(Serialize)]
struct AfterTid<'a> {
    ppid: u32,
    uid: u32,
    euid: u32,
    gid: u32,
    egid: u32,
    auid: u32,
    cap_inheritable: String,
    cap_permitted: String,
    cap_effective: String,
    secureexec: String,
    filename: &'a str,
    binary_path: &'a str,
    args: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_image: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    exec_id: String,
    parent_exec_id: String,
}

/// Renders a process object as the parts before and after `tid`, which differs between events.
pub fn render(process: &Process, all_capabilities: u64, wall_offset: i128) -> [String; 2] {
    let &Process { pid, ppid, start, parent_start, .. } = process;
    let caps = |set| vocabulary::capabilities(set, all_capabilities);
    let container = |name: fn(&Container) -> &Option<String>| {
        process.container.as_deref().and_then(|container| name(container).as_deref())
    };
    let before = BeforeTid {
        start_time: vocabulary::time(i128::from(start.0) + wall_offset),
        cloned: process.cloned,
        pid,
    };
    let after = AfterTid {
        ppid,
        uid: process.uid,
        euid: process.euid,
        gid: process.gid,
        egid: process.egid,
        auid: process.auid,
        cap_inheritable: caps(process.cap_inheritable),
        cap_permitted: caps(process.cap_permitted),
        cap_effective: caps(process.cap_effective),
        secureexec: vocabulary::secureexec(process.secureexec),
        filename: &process.filename,
        binary_path: &process.binary_path,
        args: process.args.as_deref().unwrap_or_default(),
        container_id: process.container_id.as_deref(),
        container_name: container(|container| &container.name),
        container_image: container(|container| &container.image),
        pod: container(|container| &container.pod),
        namespace: container(|container| &container.namespace),
        exec_id: exec_id(pid, start),
        parent_exec_id: if ppid == 0 { String::new() } else { exec_id(ppid, parent_start) },
    };
    let [before, after] = [object(&before), object(&after)];
    [before.trim_end_matches('}').to_owned(), after.trim_start_matches('{').to_owned()]
}

/// `PID:START_NS` in base64 without padding.
fn exec_id(pid: u32, start: BootTime) -> String {
    STANDARD_NO_PAD.encode(format!("{pid}:{}", start.0))
}
