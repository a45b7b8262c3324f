//! The tokenizer of the predicate language.

use super::error::{ParseError, Span};

/// A token of a predicate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A name or a keyword.
    Word(String),
    /// The content of a double-quoted string, with escapes resolved.
    Text(String),
    /// An unsigned integer, decimal or with 0x.
    Number(u64),
    /// `==` (also written `=`), `!=`, `(`, `)`, `[`, `]` or `,`.
    Sign(&'static str),
}

impl Token {
    /// Whether it is this keyword, in upper or lower case.
    pub fn is_word(&self, keyword: &str) -> bool {
        matches!(self, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }
}

const NO_ORDER: &str =
    "ordering operators are not supported; use `in [...]`, or a port range such as \"8000-8999\"";

/// Operators of other languages, and their replacement here.
const FOREIGN: [(&str, &str); 12] = [
    ("&&", "write AND"),
    ("||", "write OR"),
    ("<=", NO_ORDER),
    (">=", NO_ORDER),
    ("<>", "write !="),
    ("=~", "patterns are not supported; binary_prefix matches the beginning of a path"),
    ("<", NO_ORDER),
    (">", NO_ORDER),
    ("!", "write NOT, or != between an attribute and a value"),
    ("&", "write AND"),
    ("|", "write OR"),
    ("'", "strings are written in double quotes"),
];

const SIGNS: [&str; 7] = ["==", "!=", "(", ")", "[", "]", ","];

/// Splits `source` into tokens, each with its position.
pub fn tokens(source: &str) -> Result<Vec<(Token, Span)>, ParseError> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = source[at..].chars().next() {
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let rest = &source[at..];
        let (token, len) = if let Some(sign) = SIGNS.iter().find(|s| rest.starts_with(**s)) {
            (Token::Sign(sign), sign.len())
        } else if c == '=' && !rest.starts_with("=~") {
            (Token::Sign("=="), 1)
        } else if c == '"' {
            text(source, at)?
        } else if c.is_ascii_digit() {
            number(source, at)?
        } else if c.is_ascii_alphabetic() || c == '_' {
            let len = word_len(rest);
            (Token::Word(rest[..len].to_owned()), len)
        } else {
            return Err(stray(rest, c, at));
        };
        found.push((token, Span { start: at, end: at + len }));
        at += len;
    }
    Ok(found)
}

fn word_len(rest: &str) -> usize {
    rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())
}

fn stray(rest: &str, c: char, at: usize) -> ParseError {
    if let Some((sign, advice)) = FOREIGN.iter().find(|(sign, _)| rest.starts_with(*sign)) {
        return ParseError::new(
            Span { start: at, end: at + sign.len() },
            format!("unexpected `{sign}`: {advice}"),
        );
    }
    let span = Span { start: at, end: at + c.len_utf8() };
    ParseError::new(span, format!("unexpected character {c:?}"))
}

/// Reads the string that starts with the quote at `at`. Only `\"` and `\\` are escapes, because paths may contain
/// backslashes.
fn text(source: &str, at: usize) -> Result<(Token, usize), ParseError> {
    let mut value = String::new();
    let mut chars = source[at + 1..].char_indices();
    while let Some((offset, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text(value), offset + 2)),
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                Some((_, other)) => value.extend(['\\', other]),
                None => break,
            },
            _ => value.push(c),
        }
    }
    Err(ParseError::new(Span { start: at, end: source.len() }, "this string has no closing quote"))
}

fn number(source: &str, at: usize) -> Result<(Token, usize), ParseError> {
    // Include dots, colons and slashes, so that an unquoted address is reported as a whole.
    let rest = &source[at..];
    let len = rest
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '/' | '-')))
        .unwrap_or(rest.len());
    let digits = &rest[..len];
    let value = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    match value {
        Ok(value) => Ok((Token::Number(value), len)),
        Err(e) => {
            let advice = match e.kind() {
                std::num::IntErrorKind::PosOverflow => "is too large".to_owned(),
                _ if digits.contains(['.', ':', '/', '-']) => {
                    format!("is not a number: write \"{digits}\" in double quotes")
                }
                _ => "is not a number: integers are decimal or 0x".to_owned(),
            };
            Err(ParseError::new(Span { start: at, end: at + len }, format!("`{digits}` {advice}")))
        }
    }
}
