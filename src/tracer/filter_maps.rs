//! Loads a compiled filter into the kernel: settings before the programs are loaded, values after.

use super::skel::types::{
    filter_field as Field, filter_host, filter_limit as Limit, filter_net, filter_number, filter_rows,
    filter_set, filter_text,
};
use super::skel::{NetmonMaps, OpenNetmonMaps};
use crate::filter::predicate::{Attribute as A, PortRange, TEXT_MAX};
use crate::filter::{GROUPS_MAX, Program, Rows, TERMS_MAX, Table, TermSet, WORDS};
use anyhow::{Context, Result, bail};
use bytemuck::{NoUninit, bytes_of};
use libbpf_rs::{MapCore, MapFlags, OpenMapMut};

// SAFETY: integers and arrays of integers only; filter.h asserts that there is no padding.
unsafe impl NoUninit for filter_number {}
// SAFETY: as above.
unsafe impl NoUninit for filter_text {}
// SAFETY: as above.
unsafe impl NoUninit for filter_host {}
// SAFETY: as above.
unsafe impl NoUninit for filter_net {}
// SAFETY: as above.
unsafe impl NoUninit for filter_set {}

// The kernel side's arrays are large enough for everything the compiler generates.
const _: () = {
    assert!(Limit::FILTER_GROUPS.0 as usize == GROUPS_MAX);
    assert!(Limit::FILTER_WORDS.0 as usize == WORDS);
    assert!(WORDS * 64 == TERMS_MAX);
    assert!(Limit::FILTER_TEXT_MAX.0 as usize == TEXT_MAX);
};

/// The number of ports.
const PORTS: usize = 1 << 16;

/// The kernel side's id of the attribute.
fn field_of(attribute: A) -> Result<Field> {
    Ok(match attribute {
        A::BinaryName => Field::FILTER_BINARY_NAME,
        A::BinaryPath => Field::FILTER_BINARY_PATH,
        A::BinaryPrefix => Field::FILTER_BINARY_PREFIX,
        A::ParentBinaryName => Field::FILTER_PARENT_NAME,
        A::ParentBinaryPath => Field::FILTER_PARENT_PATH,
        A::ParentBinaryPrefix => Field::FILTER_PARENT_PREFIX,
        A::Uid => Field::FILTER_UID,
        A::Euid => Field::FILTER_EUID,
        A::Gid => Field::FILTER_GID,
        A::Egid => Field::FILTER_EGID,
        A::Auid => Field::FILTER_AUID,
        A::Pid => Field::FILTER_PID,
        A::Ppid => Field::FILTER_PPID,
        A::ContainerId => Field::FILTER_CONTAINER,
        A::Cgroup => Field::FILTER_CGROUP,
        A::Netns => Field::FILTER_NETNS,
        A::Family => Field::FILTER_FAMILY,
        A::Direction => Field::FILTER_DIRECTION,
        A::Saddr => Field::FILTER_SADDR,
        A::Daddr => Field::FILTER_DADDR,
        A::PortSrc => Field::FILTER_SPORT,
        A::PortDst => Field::FILTER_DPORT,
        other => bail!("{} has no table", other.name()),
    })
}

fn set(terms: TermSet) -> filter_set {
    filter_set { word: terms.0 }
}

/// The contents of all maps, as bytes.
#[derive(Default)]
struct Contents {
    numbers: Pairs,
    texts: Pairs,
    prefixes: Pairs,
    hosts: Pairs,
    nets: Pairs,
    ports: Pairs,
    cgroups: Pairs,
}

/// Keys and values of one map, stored back to back.
#[derive(Default)]
struct Pairs {
    keys: Vec<u8>,
    values: Vec<u8>,
    count: usize,
}

impl Pairs {
    fn push(&mut self, key: &impl NoUninit, row: TermSet) {
        self.keys.extend_from_slice(bytes_of(key));
        self.values.extend_from_slice(bytes_of(&set(row)));
        self.count += 1;
    }
}

impl Contents {
    fn of(program: &Program) -> Result<Self> {
        let mut contents = Contents::default();
        for (attribute, table) in &program.tables {
            contents.add(field_of(*attribute)?.0, table);
        }
        program.cgroups.iter().for_each(|id| contents.cgroups.push(id, TermSet::ALL));
        Ok(contents)
    }

    fn add(&mut self, field: u32, table: &Table) {
        match &table.rows {
            // These rows are part of the settings.
            Rows::Numbers(_) if table.flags().is_some() => {}
            Rows::Numbers(rows) => {
                rows.iter().for_each(|(value, row)| {
                    self.numbers.push(&filter_number { field, value: *value }, *row)
                });
            }
            Rows::Texts(rows) => {
                rows.iter().for_each(|(text, row)| self.texts.push(&text_key(field, text, 0), *row));
            }
            Rows::Prefixes(rows) => rows.iter().for_each(|(text, row)| {
                let bits = 8 * (1 + text.len() as u32);
                self.prefixes.push(&text_key(field, text, bits), *row);
            }),
            Rows::Nets { hosts, nets, .. } => {
                hosts.iter().for_each(|(address, row)| self.hosts.push(&host_key(field, *address), *row));
                nets.iter().for_each(|(net, row)| {
                    let bits = 32 + u32::from(net.prefix_len());
                    self.nets.push(&filter_net { bits, host: host_key(field, net.bits()) }, *row);
                });
            }
            Rows::Ports(runs) => self.add_ports(field, runs),
        }
    }

    /// Adds all ports of one end: the ranges leave none out.
    fn add_ports(&mut self, field: u32, runs: &[(PortRange, TermSet)]) {
        let first = if field == Field::FILTER_DPORT.0 { PORTS as u32 } else { 0 };
        for (range, row) in runs {
            for port in range.low..=range.high {
                self.ports.push(&(first + u32::from(port)), *row);
            }
        }
    }
}

pub(super) fn text_key(field: u32, text: &[u8], bits: u32) -> filter_text {
    let mut key = filter_text { bits, field: field as u8, ..filter_text::default() };
    let len = text.len().min(key.text.len());
    key.text[..len].copy_from_slice(&text[..len]);
    key
}

pub(super) fn host_key(field: u32, address: u128) -> filter_host {
    let bytes = address.to_be_bytes();
    let word = |i: usize| u32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    filter_host { field, addr: [word(0), word(4), word(8), word(12)] }
}

/// Fills the maps once they exist.
pub struct Loader {
    contents: Contents,
}

/// Sets what the verifier must know, and the sizes of the maps.
pub fn configure(program: &Program, maps: &mut OpenNetmonMaps<'_>) -> Result<Loader> {
    let contents = Contents::of(program)?;
    let rodata = maps.rodata_data.as_deref_mut().context("the object has no rodata")?;
    let settings = &mut rodata.filter;
    let terms = program.rule_of.len();
    settings.words = terms.div_ceil(64) as u32;
    settings.groups = program.groups.len() as u32;
    settings.rules = set(program.rules);
    settings.rule_of[..terms].copy_from_slice(&program.rule_of);
    for (slot, group) in settings.group.iter_mut().zip(&program.groups) {
        *slot = set(*group);
    }
    for (attribute, table) in &program.tables {
        let field = field_of(*attribute)?.0;
        settings.fields |= 1 << field;
        if matches!(&table.rows, Rows::Nets { nets, .. } if !nets.is_empty()) {
            settings.cidrs |= 1 << field;
        }
        if let (A::PortSrc, Rows::Ports(runs)) = (attribute, &table.rows)
            && let Some((widest, _)) = runs.iter().max_by_key(|(range, _)| range.high - range.low)
        {
            (settings.alike_first, settings.alike_last) = (widest.low, widest.high);
        }
        let [low, high] = table.flags().unwrap_or([table.miss; 2]);
        settings.fallback[field as usize] = filter_rows { row: [set(low), set(high)] };
    }
    let uses = |attribute| program.tables.contains_key(&attribute);
    let ports = if uses(A::PortDst) {
        2 * PORTS
    } else if uses(A::PortSrc) {
        PORTS
    } else {
        1
    };
    if uses(A::PortSrc) {
        maps.filter_pending.set_max_entries(PENDING_MAX)?;
    }
    let used = !program.tables.is_empty();
    maps.filter_scratches.set_autocreate(used)?;
    maps.filter_pending.set_autocreate(uses(A::PortSrc))?;
    for (map, size) in [
        (&mut maps.filter_numbers, contents.numbers.count),
        (&mut maps.filter_texts, contents.texts.count),
        (&mut maps.filter_prefixes, contents.prefixes.count),
        (&mut maps.filter_hosts, contents.hosts.count),
        (&mut maps.filter_nets, contents.nets.count),
        (&mut maps.filter_cgroups, contents.cgroups.count),
        (&mut maps.filter_ports, ports),
    ] {
        resize(map, size, used)?;
    }
    Ok(Loader { contents })
}

/// Maximum number of connections waiting for their local port.
const PENDING_MAX: u32 = 1 << 16;

fn resize(map: &mut OpenMapMut<'_>, size: usize, used: bool) -> Result<()> {
    map.set_autocreate(used)?;
    let size = u32::try_from(size.max(1)).context("the size of a filter map")?;
    map.set_max_entries(size).context("set the size of a filter map")
}

impl Loader {
    /// Fills all maps; must be called before anything is attached.
    pub fn fill(&self, maps: &NetmonMaps<'_>) -> Result<()> {
        fill(&maps.filter_numbers, &self.contents.numbers)?;
        fill(&maps.filter_texts, &self.contents.texts)?;
        fill(&maps.filter_prefixes, &self.contents.prefixes)?;
        fill(&maps.filter_hosts, &self.contents.hosts)?;
        fill(&maps.filter_nets, &self.contents.nets)?;
        fill(&maps.filter_ports, &self.contents.ports)?;
        fill(&maps.filter_cgroups, &self.contents.cgroups)
    }
}

/// Uses one system call where the kernel supports it; tries do since Linux 5.14.
fn fill(map: &impl MapCore, pairs: &Pairs) -> Result<()> {
    if pairs.count == 0 {
        return Ok(());
    }
    let count = u32::try_from(pairs.count).context("the size of a filter map")?;
    if map.update_batch(&pairs.keys, &pairs.values, count, MapFlags::ANY, MapFlags::ANY).is_ok() {
        return Ok(());
    }
    let keys = pairs.keys.chunks_exact(map.key_size() as usize);
    let values = pairs.values.chunks_exact(map.value_size() as usize);
    for (key, value) in keys.zip(values) {
        map.update(key, value, MapFlags::ANY).context("fill a filter map")?;
    }
    Ok(())
}
