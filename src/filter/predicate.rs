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

mod ast;
mod attribute;
mod error;
mod net;
mod parser;
mod token;
mod value;

pub use ast::Predicate;
pub use attribute::{Attribute, ValueKind};
pub use error::{ParseError, Span, nearest};
pub use net::{Net, unmap};
pub use parser::parse;
pub use value::{PortRange, Set, TEXT_MAX, check_text, parse_number, parse_ports};
