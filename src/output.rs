//! Turns records into lines, and prints summaries and messages.

use std::{
    io::IsTerminal,
    os::fd::{AsFd, OwnedFd},
    time::SystemTime,
};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::host;

mod append;
mod community_id;
mod csv;
mod fields;
mod json;
pub mod messages;
mod odr;
mod sink;
pub mod summary;
pub mod summary_render;
mod table;
pub mod target;
mod text;
mod timestamp;
mod units;
mod vocabulary;
pub mod words;
pub mod writer;

use odr::Framing;
pub use odr::Metadata;
pub use sink::Sink;
use summary_render::LineWidth;
use table::{TableOptions, Zone};

/// The format of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns for people
    Table,
    /// One NetworkEvent object per line
    Json,
    /// network_connection records in an envelope, for a Nemesis server
    Odr,
    /// RFC 4180, with a header
    Csv,
}

/// Options that affect the formats.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether the table is coloured.
    pub color: bool,
    /// Whether the table shows times in UTC.
    pub utc: bool,
    /// All capabilities known to the kernel that the events are from.
    pub all_capabilities: u64,
    /// Whether to add the Community ID of each connection.
    pub community_id: bool,
    /// Whether the output already has its header.
    pub has_header: bool,
    /// Whether all records form one document, written at once.
    pub one_document: bool,
}

/// The sink of the format, or one that prints nothing if only a summary is wanted; `metadata` is for the envelope of odr.
///
/// # Errors
/// When the terminal's descriptor cannot be duplicated.
pub fn sink(
    format: Option<Format>,
    options: Options,
    metadata: impl FnOnce() -> Metadata,
    output: &OwnedFd,
) -> Result<Box<dyn Sink>> {
    let Options { color, utc, all_capabilities, community_id, has_header, one_document } = options;
    Ok(match format {
        None => Box::new(sink::Nothing),
        Some(Format::Table) => {
            let zone = if utc { Zone::utc() } else { Zone::local() };
            let options = TableOptions { color, utf8: host::shows_utf8(), zone };
            // A file is not kept open: after a reopen, the old one may be removed.
            let terminal = output.is_terminal().then(|| output.try_clone()).transpose();
            let terminal = terminal.context("duplicate the output")?;
            Box::new(table::Table::new(options, move || terminal.as_ref().and_then(host::terminal_size)))
        }
        Some(Format::Json) => Box::new(json::Json::new(all_capabilities, community_id)),
        Some(Format::Csv) => Box::new(csv::Csv::new(!has_header, community_id)),
        Some(Format::Odr) => {
            let wall_ns = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_nanos() as i128);
            let framing = if one_document { Framing::Document { wall_ns } } else { Framing::Lines };
            Box::new(odr::Odr::new(metadata(), framing))
        }
    })
}

/// What a file of this format begins with, once, no matter how many runs append to it.
pub fn header(format: Format) -> Vec<u8> {
    let mut header = Vec::new();
    if format == Format::Csv {
        csv::header(&mut header);
    }
    header
}

/// The width of the lines of a summary on this descriptor.
pub fn line_width(of: impl AsFd) -> LineWidth {
    let glyphs = if host::shows_utf8() { text::UNICODE } else { text::ASCII };
    LineWidth { columns: host::terminal_size(of).map(|size| size.columns), cut: glyphs.cut }
}

#[cfg(test)]
mod tests;
