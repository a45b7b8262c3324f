//! Loads on two threads. Starting consists mostly of waiting for the verifier, and the kernel verifies several programs
//! at a time, but libbpf loads one after the other. The steps before that use two threads as well.

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    ptr, slice,
    sync::Mutex,
    thread::{self, ScopedJoinHandle},
};

use anyhow::{Context, Result, anyhow};
use foldhash::HashSet;
use libbpf_rs::{
    AsRawLibbpf, OpenProgramMut,
    libbpf_sys::{self, bpf_attach_type, bpf_func_info, bpf_insn, bpf_line_info, bpf_prog_type},
    skel::OpenSkel,
};

use super::{
    kernel_types::{KernelTypes, Names, essential},
    large_map::LargeMap,
    load_error::Rejection,
    skel::{NetmonSkel, OpenNetmonSkel},
};

/// A program that is ready for the kernel: libbpf has relocated it, and created the maps it uses.
struct Prepared {
    name: OsString,
    kind: bpf_prog_type,
    attach_type: bpf_attach_type,
    /// The type that describes in the kernel's BTF what it attaches to.
    target: u32,
    instructions: Vec<bpf_insn>,
    functions: Vec<bpf_func_info>,
    lines: Vec<bpf_line_info>,
    /// The object's own BTF.
    btf: RawFd,
}

/// A program that was loaded here, which libbpf does not know.
pub struct Loaded {
    name: OsString,
    fd: OwnedFd,
    attach_type: bpf_attach_type,
}

/// Loads the object, and those of its programs that are `heavy` on two threads.
///
/// # Errors
/// When the kernel refuses a program or a map.
pub fn load<'obj>(
    mut open: OpenNetmonSkel<'obj>,
    types: KernelTypes,
    large: &[LargeMap],
    heavy: fn(&OsStr) -> bool,
) -> Result<(NetmonSkel<'obj>, Vec<Loaded>)> {
    let is_ours = |prog: &OpenProgramMut<'_>| prog.autoload() && heavy(prog.name());
    let targets = open.open_object_mut().progs_mut().filter(is_ours).map(|prog| target_of(&prog)).collect();
    let object = open.open_object_mut().as_libbpf_object().as_ptr();
    // SAFETY: the object is open, and has types.
    let names = Names { ours: unsafe { names_of(libbpf_sys::bpf_object__btf(object)) }, targets };
    let (ids, read) = thread::scope(|scope| {
        let second = scope.spawn(|| types.write(&names));
        // Here libbpf reads the kernel's types, too, for what the programs attach to.
        let read = open.progs.on_orphans.set_attach_target(0, Some("task".to_owned()));
        (joined(second), read)
    });
    let ids = ids?;
    read?;
    let maps = thread::scope(|scope| {
        let second = scope.spawn(|| large.iter().map(LargeMap::create).collect::<Result<Vec<_>>>());
        // SAFETY: the object is open, and nothing else uses it meanwhile.
        let outcome = unsafe { libbpf_sys::bpf_object__prepare(object) };
        let maps = joined(second);
        if outcome < 0 {
            return Err(io::Error::from_raw_os_error(-outcome)).context("prepare the BPF programs");
        }
        maps
    })?;
    for (map, created) in large.iter().zip(&maps) {
        map.replace(created, open.open_object())?;
    }
    // SAFETY: the object has been prepared.
    let btf = unsafe { libbpf_sys::bpf_object__btf_fd(object) };
    let mut prepared = Vec::new();
    for (mut prog, id) in open.open_object_mut().progs_mut().filter(is_ours).zip(ids) {
        prepared.push(Prepared::new(&prog, id, btf));
        prog.set_autoload(false);
        forget_instructions(&prog);
    }
    let queue = Mutex::new(prepared.into_iter());
    thread::scope(|scope| {
        let second = scope.spawn(|| work(&queue));
        let skel = open.load();
        let first = if skel.is_ok() { work(&queue) } else { Ok(Vec::new()) };
        let second = joined(second);
        // the error of libbpf first, which may say that trampolines are refused
        let skel = skel?;
        let mut loaded = first?;
        loaded.extend(second?);
        Ok((skel, loaded))
    })
}

/// What the second thread returned.
fn joined<T>(second: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    second.join().unwrap_or_else(|_| Err(anyhow!("the second thread panicked")))
}

/// Loads programs until the queue is empty.
fn work(queue: &Mutex<impl Iterator<Item = Prepared>>) -> Result<Vec<Loaded>> {
    let next = || queue.lock().ok()?.next();
    std::iter::from_fn(next).map(|program| program.load()).collect()
}

/// The name of the type that describes in the kernel's BTF what a program attaches to.
fn target_of(prog: &OpenProgramMut<'_>) -> Vec<u8> {
    let section = prog.section().to_string_lossy();
    let (prefix, name) = section.split_once('/').unwrap_or_default();
    (if prefix == "iter" { "bpf_iter_" } else { "btf_trace_" }.to_owned() + name).into_bytes()
}

/// The names of all types, without their flavors.
// SAFETY: the caller ensures that `types` is valid.
unsafe fn names_of(types: *const libbpf_sys::btf) -> HashSet<Vec<u8>> {
    // SAFETY: each id is one of a type. Its name is 0 or the offset of a string.
    let name = |id| unsafe {
        let name = (*libbpf_sys::btf__type_by_id(types, id)).name_off;
        CStr::from_ptr(libbpf_sys::btf__str_by_offset(types, name))
    };
    // SAFETY: by the contract of this function.
    let ids = 1..unsafe { libbpf_sys::btf__type_cnt(types) };
    ids.map(|id| essential(name(id).to_bytes()).to_vec()).filter(|name| !name.is_empty()).collect()
}

impl Prepared {
    fn new(prog: &OpenProgramMut<'_>, target: u32, btf: RawFd) -> Prepared {
        let raw = prog.as_libbpf_object().as_ptr();
        // SAFETY: the program belongs to an object that is open. libbpf keeps the arrays of the stated lengths with it.
        unsafe {
            Prepared {
                name: prog.name().to_owned(),
                kind: libbpf_sys::bpf_program__type(raw),
                attach_type: libbpf_sys::bpf_program__expected_attach_type(raw),
                target,
                instructions: prog.insns().to_vec(),
                functions: copied(
                    libbpf_sys::bpf_program__func_info(raw),
                    libbpf_sys::bpf_program__func_info_cnt(raw),
                ),
                lines: copied(
                    libbpf_sys::bpf_program__line_info(raw),
                    libbpf_sys::bpf_program__line_info_cnt(raw),
                ),
                btf,
            }
        }
    }

    fn load(&self) -> Result<Loaded> {
        let mut log = [0u8; 4096];
        match self.load_with(&mut []).or_else(|_| self.load_with(&mut log)) {
            Ok(fd) => Ok(Loaded { name: self.name.clone(), fd, attach_type: self.attach_type }),
            // Only the verifier writes a log, which is not for us: with --verbose, libbpf loads all.
            Err(_) if log[0] != 0 => Err(Rejection::of(&self.name.to_string_lossy()).into()),
            Err(error) => Err(error).with_context(|| format!("load {}", self.name.display())),
        }
    }

    fn load_with(&self, log: &mut [u8]) -> io::Result<OwnedFd> {
        let name = CString::new(self.name.as_bytes())?;
        let mut options = libbpf_sys::bpf_prog_load_opts {
            sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as libbpf_sys::size_t,
            expected_attach_type: self.attach_type,
            attach_btf_id: self.target,
            prog_btf_fd: self.btf as u32,
            func_info: self.functions.as_ptr().cast(),
            func_info_cnt: self.functions.len() as u32,
            func_info_rec_size: size_of::<bpf_func_info>() as u32,
            line_info: self.lines.as_ptr().cast(),
            line_info_cnt: self.lines.len() as u32,
            line_info_rec_size: size_of::<bpf_line_info>() as u32,
            log_level: u32::from(!log.is_empty()),
            log_buf: if log.is_empty() { ptr::null_mut() } else { log.as_mut_ptr().cast() },
            log_size: log.len() as u32,
            ..Default::default()
        };
        // SAFETY: the pointers are to strings and arrays of the stated sizes, and all outlive the call.
        owned(unsafe {
            libbpf_sys::bpf_prog_load(
                self.kind,
                name.as_ptr(),
                c"Dual MIT/GPL".as_ptr(),
                self.instructions.as_ptr(),
                self.instructions.len() as libbpf_sys::size_t,
                &mut options,
            )
        })
    }
}

impl Loaded {
    /// The program's name.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Attaches it until the descriptor returned is closed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach(&self) -> io::Result<OwnedFd> {
        // SAFETY: the descriptor is open; there are no options.
        owned(unsafe { libbpf_sys::bpf_link_create(self.fd.as_raw_fd(), 0, self.attach_type, ptr::null()) })
    }
}

/// Lets libbpf keep one instruction of a program that it does not load: it would keep all to the end, 500 kB.
fn forget_instructions(prog: &OpenProgramMut<'_>) {
    let mut exit =
        bpf_insn { code: (libbpf_sys::BPF_JMP | libbpf_sys::BPF_EXIT) as u8, ..Default::default() };
    // SAFETY: the program belongs to an object that is not loaded; libbpf copies the instruction. If it cannot, the old
    // ones remain.
    unsafe { libbpf_sys::bpf_program__set_insns(prog.as_libbpf_object().as_ptr(), &mut exit, 1) };
}

/// A copy of an array of C.
// SAFETY: the caller ensures that there are `count` valid items at `items`, unless it is null.
unsafe fn copied<T: Copy>(items: *const T, count: u32) -> Vec<T> {
    if items.is_null() {
        return Vec::new();
    }
    // SAFETY: by the contract of this function.
    unsafe { slice::from_raw_parts(items, count as usize) }.to_vec()
}

/// The descriptor that a call of libbpf returned.
///
/// # Errors
/// The error that it returned instead.
pub fn owned(fd: i32) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the call has just created it, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
