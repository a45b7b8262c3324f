//! The kernel's types (BTF) as a file for libbpf, which compares each type that the programs read with every type of the
//! kernel: a millisecond each, because of the names and of the memory. So this file only has the types with a name of
//! ours and what is in them. All others are empty, so that each type keeps its id, which the programs refer to.
//!
//! The format: Documentation/bpf/btf.rst in the kernel's source.

use std::{
    fs::File,
    io::{self, Read, Write},
    ops::Deref,
    os::fd::AsRawFd,
    path::PathBuf,
};

use anyhow::{Context, Result};
use foldhash::HashSet;
use memchr::memchr;
use memmap2::{Mmap, MmapOptions};
use rustix::fs::{MemfdFlags, memfd_create};

/// Kinds of types.
const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FWD: u32 = 7;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// The file, in memory.
pub struct KernelTypes(File);

/// The names to be found in the kernel's types.
pub struct Names {
    /// Of the programs' own types, of which libbpf looks for the kernel's version.
    pub ours: HashSet<Vec<u8>>,
    /// Of the tracepoints and iterators that programs attach to.
    pub targets: Vec<Vec<u8>>,
}

impl KernelTypes {
    /// Creates the file, still empty.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn new() -> Result<KernelTypes> {
        let file = memfd_create("btf", MemfdFlags::CLOEXEC).context("create a file in memory")?;
        Ok(KernelTypes(file.into()))
    }

    /// The path of the file, which exists until it is dropped.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    /// Writes the file, which takes a few milliseconds. Returns the ids of the targets.
    ///
    /// # Errors
    /// When the kernel's types cannot be read, or do not have a target.
    pub fn write(&self, names: &Names) -> Result<Vec<u32>> {
        let raw = Raw::of_kernel().context("read the kernel's types")?;
        let types = Types::parse(&raw).context("the kernel's types have an unknown format")?;
        (&self.0).write_all(&types.with_names(&names.ours)).context("write the kernel's types")?;
        let found = types.ids_of(&names.targets).into_iter().zip(&names.targets);
        let checked = found.map(|(id, name)| {
            id.with_context(|| format!("the kernel has no {}", String::from_utf8_lossy(name)))
        });
        checked.collect()
    }
}

/// The kernel's types as they are.
enum Raw {
    Mapped(Mmap),
    Read(Vec<u8>),
}

impl Raw {
    /// Maps them, which Linux 6.16 or newer allows, or reads them, a page at a time.
    fn of_kernel() -> io::Result<Raw> {
        let mut file = File::open("/sys/kernel/btf/vmlinux")?;
        // SAFETY: this file never changes.
        if let Ok(mapped) = unsafe { MmapOptions::new().map_copy_read_only(&file) } {
            return Ok(Raw::Mapped(mapped));
        }
        let mut read = Vec::new();
        file.read_to_end(&mut read)?;
        Ok(Raw::Read(read))
    }
}

impl Deref for Raw {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Raw::Mapped(mapped) => mapped,
            Raw::Read(read) => read,
        }
    }
}

/// Parsed BTF data.
struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type starts; the first one has id 1.
    starts: Vec<u32>,
}

/// One type.
struct Type<'a> {
    name: u32,
    info: u32,
    /// The size, or the id of another type.
    size: u32,
    /// Members and the like.
    extra: &'a [u8],
}

impl<'a> Type<'a> {
    /// The type at the start of this data.
    fn first(data: &'a [u8]) -> Option<Type<'a>> {
        let (name, info, size) = (word(data, 0)?, word(data, 4)?, word(data, 8)?);
        let length = extra_length(kind_of(info), info as usize & 0xffff)?;
        Some(Type { name, info, size, extra: data.get(12..)?.get(..length)? })
    }

    fn kind(&self) -> u32 {
        kind_of(self.info)
    }

    /// The length of one of its members, if they have names.
    fn member_length(&self) -> Option<usize> {
        match self.kind() {
            STRUCT | UNION | ENUM64 => Some(12),
            ENUM => Some(8),
            _ => None,
        }
    }

    /// Calls `visit` with the id of each type that is in this one.
    fn each_inner(&self, visit: impl FnMut(u32)) {
        match self.kind() {
            STRUCT | UNION => {
                self.extra.chunks_exact(12).filter_map(|member| word(member, 4)).for_each(visit)
            }
            ARRAY => word(self.extra, 0).into_iter().chain(word(self.extra, 4)).for_each(visit),
            TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => Some(self.size).into_iter().for_each(visit),
            _ => {}
        }
    }
}

impl<'a> Types<'a> {
    /// None if the data is malformed or of an unknown kind.
    fn parse(btf: &'a [u8]) -> Option<Types<'a>> {
        if btf.first_chunk() != Some(&0xeb9f_u16.to_ne_bytes()) {
            return None;
        }
        let header = |at| Some(word(btf, at)? as usize);
        let after = btf.get(header(4)?..)?;
        let part = |at, length| after.get(header(at)?..)?.get(..header(length)?);
        let (types, strings) = (part(8, 12)?, part(16, 20)?);
        let (mut starts, mut at) = (Vec::new(), 0);
        while at < types.len() {
            starts.push(at as u32);
            at += 12 + Type::first(&types[at..])?.extra.len();
        }
        Some(Types { types, strings, starts })
    }

    /// The types in the order of their ids.
    fn all(&self) -> impl Iterator<Item = Type<'a>> {
        self.starts.iter().filter_map(|&start| Type::first(&self.types[start as usize..]))
    }

    /// Empty if it has none.
    fn name(&self, at: u32) -> &'a [u8] {
        let name = self.strings.get(at as usize..).unwrap_or_default();
        &name[..memchr(0, name).unwrap_or(name.len())]
    }

    /// The names and kinds of all types, in the order of their ids.
    fn heads(&self) -> impl Iterator<Item = (u32, u32)> {
        let head = |start| Some((word(self.types, start)?, kind_of(word(self.types, start + 4)?)));
        self.starts.iter().map(move |&start| head(start as usize).unwrap_or_default())
    }

    /// The ids of the types that describe these tracepoints and iterators.
    fn ids_of(&self, targets: &[Vec<u8>]) -> Vec<Option<u32>> {
        let mut ids = vec![None; targets.len()];
        for ((name, kind), id) in self.heads().zip(1..) {
            if !matches!(kind, TYPEDEF | FUNC) {
                continue;
            }
            // Not name(): nearly all names differ from all targets at the start.
            let text = self.strings.get(name as usize..).unwrap_or_default();
            let ends = |length| matches!(text.get(length), None | Some(0));
            for (found, target) in ids.iter_mut().zip(targets) {
                if text.starts_with(target) && ends(target.len()) {
                    *found = Some(id);
                }
            }
        }
        ids
    }

    /// Which types have these names, or are in one that has.
    fn needed(&self, names: &HashSet<Vec<u8>>) -> Vec<bool> {
        let ours = |(name, kind)| {
            matches!(kind, STRUCT | UNION | ENUM | ENUM64) && names.contains(essential(self.name(name)))
        };
        let mut needed: Vec<bool> = self.heads().map(ours).collect();
        let mut open: Vec<usize> = (0..needed.len()).filter(|&at| needed[at]).collect();
        while let Some(at) = open.pop() {
            let Some(outer) = Type::first(&self.types[self.starts[at] as usize..]) else { continue };
            outer.each_inner(|id| {
                let inner = (id as usize).wrapping_sub(1); // id 0 is void
                if needed.get(inner) == Some(&false) {
                    needed[inner] = true;
                    open.push(inner);
                }
            });
        }
        needed
    }

    /// BTF data of the types with these names and what is in them, with empty ones in the place of others.
    fn with_names(&self, names: &HashSet<Vec<u8>>) -> Vec<u8> {
        let needed = self.needed(names);
        let count = needed.iter().rposition(|&needed| needed).map_or(0, |last| last + 1);
        let (mut types, mut strings) = (Vec::with_capacity(1 << 21), vec![0]);
        let mut renamed = |name: u32| match self.name(name) {
            [] => 0,
            name => {
                let at = strings.len() as u32;
                strings.extend(name);
                strings.push(0);
                at
            }
        };
        for (it, needed) in self.all().zip(needed).take(count) {
            if !needed || it.kind() == FUNC_PROTO {
                types.extend([0, FWD << 24, 0].map(u32::to_ne_bytes).as_flattened());
                continue;
            }
            // What a pointer points to is not in the type: it may be void.
            let size = if it.kind() == PTR { 0 } else { it.size };
            types.extend([renamed(it.name), it.info, size].map(u32::to_ne_bytes).as_flattened());
            let Some(length) = it.member_length() else {
                types.extend(it.extra);
                continue;
            };
            for member in it.extra.chunks_exact(length) {
                types.extend(renamed(word(member, 0).unwrap_or(0)).to_ne_bytes());
                types.extend(&member[4..]);
            }
        }
        let (types_length, strings_length) = (types.len() as u32, strings.len() as u32);
        let mut btf = Vec::with_capacity(24 + types.len() + strings.len());
        btf.extend(0xeb9f_u16.to_ne_bytes());
        btf.extend([1, 0]); // version, flags
        btf.extend([24, 0, types_length, types_length, strings_length].map(u32::to_ne_bytes).as_flattened());
        btf.extend(types);
        btf.extend(strings);
        btf
    }
}

fn kind_of(info: u32) -> u32 {
    info >> 24 & 0x1f
}

/// The length of what follows the common part of a type.
fn extra_length(kind: u32, members: usize) -> Option<usize> {
    Some(match kind {
        INT | VAR | DECL_TAG => 4,
        ARRAY => 12,
        STRUCT | UNION | DATASEC | ENUM64 => 12 * members,
        ENUM | FUNC_PROTO => 8 * members,
        0 | ENUM64.. => return None,
        _ => 0,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A name without its flavor: libbpf ignores what follows three underscores (bpf_core_essential_name_len()).
pub fn essential(name: &[u8]) -> &[u8] {
    if !name.windows(3).any(|part| part == b"___") {
        return name;
    }
    let flavored = |part: &[u8]| part[0] != b'_' && part[1..4] == *b"___" && part[4] != b'_';
    name.windows(5).rposition(flavored).map_or(name, |at| &name[..=at])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// (name, [type, offset])
    type Member<'a> = (&'a str, [u32; 2]);

    /// BTF data with these types, each as (name, kind, size or type, members).
    fn btf(types: &[(&str, u32, u32, &[Member<'_>])]) -> Vec<u8> {
        let (mut records, mut strings) = (Vec::new(), vec![0]);
        let mut name = |text: &str| {
            let at = strings.len() as u32;
            strings.extend(text.bytes());
            strings.push(0);
            if text.is_empty() { 0 } else { at }
        };
        for (text, kind, size, members) in types {
            records.extend([name(text), kind << 24 | members.len() as u32, *size]);
            for (text, words) in *members {
                records.push(name(text));
                records.extend(words);
            }
        }
        let mut btf = 0xeb9f_u16.to_ne_bytes().to_vec();
        let length = 4 * records.len() as u32;
        btf.extend([1, 0]);
        btf.extend([24, 0, length, length, strings.len() as u32].map(u32::to_ne_bytes).as_flattened());
        btf.extend(records.iter().flat_map(|word| word.to_ne_bytes()));
        btf.extend(strings);
        btf
    }

    fn example() -> Vec<u8> {
        btf(&[
            ("sock", STRUCT, 24, &[("state", [4, 0]), ("other", [3, 64]), ("inner", [5, 128])]),
            ("unrelated", STRUCT, 8, &[("state", [4, 0])]),
            ("", PTR, 2, &[]),
            ("u32", TYPEDEF, 6, &[]),
            ("inner", STRUCT, 8, &[("first", [4, 0])]),
            ("unsigned int", 16, 4, &[]),
            ("btf_trace_sock", TYPEDEF, 3, &[]),
            ("btf_trace_sock_2", TYPEDEF, 3, &[]),
        ])
    }

    /// Each type of the example as (name, kind, names of its members).
    fn listed(types: &Types<'_>) -> Vec<(String, u32, Vec<String>)> {
        let text = |name| String::from_utf8_lossy(types.name(name)).into_owned();
        let members =
            |it: &Type<'_>| it.extra.chunks(12).map(|member| text(word(member, 0).unwrap())).collect();
        types.all().map(|it| (text(it.name), it.kind(), members(&it))).collect()
    }

    #[test]
    fn only_our_types_and_what_is_in_them_remain() {
        let all = example();
        let all = Types::parse(&all).unwrap();
        let ours = HashSet::from_iter([b"sock".to_vec()]);
        let kept = all.with_names(&ours);
        let nothing = (String::new(), FWD, vec![]);
        let mut expected = listed(&all);
        expected[1] = nothing;
        expected.truncate(6);
        assert_eq!(listed(&Types::parse(&kept).unwrap()), expected);
    }

    #[test]
    fn targets_have_ids() {
        let all = example();
        let all = Types::parse(&all).unwrap();
        let names = ["btf_trace", "btf_trace_sock", "btf_trace_sock_2", "sock", "btf_trace_sock"];
        assert_eq!(all.ids_of(&names.map(Vec::from)), [None, Some(7), Some(8), None, Some(7)]);
    }

    #[test]
    fn flavors_are_ignored() {
        let cases: [(&[u8], &[u8]); 6] = [
            (b"sock", b"sock"),
            (b"sock___old", b"sock"),
            (b"a___b___c", b"a___b"),
            (b"sock____old", b"sock____old"),
            (b"___old", b"___old"),
            (b"", b""),
        ];
        for (name, expected) in cases {
            assert_eq!(essential(name), expected);
        }
    }

    /// If the kernel of this host has them. What remains can be parsed again, and keeps its ids.
    #[test]
    fn the_types_of_this_kernel() {
        let Ok(all) = Raw::of_kernel() else { return };
        let all = Types::parse(&all).unwrap();
        let ours = HashSet::from_iter([b"sock".to_vec(), b"task_struct".to_vec()]);
        let kept = all.with_names(&ours);
        let kept = Types::parse(&kept).unwrap();
        assert!(kept.starts.len() < all.starts.len());
        let sizes = |types: &Types<'_>, name: &[u8]| -> Vec<(usize, u32, usize)> {
            let named =
                types.all().enumerate().filter(|(_, it)| it.kind() == STRUCT && types.name(it.name) == name);
            named.map(|(at, it)| (at, it.size, it.extra.len())).collect()
        };
        for name in [&b"sock"[..], b"task_struct", b"sock_common"] {
            assert_eq!(sizes(&kept, name), sizes(&all, name));
            assert!(!sizes(&kept, name).is_empty());
        }
    }

    proptest! {
        #[test]
        fn anything_is_parsed(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Types::parse(&bytes);
        }

        #[test]
        fn damaged_data_is_parsed(at in 0usize..500, byte in any::<u8>(), length in 0usize..500) {
            let mut types = example();
            let length = length.min(types.len());
            types.truncate(length.max(1));
            let at = at % types.len();
            types[at] = byte;
            if let Some(types) = Types::parse(&types) {
                let ours = HashSet::from_iter([b"sock".to_vec()]);
                let kept = types.with_names(&ours);
                prop_assert!(Types::parse(&kept).unwrap().starts.len() <= types.starts.len());
                let _ = types.ids_of(&[b"btf_trace_sock".to_vec()]);
            }
        }
    }
}
