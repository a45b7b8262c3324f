//! Validates every JSON line in a test against the schema that `--schema` prints.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    let schema = serde_json::from_str(tcptrace::cli::docs::SCHEMA).expect("the schema is JSON");
    jsonschema::draft202012::meta::validate(&schema).expect("a schema as of 2020-12");
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema)
        .expect("a schema that can be used")
});

/// Whether a line is valid.
pub fn allows(line: &Value) -> bool {
    VALIDATOR.is_valid(line)
}

/// Panics if a line is not valid.
pub fn check(line: &Value) {
    assert!(
        allows(line),
        "the schema does not allow {line}: {}",
        VALIDATOR.iter_errors(line).map(|error| format!("{error:?}")).collect::<Vec<_>>().join("; ")
    );
}
