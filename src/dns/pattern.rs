//! Patterns for names: `example.com`, and `*.example.com` for everything below it.

use std::fmt;
use std::str::FromStr;

/// A pattern, judged against the names of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    /// Lower case, without the final dot.
    name: String,
    below: bool,
}

/// Why a pattern is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPattern {
    /// No name at all.
    Empty,
    /// A `*` elsewhere than as the first label.
    Star,
    /// Names travel in ASCII.
    NotAscii,
    /// Two dots in a row, or one at the start.
    EmptyLabel,
}

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a DNS name is missing, as in \"example.com\" or \"*.example.com\"",
            Self::Star => "* stands for whole labels at the start only, as in \"*.example.com\"",
            Self::NotAscii => {
                "names travel in ASCII: write the xn-- form, as \"xn--bcher-kva.example\""
            }
            Self::EmptyLabel => "a DNS name has something between its dots",
        })
    }
}

impl std::error::Error for BadPattern {}

impl FromStr for NamePattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() {
            return Err(BadPattern::Empty);
        }
        if name.contains('*') {
            return Err(BadPattern::Star);
        }
        if !name.is_ascii() {
            return Err(BadPattern::NotAscii);
        }
        if name.split('.').any(str::is_empty) {
            return Err(BadPattern::EmptyLabel);
        }
        Ok(Self {
            name: name.to_ascii_lowercase(),
            below,
        })
    }
}

impl NamePattern {
    /// Does the pattern stand for the name (lower case, no final dot)?
    pub fn matches(&self, name: &str) -> bool {
        match name.strip_suffix(self.name.as_str()) {
            Some("") => !self.below,
            Some(below) => self.below && below.len() > 1 && ends_a_label(below),
            None => false,
        }
    }

    /// Does it stand for any of the names?
    pub fn matches_any<N: AsRef<str>>(&self, names: &[N]) -> bool {
        names.iter().any(|name| self.matches(name.as_ref()))
    }
}

/// Does the text end in a dot between labels? `\.` is a dot inside one, and a label may hold it
/// to look like two.
fn ends_a_label(text: &str) -> bool {
    text.strip_suffix('.').is_some_and(|rest| {
        let backslashes = rest.bytes().rev().take_while(|&byte| byte == b'\\').count();
        backslashes % 2 == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_names() {
        for (pattern, name, expected) in [
            ("example.com", "example.com", true),
            ("Example.COM.", "example.com", true),
            ("example.com", "www.example.com", false),
            ("example.com", "badexample.com", false),
            ("*.example.com", "www.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "badexample.com", false),
            ("*.example.com", ".example.com", false),
            ("*.example.com", r"evil\.example.com", false),
            ("*.example.com", r"evil\\.example.com", true),
            ("com", "com", true),
            ("*.com", "example.com", true),
        ] {
            let parsed: NamePattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(name), expected, "{pattern} {name}");
        }
        let pattern: NamePattern = "b.example".parse().unwrap();
        assert!(pattern.matches_any(&["a.example", "b.example"]));
        assert!(!pattern.matches_any::<&str>(&[]));
    }

    #[test]
    fn patterns_that_are_none_say_why() {
        for (pattern, expected) in [
            ("", BadPattern::Empty),
            (".", BadPattern::Empty),
            ("*.", BadPattern::Empty),
            ("*", BadPattern::Star),
            ("www.*.com", BadPattern::Star),
            ("*example.com", BadPattern::Star),
            ("bücher.example", BadPattern::NotAscii),
            ("a..b", BadPattern::EmptyLabel),
            (".a", BadPattern::EmptyLabel),
        ] {
            assert_eq!(pattern.parse::<NamePattern>(), Err(expected), "{pattern}");
        }
    }
}
