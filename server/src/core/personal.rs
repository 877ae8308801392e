//! The terms of each person: those that the configuration gives everybody, changed by what the person's groups set.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_host::PolicyClass;
use adit_proto::packet::icmp::GatewayAddresses;
use adit_proto::policy::{
    Chosen, Class, CompiledClass, DestinationPolicy, QuotaAction, SecondFactor, SettingsOf, Subject, WhenFull,
};
use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::grant::{OpenHours, Resolvers, SessionLimits, SessionsOfUser, Terms};
use crate::accounts::KnownPerson;
use crate::config::{Config, SourceName};
use crate::policy::PolicyFile;

/// Most terms that are kept at a time: one for each set of groups that people are in. Beyond that all are made anew.
const MOST_KEPT: usize = 4_096;

/// Gives whoever logs in their terms.
pub struct PersonalTerms {
    /// Those of who is in no group.
    common: Arc<Terms>,
    /// Prefixes that everybody is told, whatever the routes of their groups.
    always: Vec<IpNet>,
    destinations: DestinationPolicy,
    policy: Option<Arc<PolicyFile>>,
    logins: LoginTerms,
    kept: Mutex<Kept>,
}

/// The logins of those whose groups say nothing of them.
#[derive(Debug, Clone, Copy)]
struct LoginTerms {
    second_factor: SecondFactor,
    session_lifetime: Duration,
}

impl Default for LoginTerms {
    /// As in a configuration that says nothing of them.
    fn default() -> Self {
        Self { second_factor: SecondFactor::Device, session_lifetime: Duration::from_secs(12 * 60 * 60) }
    }
}

/// What was made before, for those who come later.
#[derive(Default)]
struct Kept {
    terms: HashMap<Kind, Arc<Terms>>,
    rules: HashMap<Class, Arc<PolicyClass>>,
}

/// People of one kind are on the same terms.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Kind {
    groups: Vec<usize>,
    /// The one of them that they have chosen.
    chosen: Option<usize>,
    class: Class,
}

/// Everybody is on the same terms.
impl From<Terms> for PersonalTerms {
    fn from(terms: Terms) -> Self {
        Self {
            common: Arc::new(terms),
            always: Vec::new(),
            destinations: DestinationPolicy::default(),
            policy: None,
            logins: LoginTerms::default(),
            kept: Mutex::default(),
        }
    }
}

/// A person as the policy sees them.
impl<'a> From<&'a KnownPerson> for Subject<'a> {
    fn from(known: &'a KnownPerson) -> Self {
        Self { user: &known.user, source: &known.source, source_groups: &known.groups }
    }
}

/// The terms on which sessions begin now. All clones see them replaced.
#[derive(Clone)]
pub struct TermsInForce(Arc<ArcSwap<PersonalTerms>>);

impl From<PersonalTerms> for TermsInForce {
    fn from(terms: PersonalTerms) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(terms)))
    }
}

impl From<Terms> for TermsInForce {
    fn from(terms: Terms) -> Self {
        PersonalTerms::from(terms).into()
    }
}

impl TermsInForce {
    /// The terms now.
    pub fn load(&self) -> Arc<PersonalTerms> {
        self.0.load_full()
    }

    pub(super) fn replace(&self, terms: PersonalTerms) {
        self.0.store(Arc::new(terms));
    }

    /// When a user of the gateway itself is asked for a second factor: as the first of the user's groups says that says
    /// so, else as the configuration does.
    pub fn second_factor_of(&self, user: &str) -> SecondFactor {
        let subject = Subject { user, source: SourceName::Local.word(), source_groups: &[] };
        let terms = self.load();
        terms.of(&subject).limits.second_factor.unwrap_or(terms.logins.second_factor)
    }

    /// How long a login of somebody lasts: as the first of their groups says that says so, else as the configuration
    /// does.
    pub fn lifetime_of(&self, subject: &Subject<'_>) -> Duration {
        let terms = self.load();
        terms.of(subject).limits.session_lifetime.unwrap_or(terms.logins.session_lifetime)
    }
}

impl PersonalTerms {
    /// The terms that a gateway with this configuration and policy gives; `own` are its addresses in the pools.
    pub fn new(config: &Config, own: GatewayAddresses, policy: Option<Arc<PolicyFile>>) -> Self {
        Self {
            common: Arc::new(Terms::of(config, own)),
            always: Terms::always_advertised(config, own),
            destinations: Terms::destinations(config, own),
            policy,
            logins: LoginTerms {
                second_factor: config.login.second_factor,
                session_lifetime: config.login.session_lifetime,
            },
            kept: Mutex::default(),
        }
    }

    /// The policy behind them.
    pub fn policy(&self) -> Option<&Arc<PolicyFile>> {
        self.policy.as_ref()
    }

    /// The names of the groups that are offered to who logs in, in file order.
    pub fn offered(&self) -> Vec<String> {
        let groups = self.policy.iter().flat_map(|policy| policy.document.groups());
        groups.filter(|group| group.is_offered).map(|group| group.name.clone()).collect()
    }

    /// The number of a group that is offered, if somebody is in it.
    fn chosen(&self, subject: &Subject<'_>, name: &str) -> Option<usize> {
        let document = &self.policy.as_ref()?.document;
        let number = document.groups().iter().position(|group| group.is_offered && group.name == name)?;
        document.groups_of(subject).iter().any(|membership| membership.group == number).then_some(number)
    }

    /// Whether somebody may choose a group.
    pub fn may_choose(&self, subject: &Subject<'_>, group: &str) -> bool {
        self.chosen(subject, group).is_some()
    }

    /// The terms of somebody. Those of the same groups and rules share them.
    pub fn of(&self, subject: &Subject<'_>) -> Arc<Terms> {
        self.of_choice(subject, None)
    }

    /// As [`Self::of`], of somebody who has chosen a group. What it sets stands before what other groups set; a group
    /// that they may not choose does not count.
    pub fn of_choice(&self, subject: &Subject<'_>, group: Option<&str>) -> Arc<Terms> {
        let Some(policy) = &self.policy else { return Arc::clone(&self.common) };
        let groups = policy.document.groups_of(subject).iter().map(|membership| membership.group).collect();
        let chosen = group.and_then(|group| self.chosen(subject, group));
        let kind = Kind { groups, chosen, class: policy.document.class_of(subject) };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(terms) = kept.terms.get(&kind) {
            return Arc::clone(terms);
        }
        if kept.terms.len() >= MOST_KEPT {
            *kept = Kept::default();
        }
        let rules = kept.rules.entry(kind.class.clone()).or_insert_with(|| rules(policy, &kind.class));
        let terms = self.made_for(&kind, &policy.document.settings_with(kind.chosen, &kind.groups));
        let terms = Arc::new(Terms { rules: Some(Arc::clone(rules)), ..terms });
        kept.terms.insert(kind, Arc::clone(&terms));
        terms
    }

    fn made_for(&self, kind: &Kind, settings: &SettingsOf<'_>) -> Terms {
        let common = &self.common;
        let routes = value(settings.routes).map(|mut routes| {
            routes.extend(&self.always);
            routes
        });
        let dns = Resolvers {
            servers: value(settings.dns).unwrap_or_else(|| common.dns.servers.clone()),
            domains: value(settings.dns_domains).unwrap_or_else(|| common.dns.domains.clone()),
        };
        let routes = routes.unwrap_or_else(|| common.routes.clone());
        let terms = Terms::new(routes, dns, self.destinations, limits(common.limits.largest_packet, settings));
        Terms { class: kind.class.clone(), ..terms }
    }
}

/// The rules of a class for the kernel, with a number that no other class of this process has.
fn rules(policy: &PolicyFile, class: &Class) -> Arc<PolicyClass> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let rules = match policy.document.rules() {
        [] => CompiledClass::everything(),
        _ => policy.document.compiled(class),
    };
    Arc::new(PolicyClass { number, rules })
}

fn limits(largest_packet: u16, settings: &SettingsOf<'_>) -> SessionLimits {
    let when_full = value(settings.sessions_full).unwrap_or(WhenFull::Replace);
    SessionLimits {
        largest_packet: value(settings.mtu).map_or(largest_packet, |mtu| mtu.min(largest_packet)),
        rate_up: value(settings.rate_up),
        rate_down: value(settings.rate_down),
        quota: value(settings.quota),
        quota_action: value(settings.quota_action).unwrap_or(QuotaAction::Block),
        sessions: value(settings.sessions).map(|most| SessionsOfUser { most, when_full }),
        idle_timeout: value(settings.idle_timeout),
        session_lifetime: value(settings.session_lifetime),
        hours: value(settings.hours).map(OpenHours::new),
        second_factor: value(settings.second_factor),
    }
}

fn value<T: Clone>(chosen: Option<Chosen<'_, T>>) -> Option<T> {
    chosen.map(|chosen| chosen.written.value.clone())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::config_for_tests;

    const POLICY: &str = "[groups.office]\nmembers = [\"alice\", \"ldap:staff\"]\nroutes = [\"10.1.0.0/16\"]\nmtu = 1300\n\
        idle_timeout = \"10m\"\n\
        [groups.staff]\nmembers = [\"alice\", \"bob\"]\nroutes = [\"10.2.0.0/16\"]\ndns = [\"10.2.0.53\"]\nsessions = 2\n\
        [[rules]]\nusers = [\"bob\"]\naction = \"allow\"\nto = [\"10.2.0.0/16\"]\n";

    fn terms() -> PersonalTerms {
        let own = GatewayAddresses { v4: "10.77.0.1".parse().ok(), v6: None };
        let policy = PolicyFile::parse(Path::new("policy.toml"), POLICY).unwrap();
        PersonalTerms::new(&config_for_tests(Path::new("/nowhere")), own, Some(Arc::new(policy)))
    }

    fn user(user: &str) -> Subject<'_> {
        Subject { user, source: "local", source_groups: &[] }
    }

    fn routes(terms: &Terms) -> Vec<String> {
        terms.routes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn first_group_in_file_order_sets_each_term_and_the_rest_is_the_gateways() {
        let terms = terms();
        let alice = terms.of(&user("alice"));
        assert_eq!(routes(&alice), ["10.1.0.0/16", "10.77.0.1/32"], "the gateway is always told");
        assert_eq!(alice.dns.servers, ["10.2.0.53".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(alice.limits.largest_packet, 1300);
        assert_eq!(alice.limits.idle_timeout, Some(Duration::from_secs(600)));
        assert_eq!(alice.limits.sessions, Some(SessionsOfUser { most: 2, when_full: WhenFull::Replace }));
        let bob = terms.of(&user("bob"));
        assert_eq!(routes(&bob), ["10.2.0.0/16", "10.77.0.1/32"]);
        assert_eq!((bob.limits.largest_packet, bob.limits.idle_timeout), (1420, None));
        let nobody = terms.of(&user("nobody"));
        assert_eq!(routes(&nobody), ["0.0.0.0/0", "::/0", "10.77.0.1/32"]);
        assert_eq!(nobody.limits, SessionLimits::unlimited(1420));
    }

    #[test]
    fn chosen_group_comes_first_for_its_members_alone_and_changes_no_rule() {
        let text = POLICY.replace("[groups.staff]", "[groups.staff]\noffered = true");
        let policy = PolicyFile::parse(Path::new("policy.toml"), &text).unwrap();
        let config = config_for_tests(Path::new("/nowhere"));
        let terms = PersonalTerms::new(&config, GatewayAddresses::default(), Some(Arc::new(policy)));
        assert_eq!(terms.offered(), ["staff"]);
        let of = |who, group| terms.of_choice(&user(who), Some(group));
        let chosen = of("alice", "staff");
        assert_eq!(routes(&chosen), ["10.2.0.0/16"]);
        assert_eq!(chosen.limits.largest_packet, 1300, "what it does not set comes from the others");
        assert!(Arc::ptr_eq(chosen.rules.as_ref().unwrap(), terms.of(&user("alice")).rules.as_ref().unwrap()));
        for (who, group) in [("alice", "office"), ("nobody", "staff"), ("alice", "other")] {
            assert!(!terms.may_choose(&user(who), group), "{who} {group}");
            assert!(Arc::ptr_eq(&of(who, group), &terms.of(&user(who))), "{who} {group}");
        }
        assert!(terms.may_choose(&user("alice"), "staff"), "the positive control");
        assert!(PersonalTerms::new(&config, GatewayAddresses::default(), None).offered().is_empty());
    }

    #[test]
    fn what_a_source_says_counts_and_classes_are_apart() {
        let terms = terms();
        let said = ["staff".to_owned()];
        let carol = terms.of(&Subject { user: "carol", source: "ldap", source_groups: &said });
        assert_eq!(routes(&carol)[0], "10.1.0.0/16");
        assert_eq!(routes(&terms.of(&user("carol")))[0], "0.0.0.0/0");
        assert_eq!(terms.of(&user("bob")).class.rules().len(), 1);
        assert_eq!(terms.of(&user("alice")).class.rules().len(), 0);
    }

    #[test]
    fn logins_last_and_ask_as_the_groups_in_force_say_and_else_as_the_configuration_does() {
        let in_force = TermsInForce::from(terms());
        let (minutes, hours) = (Duration::from_secs(600), Duration::from_secs(12 * 3600));
        let asked = |who| (in_force.lifetime_of(&user(who)), in_force.second_factor_of(who));
        assert_eq!(asked("alice"), (hours, SecondFactor::Device));
        let text = "[groups.g]\nmembers = [\"alice\"]\nsession_lifetime = \"10m\"\nsecond_factor = \"always\"\n";
        let policy = PolicyFile::parse(Path::new("policy.toml"), text).unwrap();
        let mut config = config_for_tests(Path::new("/nowhere"));
        config.login.session_lifetime = 2 * hours;
        config.login.second_factor = SecondFactor::Never;
        in_force.clone().replace(PersonalTerms::new(&config, GatewayAddresses::default(), Some(Arc::new(policy))));
        assert_eq!(asked("alice"), (minutes, SecondFactor::Always));
        assert_eq!(asked("bob"), (2 * hours, SecondFactor::Never));
    }

    #[test]
    fn people_of_one_kind_share_their_terms() {
        let terms = terms();
        assert!(Arc::ptr_eq(&terms.of(&user("x")), &terms.of(&user("y"))));
        assert!(!Arc::ptr_eq(&terms.of(&user("x")), &terms.of(&user("bob"))));
    }

    #[test]
    fn people_with_the_same_rules_share_what_the_kernel_gets() {
        let terms = terms();
        let rules = |who| terms.of(&user(who)).rules.clone().unwrap();
        assert!(Arc::ptr_eq(&rules("alice"), &rules("nobody")), "other groups, but no rule");
        assert_ne!(rules("alice").number, rules("bob").number);
        assert_eq!(rules("bob").rules.rules.len(), 1);
    }

    #[test]
    fn policy_without_rules_has_the_kernel_allow_everything() {
        let policy = PolicyFile::parse(Path::new("policy.toml"), "[groups.staff]\nmembers = [\"bob\"]\n").unwrap();
        let config = config_for_tests(Path::new("/nowhere"));
        let with = |policy| PersonalTerms::new(&config, GatewayAddresses::default(), policy).of(&user("bob"));
        assert_eq!(with(Some(Arc::new(policy))).rules.as_ref().unwrap().rules, CompiledClass::everything());
        assert_eq!(with(None).rules, None);
    }

    #[test]
    fn packets_go_where_the_routes_of_the_groups_lead() {
        let terms = terms();
        let goes = |who: &str, to: &str| terms.of(&user(who)).policy.check_destination(to.parse().unwrap()).is_ok();
        assert!(goes("alice", "10.1.2.3") && !goes("alice", "10.2.2.3"));
        assert!(goes("bob", "10.2.2.3") && !goes("bob", "10.1.2.3") && goes("nobody", "192.0.2.1"));
        assert!(goes("alice", "10.77.0.1") && !goes("alice", "10.77.0.9"), "isolation stands above");
    }
}
