//! The compiled filter: look-up tables, and the meaning of the terms left after them.

use super::dnf::{Atoms, Term, conjoin, terms};
use super::table::{Rows, Table, longest};
use super::terms::{TERMS_MAX, TermSet};
use super::{
    error::FilterError,
    limits::{GROUPS_MAX, RULES_MAX},
    predicate::Attribute as A,
    rule::{Filter, Verdict},
    subject::Subject,
};
use std::collections::BTreeMap;

/// A filter compiled to look-up tables.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// One table for each attribute in use.
    pub tables: BTreeMap<A, Table>,
    /// One term of each of these sets must be left.
    pub groups: Vec<TermSet>,
    /// If not empty, one of these must be left too: the first one names the rule.
    pub rules: TermSet,
    /// The rule of each term; 0 for a term that belongs to no rule.
    pub rule_of: Vec<u8>,
    /// The cgroup ids of `--cgroup`.
    pub cgroups: Vec<u64>,
}

impl Filter {
    /// Compiles the filter for the kernel.
    pub fn compile(&self) -> Result<Program, FilterError> {
        Program::compile(self)
    }
}

impl Program {
    pub(super) fn compile(filter: &Filter) -> Result<Self, FilterError> {
        if filter.rules.len() > RULES_MAX {
            return Err(FilterError::TooManyRules(filter.rules.len()));
        }
        let mut draft = Draft::default();
        draft.add_clauses(filter)?;
        draft.add_rules(filter)?;
        let mut tables = BTreeMap::new();
        for attribute in A::with_table() {
            if let Some(table) = Table::build(attribute, &draft.atoms, &draft.terms)? {
                tables.insert(attribute, table);
            }
        }
        let program = Program {
            tables,
            groups: draft.groups.iter().map(|(group, _)| *group).collect(),
            rules: draft.rules,
            rule_of: draft.rule_of,
            cgroups: filter.cgroups.clone(),
        };
        let possible = program.satisfiable();
        if let Some((_, origin)) = draft.groups.iter().find(|(group, _)| group.and(possible).is_empty()) {
            return Err(FilterError::NeverMatches(origin.clone()));
        }
        let matches = |index: usize| {
            (0..draft.terms.len()).any(|t| {
                program.rules.contains(t) && usize::from(program.rule_of[t]) == index && possible.contains(t)
            })
        };
        if let Some((_, rule)) = filter.rules.iter().enumerate().find(|(index, _)| !matches(*index)) {
            let name = rule.name.clone().unwrap_or_default();
            return Err(FilterError::RuleNeverMatches(name, rule.place.clone()));
        }
        Ok(program)
    }

    /// Whether it admits everything, without naming a rule.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.rules.is_empty()
    }

    /// Evaluates the program as the kernel does.
    pub fn evaluate(&self, subject: &Subject) -> Verdict {
        let look_up = |(attribute, table): (&A, &Table)| table.look_up(*attribute, subject);
        let left = self.tables.iter().map(look_up).fold(TermSet::ALL, TermSet::and);
        if self.groups.iter().any(|group| group.and(left).is_empty()) {
            return Verdict::Rejected;
        }
        if self.rules.is_empty() {
            return Verdict::Admitted(None);
        }
        let first = self.rules.and(left).first();
        first.map_or(Verdict::Rejected, |term| Verdict::Admitted(Some(self.rule_of[term].into())))
    }

    /// The terms that at least one connection can satisfy.
    fn satisfiable(&self) -> TermSet {
        let mut possible = self.binaries(A::BinaryName, A::BinaryPath, A::BinaryPrefix);
        possible =
            possible.and(self.binaries(A::ParentBinaryName, A::ParentBinaryPath, A::ParentBinaryPrefix));
        for (attribute, table) in &self.tables {
            let (values, miss) = match &table.rows {
                Rows::Numbers(rows) => {
                    let all_known = matches!(attribute, A::Direction | A::Cgroup);
                    (rows.values().copied().fold(TermSet::NONE, TermSet::or), !all_known)
                }
                Rows::Ports(runs) => {
                    (runs.iter().map(|(_, row)| *row).fold(TermSet::NONE, TermSet::or), false)
                }
                Rows::Prefixes(rows) if *attribute == A::ContainerId => {
                    (rows.values().copied().fold(TermSet::NONE, TermSet::or), true)
                }
                _ => continue,
            };
            if *attribute != A::Family {
                possible = possible.and(if miss { values.or(table.miss) } else { values });
            }
        }
        let family = |index: usize| {
            let ends = [A::Saddr, A::Daddr].map(|end| match self.tables.get(&end).map(|t| &t.rows) {
                Some(Rows::Nets { reachable, .. }) => reachable[index],
                _ => TermSet::ALL,
            });
            let family = match self.tables.get(&A::Family).map(|t| &t.rows) {
                Some(Rows::Numbers(rows)) => rows[&[4, 6][index]],
                _ => TermSet::ALL,
            };
            ends[0].and(ends[1]).and(family)
        };
        possible.and(family(0).or(family(1)))
    }

    /// The terms that some executable leaves: its path determines its name and its prefixes.
    fn binaries(&self, name: A, path: A, prefix: A) -> TermSet {
        let everything = BTreeMap::new();
        let rows = |attribute: A| match self.tables.get(&attribute) {
            Some(Table { miss, rows: Rows::Texts(rows) | Rows::Prefixes(rows), .. }) => (rows, *miss),
            _ => (&everything, TermSet::ALL),
        };
        let ((names, name_miss), (paths, path_miss), (prefixes, prefix_miss)) =
            (rows(name), rows(path), rows(prefix));
        let any = |rows: &BTreeMap<Vec<u8>, TermSet>, miss| rows.values().copied().fold(miss, TermSet::or);
        let unlisted = path_miss.and(any(names, name_miss)).and(any(prefixes, prefix_miss));
        paths.iter().fold(unlisted, |possible, (path, row)| {
            let base = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
            let name = names.get(base).copied().unwrap_or(name_miss);
            possible.or(row.and(name).and(longest(prefixes, path).unwrap_or(prefix_miss)))
        })
    }
}

#[derive(Default)]
struct Draft {
    atoms: Atoms,
    terms: Vec<Term>,
    groups: Vec<(TermSet, String)>,
    rules: TermSet,
    rule_of: Vec<u8>,
}

impl Draft {
    /// Clauses of one term are joined to one term; each of the others needs a group.
    fn add_clauses(&mut self, filter: &Filter) -> Result<(), FilterError> {
        let mut joint: (Term, Vec<&str>) = Default::default();
        for clause in &filter.all {
            let terms = terms(&clause.predicate, &mut self.atoms)?;
            if let [term] = &terms[..] {
                joint.0 = conjoin(&joint.0, term);
                joint.1.push(&clause.origin);
            } else {
                let group = self.add_terms(terms, 0)?;
                self.groups.push((group, clause.origin.clone()));
            }
        }
        if !joint.0.is_empty() {
            let group = self.add_terms(vec![joint.0], 0)?;
            self.groups.push((group, joint.1.join(" and ")));
        }
        if self.groups.len() <= GROUPS_MAX { Ok(()) } else { Err(FilterError::TooManyGroups) }
    }

    fn add_rules(&mut self, filter: &Filter) -> Result<(), FilterError> {
        for (index, rule) in (0..).zip(&filter.rules) {
            let terms = terms(&rule.predicate, &mut self.atoms)?;
            self.rules = self.rules.or(self.add_terms(terms, index)?);
        }
        Ok(())
    }

    fn add_terms(&mut self, terms: Vec<Term>, rule: u8) -> Result<TermSet, FilterError> {
        let mut group = TermSet::NONE;
        for term in terms {
            if self.terms.len() == TERMS_MAX {
                return Err(FilterError::TooManyTerms);
            }
            group.insert(self.terms.len());
            self.terms.push(term);
            self.rule_of.push(rule);
        }
        Ok(group)
    }
}
