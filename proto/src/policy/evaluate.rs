//! The verdict on a flow: the first rule that matches decides.

use std::net::{IpAddr, Ipv4Addr};

use super::attempt::{Attempt, Place};
use super::flow::{Action, Flow};
use super::model::{Destinations, Member, PolicyDocument, PolicyTest, Rule};

/// Somebody who logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The user's name at the gateway.
    pub user: &'a str,
    /// The source of logins that vouches for the user.
    pub source: &'a str,
    /// In which of its own groups that source says the user is.
    pub source_groups: &'a [String],
}

/// A group that somebody is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership<'a> {
    /// The number of the group.
    pub group: usize,
    /// Which line of its list of members says so.
    pub reason: Reason<'a>,
}

/// Why somebody is in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason<'a> {
    /// It lists the user by name.
    Name,
    /// It lists this group of the user's source.
    SourceGroup(&'a str),
}

/// Everybody with the same rules is of one class: the rules that concern somebody, by their numbers in file order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class(Vec<u16>);

/// What a policy says about one flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What happens to it.
    pub action: Action,
    /// The number of the rule that decided; `None` where none matched.
    pub rule: Option<usize>,
}

/// A test that a policy does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedTest<'a> {
    /// The test.
    pub test: &'a PolicyTest,
    /// What it tried.
    pub attempt: &'a Attempt,
    /// What it wanted.
    pub expected: Action,
    /// What it got.
    pub got: Decision,
}

impl Class {
    /// The numbers of its rules, in file order.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = usize> {
        self.0.iter().map(|rule| usize::from(*rule))
    }
}

impl Rule {
    /// Tells whether it is about a flow, given whether that goes to one of its destinations. A flow whose port is not
    /// known meets every rule that might deny it and none that might allow it.
    fn matches(&self, flow: &Flow, goes_there: impl FnOnce(&Destinations) -> bool) -> bool {
        let in_doubt = self.action == Action::Deny;
        let is_service = self.ports.is_empty() || self.ports.iter().any(|ports| ports.matches(flow, in_doubt));
        is_service && goes_there(&self.to)
    }
}

impl PolicyDocument {
    /// The groups that somebody is in, in file order, each with the first member that says so.
    pub fn groups_of<'a>(&self, subject: &Subject<'a>) -> Vec<Membership<'a>> {
        let named = |member: &Member| match member {
            Member::User(user) => (user == subject.user).then_some(Reason::Name),
            Member::OfSource { source, group } if source == subject.source => {
                subject.source_groups.iter().find(|said| *said == group).map(|said| Reason::SourceGroup(said))
            }
            Member::OfSource { .. } => None,
        };
        let groups = self.groups().iter().enumerate();
        groups
            .filter_map(|(group, found)| Some(Membership { group, reason: found.members.iter().find_map(named)? }))
            .collect()
    }

    /// The class of somebody.
    pub fn class_of(&self, subject: &Subject<'_>) -> Class {
        let groups: Vec<usize> = self.groups_of(subject).iter().map(|membership| membership.group).collect();
        self.class_in(subject.user, &groups)
    }

    /// The class of a user who is in these groups.
    pub fn class_in(&self, user: &str, groups: &[usize]) -> Class {
        let rules = self.rules().iter().enumerate().filter(|(_, rule)| rule.who.includes(user, groups));
        Class(rules.map(|(number, _)| u16::try_from(number).expect("there are MOST_RULES rules at most")).collect())
    }

    /// What happens to a flow of somebody of this class: what the first rule that matches says. What none matches is
    /// denied; without any rule in the policy everything is allowed.
    ///
    /// No address is known for the names in rules: see [`Self::verdict_knowing`].
    pub fn verdict(&self, class: &Class, flow: &Flow) -> Decision {
        self.verdict_knowing(class, flow, |_, _| false)
    }

    /// As [`Self::verdict`], where `has` tells whether a name has an address now.
    pub fn verdict_knowing(&self, class: &Class, flow: &Flow, has: impl Fn(&str, IpAddr) -> bool) -> Decision {
        self.decide(class, flow, |to| {
            to.contain(flow.destination) || to.names().iter().any(|name| has(name, flow.destination))
        })
    }

    /// What happens to what somebody of this class tries. Of a name that is tried only rules for that name, and rules
    /// for everywhere, are known to be about it.
    pub fn verdict_on(&self, class: &Class, attempt: &Attempt) -> Decision {
        match &attempt.to {
            Place::Address(address) => self.verdict(class, &attempt.flow(*address)),
            Place::Name(name) => {
                // Of either family; it stands for the service alone.
                let flow = attempt.flow(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
                self.decide(class, &flow, |to| to.are_everywhere() || to.names().contains(name))
            }
        }
    }

    /// The tests that it does not pass, in file order.
    pub fn failed_tests(&self) -> Vec<FailedTest<'_>> {
        self.tests().iter().flat_map(|test| self.failures_of(test)).collect()
    }

    fn failures_of<'a>(&'a self, test: &'a PolicyTest) -> impl Iterator<Item = FailedTest<'a>> {
        let user = test.user.as_deref().unwrap_or_default();
        let subject = Subject { user, source: "", source_groups: &[] };
        let named = self.groups_of(&subject).into_iter().map(|membership| membership.group);
        let groups: Vec<usize> = named.chain(test.groups.iter().copied()).collect();
        let class = self.class_in(user, &groups);
        let allow = test.allow.iter().map(|attempt| (attempt, Action::Allow));
        let deny = test.deny.iter().map(|attempt| (attempt, Action::Deny));
        allow.chain(deny).filter_map(move |(attempt, expected)| {
            let got = self.verdict_on(&class, attempt);
            (got.action != expected).then_some(FailedTest { test, attempt, expected, got })
        })
    }

    fn decide(&self, class: &Class, flow: &Flow, goes_there: impl Fn(&Destinations) -> bool) -> Decision {
        if self.rules().is_empty() {
            return Decision { action: Action::Allow, rule: None };
        }
        let known = class.rules().filter_map(|number| Some((number, self.rules().get(number)?)));
        let first = known.into_iter().find(|(_, rule)| rule.matches(flow, &goes_there));
        first.map_or(Decision { action: Action::Deny, rule: None }, |(number, rule)| Decision {
            action: rule.action,
            rule: Some(number),
        })
    }
}
