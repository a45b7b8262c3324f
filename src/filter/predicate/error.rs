//! A syntax error: its position, what is wrong, and a suggestion.

use std::fmt;

use crate::hostile::{one_line, printable};

/// A range of bytes in the source text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The offset of the first byte.
    pub start: usize,
    /// The offset after the last byte; equal to `start` at the end of the text.
    pub end: usize,
}

/// Why a text is not a valid predicate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The offending part of the source.
    pub span: Span,
    /// What is wrong and what to write instead, in one line.
    pub message: String,
}

impl ParseError {
    pub(crate) fn new(span: Span, message: impl Into<String>) -> Self {
        ParseError { span, message: one_line(&message.into()) }
    }

    /// The column of the error in `source`, counted in characters from 1.
    pub fn column(&self, source: &str) -> usize {
        let before = source.char_indices().take_while(|(at, _)| *at < self.span.start);
        before.count() + 1
    }

    /// The message, followed by the source with the error marked below it. Of a long source only the surroundings are
    /// shown.
    pub fn report(&self, source: &str) -> String {
        const AROUND: usize = 60;
        let column = self.column(source);
        let first = column.saturating_sub(1 + AROUND);
        let shown: Vec<(usize, char)> = source.char_indices().skip(first).take(2 * AROUND).collect();
        let marked = shown.iter().filter(|(at, _)| self.span.start <= *at && *at < self.span.end);
        let marks = "^".repeat(marked.count().max(1));
        let before = if first > 0 { "..." } else { "" };
        let after = if source.chars().nth(first + shown.len()).is_some() { "..." } else { "" };
        format!(
            "column {column}: {}\n  {before}{}{after}\n  {}{marks}",
            self.message,
            printable(&shown.iter().map(|(_, c)| c).collect::<String>()),
            " ".repeat(before.len() + column - 1 - first)
        )
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ParseError {}

/// The candidate closest to `wrong`, if it is close enough to be a likely correction.
pub fn nearest<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Longer words are unlikely to be typing errors, and the cost of the distance is quadratic.
    if wrong.len() > 64 {
        return None;
    }
    let wrong = wrong.to_ascii_lowercase();
    let scored = candidates.map(|c| (strsim::damerau_levenshtein(&wrong, c), c));
    let (distance, best) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + best.len() / 4 && distance < best.len()).then_some(best)
}
