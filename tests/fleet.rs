//! Checks that docs/fleet/schema.sql has a column of a suitable type for each field of the JSON schema.

use std::{collections::BTreeMap, fs};

use serde_json::Value;
use tcptrace::cli::docs::SCHEMA;

type Fields = BTreeMap<String, String>;

/// Fields that name a container: the table has columns for them even if this version does not print them.
const NAMES: [&str; 4] = ["container_name", "container_image", "pod", "namespace"];

fn resolve<'a>(shape: &'a Value, root: &'a Value) -> &'a Value {
    match shape["$ref"].as_str() {
        Some(reference) => root.pointer(&reference[1..]).expect("a definition"),
        None => shape,
    }
}

/// The type of a field in the schema, as one word.
fn collect(name: &str, shape: &Value, root: &Value, found: &mut Fields) {
    let shape = resolve(shape, root);
    let choices = shape["oneOf"].as_array().or_else(|| shape["anyOf"].as_array());
    if let Some(properties) = shape["properties"].as_object() {
        for (key, value) in properties {
            collect(format!("{name}.{key}").trim_start_matches('.'), value, root, found);
        }
    } else if let Some(choices) = choices.filter(|_| shape["type"].is_null()) {
        for choice in choices.iter().filter(|choice| choice["type"] != "null") {
            collect(name, choice, root, found);
        }
    } else {
        let kind =
            if shape["const"] == true { "boolean" } else { shape["type"].as_str().unwrap_or("string") };
        found.insert(name.to_owned(), kind.to_owned());
    }
}

/// The columns in the DDL: a line is a name and a type, or opens or closes a tuple.
fn columns(ddl: &str) -> Fields {
    let mut found = Fields::new();
    let mut inside = None;
    for line in ddl.lines().skip_while(|line| *line != "(").skip(1).take_while(|line| *line != ")") {
        let line = line.trim();
        if line.starts_with(')') {
            inside = None;
            continue;
        }
        if line.starts_with("INDEX ") {
            continue;
        }
        let (name, rest) = line.split_once(' ').expect("a name and a type");
        if rest == "Tuple(" {
            inside = Some(name);
            continue;
        }
        let path = inside.map_or_else(|| name.to_owned(), |outer| format!("{outer}.{name}"));
        match rest.trim_end_matches(',').strip_prefix("Tuple(") {
            Some(parts) => {
                for part in parts.trim_end_matches(')').split(", ") {
                    let (part, rest) = part.split_once(' ').expect("a name and a type");
                    found.insert(format!("{path}.{part}"), kind(rest).to_owned());
                }
            }
            None => {
                found.insert(path, kind(rest).to_owned());
            }
        }
    }
    found
}

fn kind(column: &str) -> &'static str {
    let column = column.trim_start_matches("Nullable(").trim_start_matches("LowCardinality(");
    match column {
        _ if column.starts_with("Array(") => "array",
        _ if column.starts_with("UInt") => "integer",
        _ if column.starts_with("Bool") => "boolean",
        _ if ["String", "IPv6", "DateTime64("].iter().any(|known| column.starts_with(known)) => "string",
        _ => panic!("{column} is no type this test knows"),
    }
}

#[test]
fn the_table_has_a_column_for_each_field() {
    let ddl =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/fleet/schema.sql")).expect("the DDL");
    let schema: Value = serde_json::from_str(SCHEMA).expect("JSON");
    let mut fields = Fields::new();
    collect("", &schema["$defs"]["NetworkEvent"], &schema, &mut fields);
    fields.insert("host".to_owned(), "string".to_owned());
    for name in NAMES {
        for whose in ["process", "parent"] {
            fields.insert(format!("{whose}.{name}"), "string".to_owned());
        }
    }
    assert_eq!(columns(&ddl), fields, "docs/fleet/schema.sql (left) and the JSON schema (right) differ");
}
