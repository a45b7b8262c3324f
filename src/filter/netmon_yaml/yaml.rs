//! Parses YAML to a small tree in which every node has its position.
//!
//! Anchors, aliases, tags and further documents are rejected: a configuration does not need them, and without them the
//! tree cannot be larger than the file.

use crate::hostile::one_line;
use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Maximum nesting of a configuration; the deepest key needs five levels.
const DEPTH_MAX: usize = 16;

/// A position in the file; line and column are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line number, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
}

/// An error in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The position of the error.
    pub place: Place,
    /// What is wrong and what to write instead, in one line.
    pub message: String,
}

/// A value with its position.
#[derive(Debug)]
pub struct Node<'a> {
    pub place: Place,
    pub value: Value<'a>,
}

/// The content of a node.
#[derive(Debug)]
pub enum Value<'a> {
    /// A scalar: its text, whether it was plain (not quoted, not a block), and its source from the first character on.
    Scalar {
        text: String,
        plain: bool,
        source: &'a str,
    },
    List(Vec<Node<'a>>),
    /// The keys are scalars, in the order of the file.
    Map(Vec<(Node<'a>, Node<'a>)>),
}

impl Node<'_> {
    /// An error at this node.
    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError { place: self.place, message: one_line(&message.into()) }
    }

    /// The position in the file of the byte at `offset` of this scalar's text. Folding, quoting and escapes only add
    /// characters to the source or replace blanks by others, so both can be walked in parallel.
    pub fn place_of(&self, offset: usize) -> Place {
        let mut place = self.place;
        let Value::Scalar { text, source, .. } = &self.value else {
            return place;
        };
        let mut source = source.chars().peekable();
        let mut step = |source: &mut std::iter::Peekable<std::str::Chars<'_>>| match source.next() {
            Some('\n') => place = Place { line: place.line + 1, column: 1 },
            Some(_) => place.column += 1,
            None => {}
        };
        if source.peek().is_some_and(|c| matches!(c, '>' | '|')) && !text.starts_with(['>', '|']) {
            while source.peek().is_some_and(|c| *c != '\n') {
                step(&mut source);
            }
        }
        for (at, wanted) in text.char_indices() {
            let matches = |c: char| {
                if wanted.is_whitespace() { c.is_whitespace() } else { c == wanted }
            };
            while source.peek().is_some_and(|c| !matches(*c)) {
                step(&mut source);
            }
            if at >= offset {
                break;
            }
            step(&mut source);
        }
        place
    }
}

/// Parses one document. An empty one is an empty map.
pub fn parse(text: &str) -> Result<Node<'_>, ConfigError> {
    let mut open: Vec<Node<'_>> = Vec::new();
    let mut keys: Vec<Option<Node<'_>>> = Vec::new();
    let mut root: Option<Node<'_>> = None;
    let mut cursor = Cursor { rest: text, index: 0 };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| ConfigError {
            place: Place { line: e.marker().line(), column: e.marker().col() + 1 },
            message: one_line(&format!("not YAML: {}", e.info())),
        })?;
        let place = Place { line: span.start.line(), column: span.start.col() + 1 };
        let refuse = |message: &str| Err(ConfigError { place, message: message.to_owned() });
        let done = match event {
            Event::Alias(_) => return refuse("anchors and aliases are not supported here"),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                return refuse("anchors and aliases are not supported here");
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return refuse("tags are not supported here");
            }
            Event::DocumentStart(_) if root.is_some() => {
                return refuse("multiple YAML documents are not supported");
            }
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() == DEPTH_MAX => {
                return refuse("nested too deeply");
            }
            Event::SequenceStart(..) => {
                open.push(Node { place, value: Value::List(Vec::new()) });
                keys.push(None);
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Node { place, value: Value::Map(Vec::new()) });
                keys.push(None);
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                keys.pop();
                open.pop()
            }
            Event::Scalar(value, style, ..) => {
                let plain = style == ScalarStyle::Plain;
                let source = cursor.source(span);
                Some(Node { place, value: Value::Scalar { text: value.into_owned(), plain, source } })
            }
            _ => continue,
        };
        let Some(node) = done else { continue };
        match open.last_mut().map(|parent| &mut parent.value) {
            None => root = Some(node),
            Some(Value::List(list)) => list.push(node),
            Some(Value::Map(map)) => match keys.last_mut() {
                Some(key) if key.is_none() => {
                    if !matches!(node.value, Value::Scalar { .. }) {
                        return Err(node.error("a key must be a name"));
                    }
                    *key = Some(node);
                }
                Some(key) => map.extend(key.take().map(|key| (key, node))),
                None => {}
            },
            Some(Value::Scalar { .. }) => {}
        }
    }
    let start = Place { line: 1, column: 1 };
    Ok(root.unwrap_or(Node { place: start, value: Value::Map(Vec::new()) }))
}

/// Converts the parser's positions, which are counted in characters and only grow, to bytes.
struct Cursor<'a> {
    rest: &'a str,
    index: usize,
}

impl<'a> Cursor<'a> {
    /// The source from the start of `span` on.
    fn source(&mut self, span: Span) -> &'a str {
        let skip = span.start.index().saturating_sub(self.index);
        let at = self.rest.char_indices().nth(skip).map_or(self.rest.len(), |(at, _)| at);
        self.rest = &self.rest[at..];
        self.index += skip;
        self.rest
    }
}
