//! A policy as an administrator wrote it: groups, rules, and tests of both.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::attempt::Attempt;
use super::flow::Action;
use super::form::FormError;
use super::ports::PortMatch;
use super::settings::Settings;

/// Most groups of a policy.
pub const MOST_GROUPS: usize = 256;
/// Most members of all groups together.
pub const MOST_MEMBERS: usize = 65_536;
/// Most rules of a policy. Each costs the first packet of a flow a comparison at worst.
pub const MOST_RULES: usize = 4_096;
/// Most destinations of all rules together, networks and names.
pub const MOST_DESTINATIONS: usize = 65_536;
/// Most names among the destinations of all rules: each is looked up again and again.
pub const MOST_NAMES: usize = 256;
/// Most users, and most services, that one rule names.
pub const MOST_IN_A_RULE: usize = 1_024;
/// Most tests of a policy.
pub const MOST_TESTS: usize = 4_096;

/// A policy: groups and rules in the order of their file. Every number of a group in it is one of its groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyDocument {
    groups: Vec<Group>,
    rules: Vec<Rule>,
    tests: Vec<PolicyTest>,
}

/// People, and what holds for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Who is in it.
    pub members: Vec<Member>,
    /// Whether its members may choose it when they log in: then what it sets stands before what their other groups set.
    pub is_offered: bool,
    /// What it sets for its members.
    pub settings: Settings,
    /// The line of the file it begins in.
    pub line: usize,
}

/// Who is in a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Member {
    /// The user of this name, wherever the user logs in from.
    User(String),
    /// Everybody of whom a source of logins says that they are in a group of its own.
    OfSource {
        /// The source's word, such as `ldap`.
        source: String,
        /// The group as the source calls it, letter for letter.
        group: String,
    },
}

/// What some people may or may not reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is about.
    pub who: Who,
    /// What happens to the flows it matches.
    pub action: Action,
    /// To where these go.
    pub to: Destinations,
    /// To which services; empty means everything.
    pub ports: Vec<PortMatch>,
    /// The line of the file it begins in.
    pub line: usize,
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Everybody, whether in a group or not.
    Everybody,
    /// Who is in one of these groups, or is one of these users.
    Listed {
        /// Numbers of groups.
        groups: Vec<usize>,
        /// Names of users.
        users: Vec<String>,
    },
}

/// To where the flows go that a rule matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destinations {
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
    names: Vec<String>,
}

/// What somebody must be able to reach, and what not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTest {
    /// A user, who is in the groups that name the user as a member.
    pub user: Option<String>,
    /// Numbers of further groups.
    pub groups: Vec<usize>,
    /// What must be allowed.
    pub allow: Vec<Attempt>,
    /// What must be denied.
    pub deny: Vec<Attempt>,
    /// The line of the file it begins in.
    pub line: usize,
}

/// A policy has more of something than a gateway takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("more than {most} {what}")]
pub struct TooLarge {
    /// Of what.
    pub what: &'static str,
    /// The most there may be.
    pub most: usize,
    /// The line of the first one beyond that.
    pub line: usize,
}

impl PolicyDocument {
    /// Puts a policy together.
    ///
    /// # Errors
    /// The first bound that it exceeds.
    ///
    /// # Panics
    /// A rule or a test names a group that is not there, which whoever reads a file finds out before.
    pub fn new(groups: Vec<Group>, rules: Vec<Rule>, tests: Vec<PolicyTest>) -> Result<Self, TooLarge> {
        let named = rules.iter().flat_map(|rule| rule.who.groups()).chain(tests.iter().flat_map(|test| &test.groups));
        assert!(named.max().is_none_or(|last| *last < groups.len()), "a group is named that is not there");
        bound("groups", MOST_GROUPS, groups.iter().map(|group| (1, group.line)))?;
        let members = groups.iter().map(|group| (group.members.len(), group.line));
        bound("members of groups", MOST_MEMBERS, members)?;
        bound("rules", MOST_RULES, rules.iter().map(|rule| (1, rule.line)))?;
        bound("destinations in rules", MOST_DESTINATIONS, rules.iter().map(|rule| (rule.to.len(), rule.line)))?;
        bound("names in rules", MOST_NAMES, rules.iter().map(|rule| (rule.to.names.len(), rule.line)))?;
        for rule in &rules {
            bound("users in a rule", MOST_IN_A_RULE, [(rule.who.users().len(), rule.line)])?;
            bound("services in a rule", MOST_IN_A_RULE, [(rule.ports.len(), rule.line)])?;
        }
        bound("tests", MOST_TESTS, tests.iter().map(|test| (test.allow.len() + test.deny.len(), test.line)))?;
        Ok(Self { groups, rules, tests })
    }

    /// Its groups.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Its rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Its tests.
    pub fn tests(&self) -> &[PolicyTest] {
        &self.tests
    }
}

/// Adds up `sizes`, each with its line, and refuses the first that goes beyond `most`.
fn bound(what: &'static str, most: usize, sizes: impl IntoIterator<Item = (usize, usize)>) -> Result<(), TooLarge> {
    let mut sum = 0_usize;
    for (size, line) in sizes {
        sum = sum.saturating_add(size);
        if sum > most {
            return Err(TooLarge { what, most, line });
        }
    }
    Ok(())
}

impl Who {
    fn groups(&self) -> &[usize] {
        match self {
            Self::Everybody => &[],
            Self::Listed { groups, .. } => groups,
        }
    }

    fn users(&self) -> &[String] {
        match self {
            Self::Everybody => &[],
            Self::Listed { users, .. } => users,
        }
    }

    /// Tells whether it includes a user who is in these groups.
    pub fn includes(&self, user: &str, memberships: &[usize]) -> bool {
        match self {
            Self::Everybody => true,
            Self::Listed { groups, users } => {
                groups.iter().any(|group| memberships.contains(group)) || users.iter().any(|listed| listed == user)
            }
        }
    }
}

impl Destinations {
    /// Every address of both families.
    pub fn everywhere() -> Self {
        Self { v4: vec![Ipv4Net::default()], v6: vec![Ipv6Net::default()], names: Vec::new() }
    }

    /// These networks, and whatever addresses these names have. Networks inside others, or beside each other, become
    /// one.
    pub fn new(networks: &[IpNet], names: Vec<String>) -> Self {
        let v4 = networks.iter().filter_map(|net| if let IpNet::V4(v4) = net { Some(*v4) } else { None }).collect();
        let v6 = networks.iter().filter_map(|net| if let IpNet::V6(v6) = net { Some(*v6) } else { None }).collect();
        Self { v4: Ipv4Net::aggregate(&v4), v6: Ipv6Net::aggregate(&v6), names }
    }

    /// The IPv4 networks, in order; none overlaps another.
    pub fn v4(&self) -> &[Ipv4Net] {
        &self.v4
    }

    /// The IPv6 networks, in order; none overlaps another.
    pub fn v6(&self) -> &[Ipv6Net] {
        &self.v6
    }

    /// The names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Tells whether an address is in one of the networks.
    pub fn contain(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.v4.iter().any(|net| net.contains(&v4)),
            IpAddr::V6(v6) => self.v6.iter().any(|net| net.contains(&v6)),
        }
    }

    /// Tells whether no address and no name is beyond it.
    pub fn are_everywhere(&self) -> bool {
        self.v4.iter().any(|net| net.prefix_len() == 0) && self.v6.iter().any(|net| net.prefix_len() == 0)
    }

    fn len(&self) -> usize {
        self.v4.len().saturating_add(self.v6.len()).saturating_add(self.names.len())
    }
}

impl FromStr for Member {
    type Err = FormError;

    /// Reads a user's name, or `SOURCE:GROUP`. Whether there is such a source is for the reader to find out.
    fn from_str(text: &str) -> Result<Self, FormError> {
        let next = "write a user's name, or SOURCE:GROUP such as \"ldap:engineering\"";
        match text.split_once(':') {
            None if text.is_empty() => Err(FormError::new("a member has no name", next)),
            None => Ok(Self::User(text.to_owned())),
            Some(("", _) | (_, "")) => Err(FormError::new(format!("{text:?} is no group of a source"), next)),
            Some((source, group)) => Ok(Self::OfSource { source: source.to_owned(), group: group.to_owned() }),
        }
    }
}
