//! Checks compatibility with the oldest supported kernel, 5.15, without running it.
//!
//! Debian has no such kernel, but an older and a newer one; what both have, 5.15 has too. The lists of structure
//! members used below were made from the BTF of both kernels. Anything newer is listed here, with the check that the
//! programs make before using it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use libbpf_rs::{
    ObjectBuilder,
    btf::{
        Btf, BtfType,
        types::{Composite, Typedef},
    },
    libbpf_sys,
};

use super::skel::FOR_ALL;

/// The kernel types that the programs read.
const HEADER: &str = include_str!("../bpf/vmlinux.h");
const OLDER: &str = include_str!("../../tests/kernels/layouts/5.10");
const NEWER: &str = include_str!("../../tests/kernels/layouts/6.1");
/// The layouts of arm64, on which nothing is run: at least the members must exist.
const ARM64: &str = include_str!("../../tests/kernels/layouts/6.1-arm64");
const PROGRAMS: [&str; 6] = [
    include_str!("../bpf/netmon.bpf.c"),
    include_str!("../bpf/close.h"),
    include_str!("../bpf/path.h"),
    include_str!("../bpf/conn.h"),
    include_str!("../bpf/filter_process.h"),
    include_str!("../bpf/identity.h"),
];

/// Members that not all kernels since 5.15 have, and the check that the programs make.
const ASKED_FOR: [(&str, &str, &str); 8] = [
    ("mptcp_sock", "first", "bpf_core_field_exists(msk->first)"),
    ("mptcp_sock", "bytes_sent", "bpf_core_field_exists(msk->bytes_sent)"),
    ("mptcp_sock", "bytes_received", "bpf_core_field_exists(msk->bytes_sent)"),
    ("mptcp_sock", "local_key", "bpf_core_field_exists(msk->local_key)"),
    ("mptcp_subflow_context", "conn", "bpf_core_field_exists(subflow->conn)"),
    ("io_kiocb", "cqe", "bpf_core_field_exists(req->cqe)"),
    ("io_cqe", "res", "bpf_core_field_exists(req->cqe)"),
    // an array of the same size before 6.3; its name is not used
    ("kernel_cap_t", "val", "bpf_core_field_exists(cred->cap_effective.val)"),
];

/// Helpers newer than 5.15, likewise.
const LAST_HELPER: i32 = 175; // bpf_task_pt_regs
const NEWER_HELPERS: [(i32, &str); 1] =
    [(181, "bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop)")];

type Members = BTreeMap<String, BTreeSet<String>>;

/// The lines of a header that a compiler for this architecture sees. Only conditions on the architecture matter here.
fn seen_on<'a>(header: &'a str, arch: &str) -> Vec<&'a str> {
    let mut seen = true;
    let mut lines = Vec::new();
    for line in header.lines() {
        match line.strip_prefix('#') {
            None if seen => lines.push(line),
            None => {}
            Some(rest) if rest.contains("__TARGET_ARCH_") => seen = rest.contains(&format!("_{arch})")),
            Some(rest) => seen |= rest.starts_with("endif"),
        }
    }
    lines
}

/// The structures in a header with their members, including those of anonymous structures.
fn declared(header: &str, arch: &str) -> Members {
    let (_, text) = header.split_once("#pragma clang attribute push").expect("relocated types");
    let mut code = String::new();
    for (index, part) in text.split("/*").enumerate() {
        code.push_str(if index == 0 { part } else { part.split_once("*/").expect("a comment ends").1 });
    }
    let (mut found, mut depth) = (Members::new(), 0);
    let (mut head, mut word, mut names) = (String::new(), String::new(), BTreeSet::new());
    for character in seen_on(&code, arch)[1..].join(" ").chars() {
        match character {
            '{' => {
                depth += 1;
                if depth == 1 {
                    head = word.trim().to_owned();
                }
                word.clear();
            }
            '}' => {
                depth -= 1;
                word.clear();
            }
            ';' => {
                let mut declared = word.split(',').map(|part| {
                    let name = part
                        .split(['[', ':'])
                        .next()
                        .map(str::trim)
                        .and_then(|text| text.rsplit([' ', '\t', '*']).next());
                    name.unwrap_or_default().to_owned()
                });
                if depth > 0 {
                    names.extend(declared);
                } else if !names.is_empty() {
                    let name = declared.next_back().unwrap_or_default();
                    let own = head.strip_prefix("struct ").map(str::to_owned).unwrap_or(name);
                    let (own, _) = own.split_once("___").unwrap_or((&own, "")); // libbpf ignores the rest, a "flavor"
                    names.remove("");
                    found.entry(own.to_owned()).or_default().append(&mut names);
                }
                word.clear();
            }
            _ => word.push(character),
        }
    }
    found
}

/// Parses one structure per line: `name: member member`.
fn listed(list: &str) -> Members {
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once(": "));
    pairs.map(|(name, rest)| (name.to_owned(), rest.split(' ').map(str::to_owned).collect())).collect()
}

#[test]
fn every_member_is_in_5_15_or_checked_for() {
    let (older, newer) = (listed(OLDER), listed(NEWER));
    let has = |kernel: &Members, name: &str, member: &str| {
        kernel.get(name).is_some_and(|members| members.contains(member))
    };
    let wanted = declared(HEADER, "x86");
    assert!(wanted["tcp_sock"].contains("bytes_acked") && wanted["kuid_t"].contains("val"), "{wanted:#?}");
    for (name, members) in &wanted {
        for member in members {
            let old = has(&older, name, member) && has(&newer, name, member);
            match ASKED_FOR.iter().find(|(asked, field, _)| (asked, field) == (&&**name, &&**member)) {
                None => assert!(old, "{name}.{member}: is it in 5.15? Not in 5.10, or not in 6.1"),
                Some((_, _, question)) => {
                    assert!(!old, "{name}.{member} has always been there");
                    assert!(PROGRAMS.iter().any(|text| text.contains(question)), "{question}");
                }
            }
        }
    }
}

#[test]
fn every_member_exists_on_arm64() {
    let there = listed(ARM64);
    let wanted = declared(HEADER, "arm64");
    assert!(
        wanted["pt_regs"].contains("syscallno") && wanted["user_pt_regs"].contains("regs"),
        "{wanted:#?}"
    );
    for (name, members) in &wanted {
        for member in members {
            let newer = ASKED_FOR.iter().any(|(asked, field, _)| (asked, field) == (&&**name, &&**member));
            let is = there.get(name).is_some_and(|members| members.contains(member));
            assert!(is || newer, "{name}.{member} is not in Linux 6.1 for arm64");
        }
    }
}

#[test]
fn every_helper_is_in_5_15_or_checked_for() {
    let mut open = ObjectBuilder::default().open_memory(FOR_ALL).expect("open the object");
    let mut helpers = BTreeSet::new();
    for program in open.progs_mut() {
        let calls = program.insns().iter().filter(|insn| {
            u32::from(insn.code) == libbpf_sys::BPF_JMP | libbpf_sys::BPF_CALL && insn.src_reg() == 0
        });
        helpers.extend(calls.map(|call| call.imm));
    }
    assert!(helpers.contains(&2), "every program looks something up: {helpers:?}");
    for helper in helpers.into_iter().filter(|&helper| helper > LAST_HELPER) {
        let asked = NEWER_HELPERS.iter().find(|(newer, _)| *newer == helper);
        let (_, question) = asked.unwrap_or_else(|| panic!("helper {helper} is not in 5.15"));
        assert!(PROGRAMS.iter().any(|text| text.contains(question)), "{question}");
    }
}

/// The members of a structure, including those of anonymous structures in it.
fn members(btf: &Btf<'_>, kind: BtfType<'_>, names: &mut BTreeSet<String>) {
    let Ok(composite) = Composite::try_from(kind.skip_mods_and_typedefs()) else { return };
    for member in composite.iter() {
        names.extend(member.name.map(|name| name.to_string_lossy().into_owned()));
        let its: Option<BtfType<'_>> = btf.type_by_id(member.ty);
        if let Some(its) = its.filter(|its| its.name().is_none()) {
            members(btf, its, names);
        }
    }
}

#[test]
#[ignore = "writes the list of a kernel: tests/kernels/layouts says how"]
fn write_list() {
    let [from, to, arch] = ["BTF", "LIST", "ARCH"].map(|name| std::env::var(name).expect(name));
    let btf = Btf::from_path(from).expect("raw BTF");
    let before = std::fs::read_to_string(&to).unwrap_or_default();
    let head = before.lines().filter(|line| line.starts_with('#'));
    let mut text: String = head.flat_map(|line| [line, "\n"]).collect();
    for name in declared(HEADER, &arch).keys() {
        let mut names = BTreeSet::new();
        if let Some(composite) = btf.type_by_name::<Composite<'_>>(name) {
            members(&btf, *composite, &mut names);
        } else if let Some(typedef) = btf.type_by_name::<Typedef<'_>>(name) {
            members(&btf, *typedef, &mut names);
        }
        if !names.is_empty() {
            writeln!(text, "{name}: {}", Vec::from_iter(names).join(" ")).expect("memory");
        }
    }
    std::fs::write(to, text).expect("write the list");
}
