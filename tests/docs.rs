//! Generates the manual page from the code and checks it: `UPDATE=1 cargo test --test docs` writes it.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use clap::{Arg, CommandFactory};
use serde_json::Value;
use tcptrace::{
    cli::{Args, docs::SCHEMA},
    tracer::ProbeSet,
};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("man").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_default()
}

#[test]
fn the_manual_page_is_current() {
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path("tcptrace.8"), &page).expect("write the page");
    }
    let shipped = read("tcptrace.8");
    let difference = page.lines().zip(shipped.lines()).find(|(new, old)| new != old);
    assert!(page == shipped, "man/tcptrace.8 is out of date, run `make man`: {difference:?}");
}

#[test]
fn the_manual_page_is_clean() {
    let mut lint = Command::new("mandoc")
        .args(["-Tlint", "-W", "style"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("mandoc; `make test-deps` installs it");
    lint.stdin.take().expect("stdin is piped").write_all(page().as_bytes()).expect("mandoc reads");
    let output = lint.wait_with_output().expect("wait for mandoc");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert!(output.status.success());
}

fn page() -> String {
    let page = read("tcptrace.8.in")
        .replace("@DATE@", "2026-11-28")
        .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
        .replace("@OPTIONS@\n", &options())
        .replace("@FIELDS@\n", &fields())
        .replace("@FILTERS@\n", &read("filters.8.in"))
        .replace("@EXAMPLES@\n", &read("examples.8.in"))
        .replace("@LIMITS@\n", &limits());
    let mut example = false;
    let mut out = String::new();
    for line in page.lines() {
        example = line == ".EX" || example && line != ".EE";
        out.push_str(&if example || line.starts_with('.') { line.to_owned() } else { folded(line) });
        out.push('\n');
    }
    out
}

/// Wraps a line at 80 characters, so that no line starts like a roff request.
fn folded(line: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in line.split(' ') {
        let starts_request = word.starts_with(['.', '\'']);
        if column > 0 && column + 1 + word.len() > 80 && !starts_request {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
    out
}

/// Escapes text for roff, and puts each sentence on a separate line.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let text = text.replace(". ", ".\n").replace("; ", ";\n").replace(": ", ":\n");
    let lines = text
        .lines()
        .map(|line| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() });
    lines.collect::<Vec<_>>().join("\n")
}

fn options() -> String {
    let command = Args::command();
    let mut headings: Vec<&str> = Vec::new();
    // COMMAND is described in the hand-written part.
    let described = command.get_arguments().filter(|arg| !arg.is_last_set());
    for heading in described.filter_map(Arg::get_help_heading) {
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    let mut out = String::new();
    for heading in headings {
        writeln!(out, ".SS {heading}").expect("a String takes everything");
        let shown =
            |arg: &&Arg| arg.get_help_heading() == Some(heading) && !arg.is_hide_set() && !arg.is_last_set();
        for arg in command.get_arguments().filter(shown) {
            out.push_str(&option(arg));
        }
    }
    out
}

/// The paragraph of an option: `-o`, `--output` FILE, and its description.
fn option(arg: &Arg) -> String {
    let bold = |text: String| format!("\\fB{}\\fR", text.replace('-', "\\-"));
    let mut names: Vec<String> = Vec::new();
    names.extend(arg.get_short().map(|short| bold(format!("-{short}"))));
    names.extend(arg.get_long().map(|long| bold(format!("--{long}"))));
    let takes_value = arg.get_action().takes_values();
    let values = arg.get_value_names().filter(|_| takes_value).map(|values| values.join(" "));
    let value = values.map(|value| format!("\\fI{value}\\fR"));
    let head: Vec<String> =
        [names.join(", "), value.unwrap_or_default()].into_iter().filter(|part| !part.is_empty()).collect();
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut out = format!(".TP\n{}\n{}.\n", head.join(" "), roff(help.trim_end_matches('.')));
    let choices: Vec<_> = arg.get_possible_values().into_iter().filter(|v| !v.is_hide_set()).collect();
    if takes_value && choices.iter().any(|choice| choice.get_help().is_some()) {
        out.push_str(".RS\n");
        for choice in &choices {
            let help = choice.get_help().map(ToString::to_string).unwrap_or_default();
            write!(out, ".TP\n\\fB{}\\fR\n{}.\n", choice.get_name(), roff(&help)).expect("text");
        }
        out.push_str(".RE\n");
    } else if takes_value && !choices.is_empty() {
        let names: Vec<&str> = choices.iter().map(|choice| choice.get_name()).collect();
        writeln!(out, "One of {}.", names.join(", ")).expect("text");
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if takes_value && !defaults.is_empty() {
        if out.ends_with(".RE\n") {
            out.push_str(".IP\n");
        }
        writeln!(out, "Default: {}.", roff(&defaults.join(","))).expect("text");
    }
    out
}

/// One section for each object in the schema.
fn fields() -> String {
    let schema: Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    let definitions = schema["$defs"].as_object().expect("definitions");
    let mut objects: Vec<&str> = vec!["NetworkEvent", "process"];
    let kinds = schema.pointer("/$defs/NetworkEvent/properties/network_event/oneOf").expect("the events");
    let kinds = kinds.as_array().expect("a list").iter();
    objects.extend(kinds.filter_map(|kind| kind["$ref"].as_str()?.rsplit('/').next()));
    objects.push("Summary");

    let mut out = String::new();
    let mut described: Vec<String> = Vec::new();
    for name in objects {
        let object = &definitions[name];
        let required = object["required"].as_array().expect("a list");
        writeln!(out, ".SS {name}").expect("text");
        if let Some(about) = object["description"].as_str() {
            writeln!(out, "{}.", roff(about)).expect("text");
        }
        if name.starts_with("Tcp") && described.contains(&"cookie".to_owned()) {
            out.push_str("In addition to the fields common to all events:\n");
        }
        for (field, shape) in object["properties"].as_object().expect("properties") {
            if field == "type" && name != "NetworkEvent" {
                continue;
            }
            // Common fields are described only once.
            if name.starts_with("Tcp")
                && described.contains(field)
                && required.contains(&field.as_str().into())
            {
                continue;
            }
            let presence = if required.contains(&field.as_str().into()) { "" } else { ", optional" };
            out.push_str(&field_of(field, shape, presence, definitions));
            let parts = parts(shape, definitions);
            if !parts.is_empty() && !described.contains(field) {
                out.push_str(".RS\n");
                for (part, shape) in parts {
                    out.push_str(&field_of(part, shape, "", definitions));
                }
                out.push_str(".RE\n");
            }
            described.push(field.clone());
        }
    }
    out
}

/// The paragraph of a field.
fn field_of(name: &str, shape: &Value, presence: &str, definitions: &Definitions) -> String {
    let about = about(shape, definitions);
    format!(".TP\n\\fB{name}\\fR ({}{presence})\n{about}\n", kind(shape, definitions))
}

/// The members of an object, or of the objects in a list.
fn parts<'a>(shape: &'a Value, definitions: &'a Definitions) -> Vec<(&'a String, &'a Value)> {
    let shape = resolve(shape, definitions);
    let shape = shape.get("items").map_or(shape, |items| resolve(items, definitions));
    shape["properties"].as_object().map(|parts| parts.iter().collect()).unwrap_or_default()
}

type Definitions = serde_json::Map<String, Value>;

fn resolve<'a>(shape: &'a Value, definitions: &'a Definitions) -> &'a Value {
    let name = shape["$ref"].as_str().and_then(|name| name.rsplit('/').next());
    name.map_or(shape, |name| &definitions[name])
}

fn kind(shape: &Value, definitions: &Definitions) -> String {
    let shape = resolve(shape, definitions);
    if let Some(value) = shape.get("const") {
        return value.to_string();
    }
    if let Some(values) = shape["enum"].as_array() {
        return values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
    }
    shape["type"].as_str().unwrap_or("object").to_owned()
}

fn about(shape: &Value, definitions: &Definitions) -> String {
    let own = shape["description"].as_str();
    let text = own.or(resolve(shape, definitions)["description"].as_str());
    text.map(|text| format!("{}.", roff(text))).unwrap_or_default()
}

fn limits() -> String {
    let list = |set: ProbeSet| -> String {
        set.limits().iter().map(|limit| format!(".IP \\(bu 2\n{}\n", roff(limit))).collect()
    };
    format!(
        "{}.PP\nWith BPF trampolines these are not seen:\n{}",
        list(ProbeSet::Tracepoint),
        list(ProbeSet::Trampoline)
    )
}

#[test]
fn uninstall_removes_all_installed_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let make = |target: &str| {
        let output = Command::new("make")
            .args(["-o", "all", target, "PREFIX=/usr"])
            .arg(format!("BINARY={}", env!("CARGO_BIN_EXE_tcptrace")))
            .arg(format!("DESTDIR={}", root.display()))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("make");
        assert!(output.status.success(), "{output:?}");
    };
    let files = [
        ("bin/tcptrace", "\x7fELF"),
        ("share/man/man8/tcptrace.8", ".\\\""),
        ("share/bash-completion/completions/tcptrace", "_tcptrace()"),
        ("share/zsh/site-functions/_tcptrace", "#compdef tcptrace"),
        ("share/fish/vendor_completions.d/tcptrace.fish", "complete -c tcptrace"),
    ];
    make("install");
    for (name, beginning) in files {
        let bytes = fs::read(root.join("usr").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(bytes.starts_with(beginning.as_bytes()), "{name}");
    }
    make("uninstall");
    for (name, _) in files {
        assert!(!root.join("usr").join(name).exists(), "{name}");
    }
    folder.close().expect("remove the folder");
}
