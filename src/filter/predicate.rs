//! The predicate language: text to [`Predicate`], with errors that point at the place.
//!
//! ```text
//! predicate  = term { OR term }
//! term       = factor { AND factor }
//! factor     = { NOT } ( "(" predicate ")" | comparison )
//! comparison = ATTRIBUTE ( "==" value | "!=" value | IN "[" value { "," value } "]" )
//! value      = INTEGER | STRING
//! ```
//!
//! Keywords may be in any case. A comparison is always a membership test: `a == x` is `a in [x]`,
//! `a != x` is `NOT a in [x]`. So `ipv4_dst != "10.0.0.1"` is true of every IPv6 connection.

mod attribute;
mod error;
mod net;
mod parser;
mod token;
mod value;

pub use attribute::{Attribute, Kind};
pub use error::{ParseError, Span, nearest, printable};
pub use net::{Net, unmap};
pub use parser::parse;
pub use value::{PortRange, Set, TEXT_MAX, check_text, parse_number, parse_ports};

/// A condition on a connection and the process that owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predicate {
    /// One attribute's value is a member of a set.
    Test(Attribute, Set),
    /// The opposite.
    Not(Box<Predicate>),
    /// All of them; of none: true.
    All(Vec<Predicate>),
    /// At least one of them; of none: false.
    Any(Vec<Predicate>),
}

impl Predicate {
    /// The opposite of `self`.
    #[must_use]
    pub fn negate(self) -> Self {
        match self {
            Predicate::Not(inner) => *inner,
            other => Predicate::Not(Box::new(other)),
        }
    }

    /// Does any comparison look at an attribute of this sort?
    pub fn mentions(&self, sort: fn(Attribute) -> bool) -> bool {
        match self {
            Predicate::Test(tested, _) => sort(*tested),
            Predicate::Not(inner) => inner.mentions(sort),
            Predicate::All(list) | Predicate::Any(list) => list.iter().any(|p| p.mentions(sort)),
        }
    }
}
