//! The `process` and `parent` objects.

use std::rc::Rc;

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
struct Ids {
    ppid: u32,
    uid: u32,
    euid: u32,
    gid: u32,
    egid: u32,
    auid: u32,
}

#[derive(Serialize)]
struct Capabilities {
    cap_inheritable: String,
    cap_permitted: String,
    cap_effective: String,
}

#[derive(Serialize)]
struct Rest<'a> {
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

/// The part of a process object before which its thread id goes, which differs between events.
pub const TID: usize = 1;

/// Capability sets whose text is kept for other processes.
const SETS_KEPT: usize = 16;

/// Renders process objects.
pub struct Processes {
    all_capabilities: u64,
    /// Most processes have one of a few sets, which may take two thirds of the object.
    recent: Vec<([u64; 3], Rc<str>)>,
}

impl Processes {
    /// `all_capabilities`: all capabilities known to the kernel.
    pub fn new(all_capabilities: u64) -> Self {
        Processes { all_capabilities, recent: Vec::new() }
    }

    /// Renders a process object, without its thread id.
    pub fn render(&mut self, process: &Process, wall_offset: i128) -> Box<[Rc<str>]> {
        let &Process { pid, ppid, start, parent_start, uid, euid, gid, egid, auid, .. } = process;
        let container = |name: fn(&Container) -> &Option<String>| {
            process.container.as_deref().and_then(|container| name(container).as_deref())
        };
        let before = BeforeTid {
            start_time: vocabulary::time(i128::from(start.0) + wall_offset),
            cloned: process.cloned,
            pid,
        };
        let ids = Ids { ppid, uid, euid, gid, egid, auid };
        let rest = Rest {
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
        Box::from([
            format!("{{{},\"tid\":", members(&before)).into(),
            format!(",{},", members(&ids)).into(),
            self.capabilities(process),
            format!(",{}}}", members(&rest)).into(),
        ])
    }

    fn capabilities(&mut self, process: &Process) -> Rc<str> {
        let sets = [process.cap_inheritable, process.cap_permitted, process.cap_effective];
        if let Some((_, text)) = self.recent.iter().find(|(recent, _)| *recent == sets) {
            return Rc::clone(text);
        }
        let [cap_inheritable, cap_permitted, cap_effective] =
            sets.map(|set| vocabulary::capabilities(set, self.all_capabilities));
        let object = Capabilities { cap_inheritable, cap_permitted, cap_effective };
        let text: Rc<str> = members(&object).into();
        if self.recent.len() == SETS_KEPT {
            self.recent.remove(0);
        }
        self.recent.push((sets, Rc::clone(&text)));
        text
    }
}

/// The members of an object, without its braces.
fn members<T: Serialize>(value: &T) -> String {
    let object = object(value);
    object[1..object.len() - 1].to_owned()
}

/// `PID:START_NS` in base64 without padding.
fn exec_id(pid: u32, start: BootTime) -> String {
    STANDARD_NO_PAD.encode(format!("{pid}:{}", start.0))
}
