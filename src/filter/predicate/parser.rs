//! A recursive descent parser from tokens to a [`Predicate`], with bounded depth.

use super::ast::Predicate;
use super::attribute::Attribute;
use super::error::{ParseError, Span, nearest};
use super::token::{Token, tokens};
use super::value::{Set, member};

/// Maximum nesting of parentheses: practical predicates need five levels, and the stack has room for thousands.
const DEPTH_MAX: usize = 64;
/// Maximum number of values in a list.
const LIST_MAX: usize = 100_000;
const KEYWORDS: [&str; 4] = ["and", "or", "not", "in"];

/// Parses the text of a predicate.
pub fn parse(source: &str) -> Result<Predicate, ParseError> {
    let mut parser = Parser { tokens: tokens(source)?, at: 0, end: source.len() };
    if parser.tokens.is_empty() {
        return Err(parser.error_here("empty predicate; expected a comparison such as port_dst == 443"));
    }
    let predicate = parser.any(0)?;
    match parser.peek() {
        None => Ok(predicate),
        Some(Token::Sign(")")) => Err(parser.error_here("unmatched `)`")),
        Some(Token::Word(word)) => {
            let hint = nearest(word, ["and", "or"].into_iter()).map(str::to_uppercase);
            let hint = hint.map_or_else(String::new, |h| format!("; did you mean {h}?"));
            let message = format!("expected AND, OR or the end, found `{word}`{hint}");
            Err(parser.error_here(message))
        }
        Some(_) => Err(parser.error_here("expected AND, OR or the end")),
    }
}

struct Parser {
    tokens: Vec<(Token, Span)>,
    at: usize,
    end: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn span(&self) -> Span {
        self.tokens.get(self.at).map_or(Span { start: self.end, end: self.end }, |(_, span)| *span)
    }

    fn error_here(&self, message: impl Into<String>) -> ParseError {
        ParseError::new(self.span(), message)
    }

    fn eat(&mut self, wanted: impl Fn(&Token) -> bool) -> bool {
        let found = self.peek().is_some_and(wanted);
        self.at += usize::from(found);
        found
    }

    fn any(&mut self, depth: usize) -> Result<Predicate, ParseError> {
        let mut list = vec![self.all(depth)?];
        while self.eat(|t| t.is_word("or")) {
            list.push(self.all(depth)?);
        }
        Ok(one_or(list, Predicate::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Predicate, ParseError> {
        let mut list = vec![self.factor(depth)?];
        while self.eat(|t| t.is_word("and")) {
            list.push(self.factor(depth)?);
        }
        Ok(one_or(list, Predicate::All))
    }

    fn factor(&mut self, depth: usize) -> Result<Predicate, ParseError> {
        let mut negated = false;
        while self.eat(|t| t.is_word("not")) {
            negated = !negated;
        }
        let open = self.span();
        let inner = if self.eat(|t| *t == Token::Sign("(")) {
            if depth == DEPTH_MAX {
                return Err(ParseError::new(open, format!("parentheses nest deeper than {DEPTH_MAX}")));
            }
            let inner = self.any(depth + 1)?;
            if !self.eat(|t| *t == Token::Sign(")")) {
                return Err(match self.peek() {
                    None => ParseError::new(open, "unmatched `(`"),
                    Some(_) => self.error_here("expected AND, OR or `)`"),
                });
            }
            inner
        } else {
            self.comparison()?
        };
        Ok(if negated { inner.negate() } else { inner })
    }

    fn comparison(&mut self) -> Result<Predicate, ParseError> {
        let attribute = self.attribute()?;
        let operator = self.span();
        if self.eat(|t| *t == Token::Sign("==")) {
            return Ok(Predicate::Test(attribute, self.value(attribute)?));
        }
        if self.eat(|t| *t == Token::Sign("!=")) {
            return Ok(Predicate::Test(attribute, self.value(attribute)?).negate());
        }
        if self.eat(|t| t.is_word("in")) {
            return self.list(attribute).map(|set| Predicate::Test(attribute, set));
        }
        let name = attribute.name();
        Err(ParseError::new(operator, format!("expected ==, != or in after {name}")))
    }

    fn attribute(&mut self) -> Result<Attribute, ParseError> {
        let Some(Token::Word(word)) = self.peek() else {
            return Err(self.error_here("expected a comparison such as port_dst == 443"));
        };
        if let Some(attribute) = Attribute::from_name(word) {
            self.at += 1;
            return Ok(attribute);
        }
        if KEYWORDS.iter().any(|k| word.eq_ignore_ascii_case(k)) {
            return Err(self.error_here(format!("expected a comparison before `{word}`")));
        }
        Err(self.error_here(match Attribute::nearest(word) {
            Some(right) => format!("unknown attribute `{word}`; did you mean `{right}`?"),
            None => format!("unknown attribute `{word}`; see FILTERS in tcptrace(8)"),
        }))
    }

    fn value(&mut self, attribute: Attribute) -> Result<Set, ParseError> {
        let literal = match self.peek() {
            Some(literal @ (Token::Text(_) | Token::Number(_))) => literal,
            Some(Token::Sign("[")) => {
                return Err(self.error_here("a list must follow `in`, not == or !="));
            }
            Some(Token::Word(word)) => {
                return Err(self.error_here(format!(
                    "expected a value; strings are written in double quotes: \"{word}\""
                )));
            }
            _ => {
                return Err(self.error_here("expected a value: an integer or a string in double quotes"));
            }
        };
        let set = member(attribute, literal).map_err(|message| self.error_here(message))?;
        self.at += 1;
        Ok(set)
    }

    fn list(&mut self, attribute: Attribute) -> Result<Set, ParseError> {
        let open = self.span();
        if !self.eat(|t| *t == Token::Sign("[")) {
            return Err(self.error_here("expected `[` after in, e.g. port in [80, 443]"));
        }
        if self.eat(|t| *t == Token::Sign("]")) {
            return Err(ParseError::new(open, "empty list never matches"));
        }
        let mut set = Set::empty(attribute.kind());
        loop {
            set.extend(self.value(attribute)?);
            if set.len() > LIST_MAX {
                return Err(ParseError::new(open, format!("more than {LIST_MAX} values in one list")));
            }
            let comma = self.eat(|t| *t == Token::Sign(","));
            if self.eat(|t| *t == Token::Sign("]")) {
                return Ok(set);
            }
            match self.peek() {
                None => return Err(ParseError::new(open, "unmatched `[`")),
                Some(_) if !comma => {
                    return Err(self.error_here("expected `,` or `]` in this list"));
                }
                Some(_) => {}
            }
        }
    }
}

fn one_or(mut list: Vec<Predicate>, many: fn(Vec<Predicate>) -> Predicate) -> Predicate {
    if list.len() == 1 { list.remove(0) } else { many(list) }
}
