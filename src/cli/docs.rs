//! What tcptrace prints about itself.

use clap::CommandFactory;

use crate::cli::Args;

/// JSON Schema (2020-12) of every line that `--json` can print.
pub const SCHEMA: &str = include_str!("schema.json");

/// The document that was asked for, if one was.
pub fn asked_for(args: &Args) -> Option<Vec<u8>> {
    if args.schema {
        return Some(SCHEMA.into());
    }
    let shell = args.completions?;
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "tcptrace", &mut text);
    Some(text)
}
