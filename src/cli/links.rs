//! Resolves executables in a filter that are symbolic links here: the kernel reports the file a link points to.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use crate::{
    filter::{Filter, predicate::Attribute},
    hostile::printable,
};

/// Makes the filter also match the targets of the links it names. Returns one note for each link followed and for each
/// path that does not exist on this host.
///
/// `path`: the directories to search for a name without a slash, as in `PATH`.
pub fn follow(filter: &mut Filter, path: &OsStr) -> Vec<String> {
    let mut notes = Vec::new();
    filter.extend_texts(|attribute, text| {
        let file = Path::new(OsStr::from_bytes(text));
        let targets = match attribute {
            Attribute::BinaryName | Attribute::ParentBinaryName => names_behind(file, path),
            Attribute::BinaryPath | Attribute::ParentBinaryPath => Vec::from_iter(real_path(file)),
            Attribute::BinaryPrefix | Attribute::ParentBinaryPrefix if text.ends_with(b"/") => {
                real_path(file).map(|path| [path, b"/".to_vec()].concat()).into_iter().collect()
            }
            _ => return Vec::new(),
        };
        let mut note = |what: String| {
            if !notes.contains(&what) {
                notes.push(what);
            }
        };
        if targets.is_empty() && text.contains(&b'/') {
            note(format!(
                "{} does not exist on this host; until it does, only processes in containers can match",
                shown(text)
            ));
        }
        let others: Vec<_> = targets.into_iter().filter(|target| target != text).collect();
        for target in &others {
            note(format!(
                "{} resolves to {} on this host, which matches as well",
                shown(text),
                shown(target)
            ));
        }
        others
    });
    notes
}

fn shown(text: &[u8]) -> String {
    printable(&String::from_utf8_lossy(text))
}

fn real_path(path: &Path) -> Option<Vec<u8>> {
    fs::canonicalize(path).ok().map(|path| path.into_os_string().into_vec())
}

/// The file names that a command resolves to. Commands outside `PATH` cannot be resolved.
fn names_behind(name: &Path, path: &OsStr) -> Vec<Vec<u8>> {
    let files = std::env::split_paths(path).filter_map(|folder| fs::canonicalize(folder.join(name)).ok());
    let mut names: Vec<_> = files.filter_map(|file| Some(file.file_name()?.as_bytes().to_vec())).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::filter::{Clause, Direction, Subject, Verdict, predicate};

    fn subject() -> Subject {
        let none = std::net::IpAddr::from([127, 0, 0, 1]);
        Subject {
            binary_name: Vec::new(),
            binary_path: Vec::new(),
            parent_binary_name: Vec::new(),
            parent_binary_path: Vec::new(),
            uid: 0,
            euid: 0,
            gid: 0,
            egid: 0,
            auid: 0,
            pid: 1,
            ppid: 0,
            container_id: Vec::new(),
            container_name: Vec::new(),
            pod: Vec::new(),
            namespace: Vec::new(),
            in_cgroup: false,
            netns: 0,
            saddr: none,
            daddr: none,
            sport: 1,
            dport: 1,
            direction: Direction::Egress,
            dns: Vec::new(),
        }
    }

    /// Which of these executables the filter admits, and the notes.
    fn admitted(source: &str, path: &Path, executables: &[&str]) -> (Vec<bool>, Vec<String>) {
        let predicate = predicate::parse(source).expect("a predicate");
        let mut filter =
            Filter { all: vec![Clause { predicate, origin: String::new() }], ..Filter::default() };
        let notes = follow(&mut filter, path.as_os_str());
        let admits = executables.iter().map(|executable| {
            let name = executable.rsplit('/').next().unwrap_or_default();
            let mut subject = subject();
            subject.binary_path = executable.as_bytes().to_vec();
            subject.binary_name = name.as_bytes().to_vec();
            filter.evaluate(&subject) != Verdict::Rejected
        });
        (admits.collect(), notes)
    }

    #[test]
    fn links_match_their_targets() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        fs::create_dir(root.join("usr")).expect("a folder");
        fs::write(root.join("usr/python3.11"), "").expect("a file");
        symlink("python3.11", root.join("usr/python3")).expect("a link");
        symlink("usr", root.join("bin")).expect("a link");
        let real = format!("{}/usr/python3.11", root.display());
        let others = [real.as_str(), "/usr/bin/curl"];
        let bin = root.join("bin");
        for (source, note) in [
            ("binary_name == \"python3\"".to_owned(), "python3 resolves to".to_owned()),
            (
                format!("binary_path == \"{}/bin/python3\"", root.display()),
                "/bin/python3 resolves to".to_owned(),
            ),
            (format!("binary_prefix == \"{}/bin/\"", root.display()), "/bin/ resolves to".to_owned()),
        ] {
            let (admits, notes) = admitted(&source, &bin, &others);
            assert_eq!(admits, [true, false], "{source}");
            assert!(notes.len() == 1 && notes[0].contains(&note), "{notes:?}");
            let (admits, _) = admitted(&format!("NOT {source}"), &bin, &others);
            assert_eq!(admits, [false, true], "NOT {source}");
        }
    }

    #[test]
    fn missing_paths_are_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        fs::write(root.join("plain"), "").expect("a file");
        let real = format!("{}/plain", root.display());
        for source in
            [format!("binary_path == \"{real}\""), "binary_name in [\"plain\", \"other\"]".to_owned()]
        {
            let (admits, notes) = admitted(&source, &root, &[&real]);
            assert_eq!((admits, notes), (vec![true], Vec::new()), "{source}");
        }
        let (_, notes) = admitted(&format!("binary_path == \"{real}s\""), &root, &[]);
        assert!(notes.len() == 1 && notes[0].contains("does not exist on this host; until"), "{notes:?}");
    }
}
