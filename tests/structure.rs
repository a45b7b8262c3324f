//! Checks that no file of src/ imports itself, directly or through others.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Finds modules by path within the crate, such as `output::table`, with the code of their files without tests.
fn modules(folder: &Path, prefix: &[String], found: &mut BTreeMap<Vec<String>, String>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let module = [prefix, std::slice::from_ref(&name)].concat();
        if path.is_dir() {
            modules(&path, &module, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "tests" {
            let code = fs::read_to_string(&path).expect("text");
            let code = code.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
            found.insert(module, code);
        }
    }
}

/// The paths in `use` declarations, with braces expanded.
fn uses(code: &str) -> Vec<Vec<String>> {
    let code: String =
        code.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let line = code[..at].rsplit('\n').next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with("pub") {
            let rest = &code[at + "use ".len()..];
            expand(rest.split(';').next().unwrap_or_default(), &[], &mut paths);
        }
    }
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at..];
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        let path = &rest[..end.unwrap_or(rest.len())];
        // Before a group it is part of a `use`.
        if !path.ends_with(':') {
            expand(path, &[], &mut paths);
        }
    }
    paths
}

fn expand(tree: &str, prefix: &[String], paths: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    if tree.is_empty() {
        return; // after a trailing comma
    }
    let (head, group) = match tree.find('{') {
        Some(at) => (&tree[..at], Some(tree[at + 1..].strip_suffix('}').unwrap_or(&tree[at + 1..]))),
        None => (tree, None),
    };
    let segments =
        head.split("::").map(|part| part.split(" as ").next().unwrap_or_default().trim().to_owned());
    let path: Vec<String> =
        prefix.iter().cloned().chain(segments.filter(|part| !part.is_empty() && part != "self")).collect();
    let Some(group) = group else {
        paths.push(path);
        return;
    };
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&group[start..at], &path, paths);
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The file that contains a path, seen from a module: the longest prefix that is a file.
fn target(path: &[String], from: &[String], files: &BTreeMap<Vec<String>, String>) -> Option<Vec<String>> {
    let absolute = match path.first()?.as_str() {
        "crate" => path[1..].to_vec(),
        "super" => {
            let ups = path.iter().take_while(|part| *part == "super").count();
            [&from[..from.len().checked_sub(ups)?], &path[ups..]].concat()
        }
        _ => [from, path].concat(),
    };
    let candidates = (1..=absolute.len()).rev().map(|len| absolute[..len].to_vec());
    let found = candidates.into_iter().find(|candidate| files.contains_key(candidate))?;
    // A path within the same file is not an import.
    (found != from).then_some(found)
}

fn imports() -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let mut files = BTreeMap::new();
    modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &[], &mut files);
    let of = |module: &Vec<String>| {
        uses(&files[module]).iter().filter_map(|path| target(path, module, &files)).collect()
    };
    files.keys().map(|module| (module.clone(), of(module))).collect()
}

/// A cycle, from a file back to itself.
fn circle(imports: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>) -> Option<Vec<String>> {
    fn visit(
        module: &Vec<String>,
        imports: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>,
        trail: &mut Vec<Vec<String>>,
        done: &mut BTreeSet<Vec<String>>,
    ) -> Option<Vec<String>> {
        if let Some(start) = trail.iter().position(|visited| visited == module) {
            let round = trail[start..].iter().chain([module]);
            return Some(round.map(|module| module.join("::")).collect());
        }
        if !done.insert(module.clone()) {
            return None;
        }
        trail.push(module.clone());
        let found = imports.get(module)?.iter().find_map(|next| visit(next, imports, trail, done));
        trail.pop();
        found
    }
    let mut done = BTreeSet::new();
    imports.keys().find_map(|module| visit(module, imports, &mut Vec::new(), &mut done))
}

#[test]
fn no_file_imports_itself_through_others() {
    let imports = imports();
    let arrows: usize = imports.values().map(BTreeSet::len).sum();
    assert!(imports.len() > 50 && arrows > 100, "{} files and {arrows} imports are too few", imports.len());
    assert_eq!(circle(&imports), None);
}

#[test]
fn a_cycle_is_found() {
    let name = |text: &str| vec![text.to_owned()];
    let arrows = [("a", vec!["b", "c"]), ("b", vec!["c"]), ("c", vec!["d"]), ("d", vec!["b"])];
    let imports = arrows.map(|(from, to)| (name(from), to.into_iter().map(name).collect())).into();
    assert_eq!(circle(&imports), Some(["b", "c", "d", "b"].map(str::to_owned).to_vec()));
}

#[test]
fn imports_are_expanded() {
    let code =
        "use crate::{a::{self, B}, c};\npub use super::d::E as F; // use crate::no\nlet x = crate::g::h(1);";
    let paths: BTreeSet<String> = uses(code).iter().map(|path| path.join("::")).collect();
    let expected = ["crate::a", "crate::a::B", "crate::c", "super::d::E", "crate::g::h"];
    for path in expected {
        assert!(paths.contains(path), "{path} in {paths:?}");
    }
}

#[test]
fn unsafe_code_is_only_in_the_tracer_and_justified() {
    let mut files = BTreeMap::new();
    modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &[], &mut files);
    let mut found = 0;
    for (module, code) in &files {
        let lines: Vec<&str> = code.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if !["unsafe {", "unsafe impl", "unsafe fn"].iter().any(|word| code.contains(word)) {
                continue;
            }
            found += 1;
            assert_eq!(module[0], "tracer", "{}: {line}", module.join("::"));
            // The reason is before the statement, which may have begun some lines above.
            let before = &lines[at.saturating_sub(5)..at];
            let reason = before.iter().any(|line| line.starts_with("// SAFETY: "));
            assert!(reason, "{}: no reason for {line}", module.join("::"));
        }
    }
    assert!(found > 10, "only {found} were found");
}
