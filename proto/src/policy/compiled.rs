//! The rules of a class in the form that a firewall takes.

use ipnet::{Ipv4Net, Ipv6Net};

use super::evaluate::Class;
use super::flow::Action;
use super::model::{PolicyDocument, Rule};
use super::ports::PortMatch;

/// The rules of a class, in file order. What none matches is denied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompiledClass {
    /// The rules.
    pub rules: Vec<CompiledRule>,
}

/// One rule of a class: what goes to one of its networks or names, and there to one of its services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledRule {
    /// Whether what it matches passes.
    pub allow: bool,
    /// IPv4 networks, in order; none overlaps another.
    pub v4: Vec<Ipv4Net>,
    /// IPv6 networks, in order; none overlaps another.
    pub v6: Vec<Ipv6Net>,
    /// Names, of which whoever enforces the rule looks up the addresses. Only rules that allow have names.
    pub names: Vec<String>,
    /// Services, of which no two overlap; empty means everything.
    pub ports: Vec<PortMatch>,
    /// The line of the file it begins in.
    pub line: usize,
}

impl CompiledClass {
    /// A class that everything is allowed to.
    pub fn everything() -> Self {
        let rule = CompiledRule {
            allow: true,
            v4: vec![Ipv4Net::default()],
            v6: vec![Ipv6Net::default()],
            names: Vec::new(),
            ports: Vec::new(),
            line: 0,
        };
        Self { rules: vec![rule] }
    }
}

impl PolicyDocument {
    /// The rules of a class for a firewall. A policy without rules needs none: it allows everything.
    pub fn compiled(&self, class: &Class) -> CompiledClass {
        let rules = class.rules().filter_map(|number| self.rules().get(number));
        CompiledClass { rules: rules.map(compiled).collect() }
    }
}

fn compiled(rule: &Rule) -> CompiledRule {
    CompiledRule {
        allow: rule.action == Action::Allow,
        v4: rule.to.v4().to_vec(),
        v6: rule.to.v6().to_vec(),
        names: rule.to.names().to_vec(),
        ports: PortMatch::merged(&rule.ports),
        line: rule.line,
    }
}
