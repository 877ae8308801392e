//! What a gateway would do with something that a user tries, and why.

use std::net::{IpAddr, ToSocketAddrs};

use adit_proto::drop_reason::DropReason;
use adit_proto::policy::{Action, Attempt, Membership, Place, Reason, Subject};
use serde::{Deserialize, Serialize};

use crate::core::grant::Terms;
use crate::core::personal::PersonalTerms;

use super::file::PolicyFile;

/// Most addresses of a name that are looked at.
const MOST_ADDRESSES: usize = 16;

/// What a user may do, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The user.
    pub user: String,
    /// Whether the gateway knows the user.
    pub known: bool,
    /// The source of logins that vouches for the user.
    pub source: String,
    /// The policy file; absent where the gateway has none.
    pub policy: Option<String>,
    /// What was asked about.
    pub attempt: String,
    /// The groups the user is in, in file order.
    pub groups: Vec<GroupOfUser>,
    /// The lines of the rules that concern the user, in file order. Users with the same are of one class.
    pub class: Vec<usize>,
    /// What happens, for each address of the destination.
    pub verdicts: Vec<VerdictOn>,
    /// What groups set for the user.
    pub settings: Vec<SettingOfUser>,
}

/// A group that the user is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupOfUser {
    /// Its name.
    pub name: String,
    /// The line it begins in.
    pub line: usize,
    /// Why the user is in it.
    pub reason: String,
}

/// What happens to packets for one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictOn {
    /// The address.
    pub address: IpAddr,
    /// `allow` or `deny`.
    pub action: String,
    /// The line of the rule that decided; absent where none did.
    pub rule: Option<usize>,
    /// Why, in words.
    pub reason: String,
    /// The route the client is told that leads there; absent where none does.
    pub route: Option<String>,
}

/// What a group sets for the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingOfUser {
    /// The key.
    pub key: String,
    /// Its value as it is written.
    pub value: String,
    /// The group that set it.
    pub group: String,
    /// The line it is set in.
    pub line: usize,
}

/// The addresses a gateway's host finds for a name. Blocks.
///
/// # Errors
/// Why there are none.
pub fn resolve(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = (name, 0_u16).to_socket_addrs().map_err(|error| error.to_string())?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.map(|found| found.ip()) {
        if !addresses.contains(&address) && addresses.len() < MOST_ADDRESSES {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Explains what happens to what `subject` tries. `addresses` are those of its destination.
pub fn explain(terms: &PersonalTerms, subject: &Subject<'_>, attempt: &Attempt, addresses: &[IpAddr]) -> Explanation {
    let policy = terms.policy().map(AsRef::as_ref);
    let of_user = terms.of(subject);
    let judge = Judge { policy, terms: &of_user, attempt };
    Explanation {
        user: subject.user.to_owned(),
        known: true,
        source: subject.source.to_owned(),
        policy: policy.map(|policy| policy.path.display().to_string()),
        attempt: attempt.to_string(),
        groups: policy.map_or_else(Vec::new, |policy| groups(policy, subject)),
        class: policy.map_or_else(Vec::new, |policy| class(policy, &of_user)),
        verdicts: addresses.iter().map(|address| judge.verdict(*address)).collect(),
        settings: policy.map_or_else(Vec::new, |policy| settings(policy, subject)),
    }
}

fn groups(policy: &PolicyFile, subject: &Subject<'_>) -> Vec<GroupOfUser> {
    let memberships = policy.document.groups_of(subject).into_iter();
    let found =
        memberships.filter_map(|membership| Some((policy.document.groups().get(membership.group)?, membership)));
    let told = found.map(|(group, membership)| GroupOfUser {
        name: group.name.clone(),
        line: group.line,
        reason: reason_of(&membership, subject.source),
    });
    told.collect()
}

/// Why somebody is in a group, in words.
fn reason_of(membership: &Membership<'_>, source: &str) -> String {
    match &membership.reason {
        Reason::Name => "it names the user".to_owned(),
        Reason::SourceGroup(group) => format!("{source} says the user is in {group}"),
    }
}

fn class(policy: &PolicyFile, terms: &Terms) -> Vec<usize> {
    terms.class.rules().filter_map(|rule| Some(policy.document.rules().get(rule)?.line)).collect()
}

fn settings(policy: &PolicyFile, subject: &Subject<'_>) -> Vec<SettingOfUser> {
    let groups: Vec<usize> = policy.document.groups_of(subject).iter().map(|membership| membership.group).collect();
    let written = policy.document.settings_of(&groups).written();
    let told = written.into_iter().map(|(key, value, line, group)| SettingOfUser {
        key: key.to_owned(),
        value: value.to_owned(),
        group: policy.group_name(group).to_owned(),
        line,
    });
    told.collect()
}

struct Judge<'a> {
    policy: Option<&'a PolicyFile>,
    terms: &'a Terms,
    attempt: &'a Attempt,
}

impl Judge<'_> {
    fn verdict(&self, address: IpAddr) -> VerdictOn {
        let leading = self.terms.routes.iter().filter(|route| route.contains(&address));
        let route = leading.max_by_key(|route| route.prefix_len()).map(ToString::to_string);
        let (action, rule, reason) = match self.terms.policy.check_destination(address) {
            Err(reason) => (Action::Deny, None, above(reason).to_owned()),
            Ok(()) => self.by_rules(address),
        };
        VerdictOn { address, action: action.word().to_owned(), rule, reason, route }
    }

    fn by_rules(&self, address: IpAddr) -> (Action, Option<usize>, String) {
        let Some(policy) = self.policy else { return (Action::Allow, None, "there is no policy".to_owned()) };
        let is_of_name = |name: &str, _: IpAddr| matches!(&self.attempt.to, Place::Name(asked) if asked == name);
        let decision = policy.document.verdict_knowing(&self.terms.class, &self.attempt.flow(address), is_of_name);
        let rule = decision.rule.and_then(|rule| policy.document.rules().get(rule)).map(|rule| rule.line);
        let reason = match (rule, decision.action) {
            (Some(line), _) => format!("the rule in line {line}"),
            (None, Action::Allow) => "the policy has no rules".to_owned(),
            (None, Action::Deny) => "no rule matches".to_owned(),
        };
        (decision.action, rule, reason)
    }
}

/// Why no rule is asked.
fn above(reason: DropReason) -> &'static str {
    if reason == DropReason::NoRoute {
        "no route leads there: the client is not told to send it to the gateway"
    } else if reason == DropReason::DestinationIsolated {
        "it is another client, and clients are isolated"
    } else {
        "no gateway forwards to such an address"
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use adit_proto::packet::icmp::GatewayAddresses;

    use super::*;
    use crate::config::config_for_tests;

    const POLICY: &str = "[groups.staff]\nmembers = [\"ldap:staff\"]\nroutes = [\"10.1.0.0/16\", \"192.0.2.0/24\"]\nmtu = 1300\n\
        [[rules]]\ngroups = [\"staff\"]\naction = \"allow\"\nto = [\"10.1.0.0/17\", \"wiki.example.org\"]\nports = [\"tcp/443\"]\n\
        [[rules]]\nusers = [\"bob\"]\naction = \"allow\"\nto = [\"*\"]\n";

    fn terms(policy: Option<&str>) -> PersonalTerms {
        let own = GatewayAddresses { v4: "10.77.0.1".parse().ok(), v6: None };
        let policy = policy.map(|text| Arc::new(PolicyFile::parse(Path::new("policy.toml"), text).unwrap()));
        PersonalTerms::new(&config_for_tests(Path::new("/nowhere")), own, policy)
    }

    fn explained(policy: Option<&str>, user: &str, attempt: &str, addresses: &[&str]) -> Explanation {
        let said = if user == "alice" { vec!["staff".to_owned()] } else { Vec::new() };
        let subject = Subject { user, source: "ldap", source_groups: &said };
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        explain(&terms(policy), &subject, &attempt.parse().unwrap(), &addresses)
    }

    fn verdict(user: &str, attempt: &str, address: &str) -> (String, Option<usize>, String, Option<String>) {
        let VerdictOn { action, rule, reason, route, .. } =
            explained(Some(POLICY), user, attempt, &[address]).verdicts.remove(0);
        (action, rule, reason, route)
    }

    #[test]
    fn everything_behind_a_verdict_is_told_with_its_line() {
        let told = explained(Some(POLICY), "alice", "tcp 10.1.2.3:443", &["10.1.2.3"]);
        assert_eq!(told.groups.len(), 1);
        assert_eq!((told.groups[0].name.as_str(), told.groups[0].line), ("staff", 1));
        assert_eq!(told.groups[0].reason, "ldap says the user is in staff");
        assert_eq!(told.class, [5]);
        assert_eq!(told.settings[1].key, "mtu");
        assert_eq!((told.settings[1].value.as_str(), told.settings[1].line), ("1300", 4));
        let verdict = &told.verdicts[0];
        assert_eq!(
            (verdict.action.as_str(), verdict.rule, verdict.route.as_deref()),
            ("allow", Some(5), Some("10.1.0.0/16"))
        );
    }

    #[test]
    fn denial_says_what_denied() {
        assert_eq!(verdict("alice", "tcp 10.1.2.3:80", "10.1.2.3").2, "no rule matches");
        assert_eq!(verdict("alice", "tcp 10.1.200.3:443", "10.1.200.3").0, "deny");
        let (action, rule, reason, route) = verdict("alice", "tcp 198.51.100.1:443", "198.51.100.1");
        assert_eq!((action.as_str(), rule, route), ("deny", None, None));
        assert!(reason.contains("no route"), "{reason}");
        assert_eq!(verdict("bob", "tcp 198.51.100.1:443", "198.51.100.1").1, Some(10));
        assert!(verdict("bob", "tcp 10.77.0.9:443", "10.77.0.9").2.contains("isolated"));
        assert!(verdict("bob", "icmp 127.0.0.1", "127.0.0.1").2.contains("no gateway forwards"));
    }

    #[test]
    fn name_is_judged_by_each_of_its_addresses() {
        let told = explained(Some(POLICY), "alice", "tcp wiki.example.org:443", &["192.0.2.7", "198.51.100.7"]);
        let actions: Vec<_> = told.verdicts.iter().map(|verdict| verdict.action.as_str()).collect();
        assert_eq!(actions, ["allow", "deny"], "no route leads to the second");
        let other = explained(Some(POLICY), "alice", "tcp other.example.org:443", &["192.0.2.7"]);
        assert_eq!(other.verdicts[0].action, "deny");
    }

    #[test]
    fn gateway_without_a_policy_allows_what_its_routes_lead_to() {
        let told = explained(None, "alice", "tcp 198.51.100.1:443", &["198.51.100.1"]);
        assert_eq!((told.verdicts[0].action.as_str(), told.policy, told.groups.len()), ("allow", None, 0));
    }
}
