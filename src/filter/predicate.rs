//! The predicate language: parses text to a [`Predicate`], with errors that show the position.
//!
//! ```text
//! predicate  = term { OR term }
//! term       = factor { AND factor }
//! factor     = { NOT } ( "(" predicate ")" | comparison )
//! comparison = ATTRIBUTE ( "==" value | "!=" value | IN "[" value { "," value } "]" )
//! value      = INTEGER | STRING
//! ```
//!
//! Keywords are case-insensitive. Every comparison is a membership test: `a == x` is `a in [x]`, and `a != x` is `NOT a
//! in [x]`. So `ipv4_dst != "10.0.0.1"` is true for every IPv6 connection.

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
