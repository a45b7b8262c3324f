//! Converts NetMon YAML to a process filter and named rules.

mod yaml;

pub use yaml::{ConfigError, Place};

use super::options::{BinaryPattern, ProcessFilter};
use super::predicate::{self, Attribute, Predicate, Set, check_text, nearest, parse_number};
use super::rule::Rule;
use yaml::{Node, Value};

/// The contents of a configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetMonConfig {
    /// The processes to report, or to leave out.
    pub process: Option<ProcessFilter>,
    /// The rules for outgoing connections.
    pub egress: Option<DirectionRules>,
    /// The rules for accepted connections.
    pub ingress: Option<DirectionRules>,
}

/// The settings of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectionRules {
    /// Whether its connections are reported at all.
    pub enabled: bool,
    /// If there are any, only connections that match one of these are reported.
    pub rules: Vec<Rule>,
}

impl NetMonConfig {
    /// Parses a configuration; `name` is the file name, for error messages.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let root = yaml::parse(text)?;
        let mut config = NetMonConfig::default();
        for (key, value) in fields(&root, &["process_filter", "egress", "ingress"])? {
            match key {
                "process_filter" => config.process = Some(process_filter(value)?),
                "egress" => config.egress = Some(direction(name, value, 0)?),
                _ => config.ingress = Some(direction(name, value, 1)?),
            }
        }
        let directions = || [&config.egress, &config.ingress].into_iter().flatten();
        if directions().next().is_some() && !directions().any(|d| d.enabled) {
            return Err(root.error("no direction is enabled, so nothing would be reported"));
        }
        Ok(config)
    }

    /// The rules of the enabled directions. None when no direction is mentioned.
    pub fn rules(&self) -> Vec<Rule> {
        let directions = [(0, &self.egress), (1, &self.ingress)];
        let mut rules = Vec::new();
        for (number, direction) in directions {
            let Some(DirectionRules { enabled: true, rules: theirs }) = direction else {
                continue;
            };
            rules.extend(theirs.iter().cloned());
            if theirs.is_empty() {
                let predicate = Predicate::Test(Attribute::Direction, Set::Numbers(vec![number]));
                rules.push(Rule { name: None, predicate, place: String::new() });
            }
        }
        rules
    }
}

/// The entries of a map. Each key must be one of `known`, and none may be repeated.
fn fields<'n, 'a>(
    node: &'n Node<'a>,
    known: &[&'static str],
) -> Result<Vec<(&'static str, &'n Node<'a>)>, ConfigError> {
    let map = match &node.value {
        Value::Map(map) => map,
        // `egress:` with nothing after it.
        Value::Scalar { text, plain: true, .. } if is_null(text) => return Ok(Vec::new()),
        _ => return Err(node.error(format!("expected a map with the keys {}", known.join(", ")))),
    };
    let mut found: Vec<(&'static str, &Node<'_>)> = Vec::new();
    for (key, value) in map {
        let Value::Scalar { text, .. } = &key.value else {
            continue;
        };
        let Some(name) = known.iter().find(|k| *k == text) else {
            let hint = match nearest(text, known.iter().copied()) {
                Some(right) => format!("did you mean `{right}`?"),
                None => format!("expected one of {}", known.join(", ")),
            };
            return Err(key.error(format!("unknown key `{}`; {hint}", text)));
        };
        if found.iter().any(|(seen, _)| seen == name) {
            return Err(key.error(format!("duplicate key `{name}`")));
        }
        found.push((name, value));
    }
    Ok(found)
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn process_filter(node: &Node<'_>) -> Result<ProcessFilter, ConfigError> {
    let mut filter = ProcessFilter::default();
    for (key, value) in fields(node, &["uid", "euid", "auid", "binary", "deny_list"])? {
        match key {
            "uid" => filter.uid = list(value, number)?,
            "euid" => filter.euid = list(value, number)?,
            "auid" => filter.auid = list(value, number)?,
            "deny_list" => filter.deny = boolean(value)?,
            _ => {
                for (key, value) in fields(value, &["name", "path", "prefix"])? {
                    filter.binary.extend(match key {
                        "name" => list(value, |n| text(n, Attribute::BinaryName).map(BinaryPattern::Name))?,
                        "path" => list(value, |n| text(n, Attribute::BinaryPath).map(BinaryPattern::Path))?,
                        _ => list(value, |n| text(n, Attribute::BinaryPrefix).map(BinaryPattern::Prefix))?,
                    });
                }
            }
        }
    }
    if filter.is_empty() {
        return Err(node.error("process_filter is empty; list uid, euid, auid or binary, or remove it"));
    }
    Ok(filter)
}

fn direction(name: &str, node: &Node<'_>, number: u32) -> Result<DirectionRules, ConfigError> {
    let mut direction = DirectionRules { enabled: true, rules: Vec::new() };
    for (key, value) in fields(node, &["enabled", "rules"])? {
        match key {
            "enabled" => direction.enabled = boolean(value)?,
            _ => direction.rules = list(value, |node| rule(name, node, number))?,
        }
    }
    Ok(direction)
}

fn rule(file: &str, node: &Node<'_>, number: u32) -> Result<Rule, ConfigError> {
    let place = format!("{file}:{}:{}", node.place.line, node.place.column);
    let mut name = None;
    let mut all = vec![Predicate::Test(Attribute::Direction, Set::Numbers(vec![number]))];
    for (key, value) in fields(node, &["rule", "scope", "event"])? {
        match key {
            "rule" => name = Some(scalar(value)?.to_owned()).filter(|name| !name.is_empty()),
            _ => all.extend(condition(value)?),
        }
    }
    if name.is_none() {
        return Err(node.error("a rule needs a name: `rule: NAME`"));
    }
    Ok(Rule { name, predicate: Predicate::All(all), place })
}

/// A predicate; none if it is empty.
fn condition(node: &Node<'_>) -> Result<Option<Predicate>, ConfigError> {
    let source = scalar(node)?;
    if source.trim().is_empty() || is_null(source) {
        return Ok(None);
    }
    let at =
        |e: predicate::ParseError| ConfigError { place: node.place_of(e.span.start), message: e.message };
    predicate::parse(source).map(Some).map_err(at)
}

fn scalar<'n>(node: &'n Node<'_>) -> Result<&'n str, ConfigError> {
    match &node.value {
        Value::Scalar { text, .. } => Ok(text),
        _ => Err(node.error("expected one value, not a list or a map")),
    }
}

/// A list, or a single value in its place.
fn list<T>(
    node: &Node<'_>,
    mut read: impl FnMut(&Node<'_>) -> Result<T, ConfigError>,
) -> Result<Vec<T>, ConfigError> {
    match &node.value {
        Value::List(list) => list.iter().map(read).collect(),
        Value::Scalar { text, plain: true, .. } if is_null(text) => Ok(Vec::new()),
        _ => read(node).map(|one| vec![one]),
    }
}

fn number(node: &Node<'_>) -> Result<u32, ConfigError> {
    parse_number(scalar(node)?).map_err(|message| node.error(message))
}

fn text(node: &Node<'_>, attribute: Attribute) -> Result<Vec<u8>, ConfigError> {
    let text = scalar(node)?.as_bytes();
    check_text(attribute, text).map_err(|message| node.error(message))?;
    Ok(text.to_vec())
}

fn boolean(node: &Node<'_>) -> Result<bool, ConfigError> {
    match scalar(node)? {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        other => Err(node.error(format!("expected true or false, found `{}`", other))),
    }
}
