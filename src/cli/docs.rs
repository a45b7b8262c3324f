//! Documents that tcptrace prints: the JSON Schema and shell completions.

use clap::CommandFactory;

use crate::cli::Args;

/// The JSON Schema (2020-12) of every line that `--json` can print.
pub const SCHEMA: &str = include_str!("schema.json");

/// The requested document, if any.
pub fn asked_for(args: &Args) -> Option<Vec<u8>> {
    if args.schema {
        return Some(SCHEMA.into());
    }
    let shell = args.completions?;
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "tcptrace", &mut text);
    Some(text)
}
