//! Reading the text of a policy, with the line of everything in it. All problems are found at once.

mod entries;

use std::path::Path;
use std::time::Duration;

use adit_program::closest::next_step;
use adit_program::configuration::{Complaint, Problem};
use adit_program::toml_error::TomlFault;
use adit_proto::packet::IPV6_MIN_MTU;
use adit_proto::policy::attempt::domain;
use adit_proto::policy::{Action, Destinations, Group, PolicyDocument, PolicyTest, Rule, Settings, TooLarge, Who};
use ipnet::IpNet;
use toml::de::{DeTable, DeValue};

use super::values::{self, Parsed};

use entries::{Entry, Fields, Place};

const ROOT_KEYS: &[&str] = &["groups", "networks", "rules", "tests"];
const RULE_KEYS: &[&str] = &["groups", "users", "action", "to", "ports"];
const TEST_KEYS: &[&str] = &["user", "groups", "allow", "deny"];

/// Stands for everybody, and for everywhere.
const ALL: &str = "*";

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Most sessions of one user that may be set.
const MOST_SESSIONS: usize = 10_000;

/// Reads a policy.
pub(super) fn read(path: &Path, text: &str) -> Result<PolicyDocument, Vec<Problem>> {
    let root = DeTable::parse(text).map_err(|error| {
        let fault = TomlFault::of(&error, text);
        let place = format!("{}:{}", path.display(), fault.line);
        vec![Problem::new(place, fault.reason, "mend the TOML syntax of that line")]
    })?;
    let mut reader = Reader {
        path: path.display().to_string(),
        text,
        line_starts: entries::line_starts(text),
        networks: Vec::new(),
        groups: Vec::new(),
        problems: Vec::new(),
    };
    let document = reader.document(root.get_ref());
    reader.problems.sort_by_key(|(line, _)| *line);
    document.ok_or_else(|| reader.problems.into_iter().map(|(_, problem)| problem).collect())
}

/// What was read so far, and what is wrong with it.
struct Reader<'a> {
    path: String,
    text: &'a str,
    line_starts: Vec<usize>,
    networks: Vec<(String, Vec<IpNet>)>,
    /// Names of the groups, in file order.
    groups: Vec<String>,
    /// Each with its line.
    problems: Vec<(usize, Problem)>,
}

impl<'a> Reader<'a> {
    /// The policy, unless there are problems.
    fn document(&mut self, root: &'a DeTable<'a>) -> Option<PolicyDocument> {
        let root = Self::root(root);
        self.refuse_unknown(&root, ROOT_KEYS);
        let networks = self.entries(&root, "networks");
        self.networks = networks.iter().filter_map(|(name, entry)| self.network(name, entry)).collect();
        let groups = self.entries(&root, "groups");
        self.groups = groups.iter().map(|(name, _)| (*name).to_owned()).collect();
        let groups: Vec<_> = groups.iter().filter_map(|(name, entry)| self.group(name, entry)).collect();
        let rules = self.tables(&root, "rules").iter().filter_map(|fields| self.rule(fields)).collect();
        let tests = self.tables(&root, "tests").iter().map(|fields| self.test(fields)).collect();
        if !self.problems.is_empty() {
            // A group may be missing that a rule names.
            return None;
        }
        let document = PolicyDocument::new(groups, rules, tests);
        let refused = |refused: TooLarge| {
            let place = Place { thing: refused.what.to_owned(), line: refused.line };
            self.complain(&place, Complaint::unfit(refused.to_string(), "remove what is not needed"));
        };
        document.map_err(refused).ok()
    }

    fn network(&mut self, name: &str, entry: &Entry<'a>) -> Option<(String, Vec<IpNet>)> {
        self.keep(&entry.place, values::name(name))?;
        Some((name.to_owned(), self.items(entry, values::network)))
    }

    fn group(&mut self, name: &str, entry: &Entry<'a>) -> Option<Group> {
        self.keep(&entry.place, values::name(name))?;
        let fields = self.fields(entry)?;
        let known: Vec<&str> = ["members", "offered"].into_iter().chain(Settings::KEYS.iter().copied()).collect();
        self.refuse_unknown(&fields, &known);
        let members = self.find(&fields, "members").map(|entry| self.list(&entry, values::member));
        let offered = self.find(&fields, "offered");
        let is_offered = offered.and_then(|entry| self.keep(&entry.place, values::boolean(entry.value.get_ref())));
        let settings = self.settings(&fields);
        Some(Group {
            name: name.to_owned(),
            members: members.unwrap_or_default(),
            is_offered: is_offered.unwrap_or(false),
            settings,
            line: entry.place.line,
        })
    }

    fn settings(&mut self, group: &Fields<'a>) -> Settings {
        let lifetime = |most| move |value: &DeValue<'_>| values::duration(value, &(MINUTE..=most));
        Settings {
            routes: self.set(group, "routes", |reader, entry| Some(reader.list(entry, values::network))),
            dns: self.set(group, "dns", |reader, entry| Some(reader.list(entry, values::address))),
            dns_domains: self.set(group, "dns_domains", |reader, entry| Some(reader.list(entry, values::domain_name))),
            mtu: self.one(group, "mtu", |value| values::integer(value, &(IPV6_MIN_MTU..=u16::MAX))),
            rate_up: self.one(group, "rate_up", values::parsed),
            rate_down: self.one(group, "rate_down", values::parsed),
            quota: self.one(group, "quota", values::parsed),
            quota_action: self.one(group, "quota_action", values::parsed),
            sessions: self.one(group, "sessions", |value| values::integer(value, &(1..=MOST_SESSIONS))),
            sessions_full: self.one(group, "sessions_full", values::parsed),
            idle_timeout: self.one(group, "idle_timeout", lifetime(30 * DAY)),
            session_lifetime: self.one(group, "session_lifetime", lifetime(365 * DAY)),
            hours: self.one(group, "hours", values::hours),
            second_factor: self.one(group, "second_factor", values::parsed),
        }
    }

    fn rule(&mut self, fields: &Fields<'a>) -> Option<Rule> {
        self.refuse_unknown(fields, RULE_KEYS);
        let (who, action) = (self.who(fields), self.action(fields));
        let to = self.destinations(fields);
        let ports = self.find(fields, "ports").map(|entry| self.items(&entry, values::parsed));
        let (who, action, to, line) = (who?, action?, to?, fields.place.line);
        if action == Action::Deny && !to.names().is_empty() {
            let next = "deny its network: a name may have another address for the client than for the gateway";
            let reason = format!("{} cannot be denied by name", to.names().join(", "));
            self.complain(&fields.place, Complaint::unfit(reason, next));
        }
        Some(Rule { who, action, to, ports: ports.unwrap_or_default(), line })
    }

    fn action(&mut self, rule: &Fields<'a>) -> Option<Action> {
        let Some(entry) = self.find(rule, "action") else {
            self.complain(
                &rule.place,
                Complaint::unfit("has no action", "add action = \"allow\" or action = \"deny\""),
            );
            return None;
        };
        let action = values::text(entry.value.get_ref()).and_then(|word| match word {
            "allow" => Ok(Action::Allow),
            "deny" => Ok(Action::Deny),
            other => Err(Complaint::unfit(format!("{other:?} is no action"), "write \"allow\" or \"deny\"")),
        });
        self.keep(&entry.place, action)
    }

    fn who(&mut self, rule: &Fields<'a>) -> Option<Who> {
        let (groups, users) = (self.find(rule, "groups"), self.find(rule, "users"));
        if groups.is_none() && users.is_none() {
            let next = "add groups = [\"…\"] or users = [\"…\"]; groups = [\"*\"] is everybody";
            self.complain(&rule.place, Complaint::unfit("does not say whom it is about", next));
            return None;
        }
        if groups.as_ref().is_some_and(|entry| is_all(entry.value.get_ref())) {
            if let Some(users) = users {
                let complaint = Complaint::unfit("the rule is about everybody", "remove users, or name groups");
                self.complain(&users.place, complaint);
            }
            return Some(Who::Everybody);
        }
        let groups = groups.map(|entry| self.group_numbers(&entry)).unwrap_or_default();
        let users = users.map(|entry| self.items(&entry, values::user)).unwrap_or_default();
        Some(Who::Listed { groups, users })
    }

    fn group_numbers(&mut self, entry: &Entry<'a>) -> Vec<usize> {
        let groups = std::mem::take(&mut self.groups);
        let numbers = self.items(entry, |value| {
            let name = values::text(value)?;
            let number = groups.iter().position(|known| known == name);
            number.ok_or_else(|| {
                let next = match name {
                    ALL => "name it alone, and in a rule".to_owned(),
                    _ if groups.is_empty() => "begin one with [groups.NAME]".to_owned(),
                    name => next_step(name, groups.iter().map(String::as_str)),
                };
                Complaint::unfit(format!("there is no group {name:?}"), next)
            })
        });
        self.groups = groups;
        numbers
    }

    fn destinations(&mut self, rule: &Fields<'a>) -> Option<Destinations> {
        let Some(entry) = self.find(rule, "to") else {
            let next = "add to = [\"10.1.0.0/16\"]; to = [\"*\"] is everywhere";
            self.complain(&rule.place, Complaint::unfit("does not say where to", next));
            return None;
        };
        let networks = std::mem::take(&mut self.networks);
        let targets = self.items(&entry, |value| target(values::text(value)?, &networks));
        self.networks = networks;
        let (mut nets, mut names) = (Vec::new(), Vec::new());
        for target in targets {
            match target {
                Target::Everywhere => return Some(Destinations::everywhere()),
                Target::Networks(found) => nets.extend(found),
                Target::Name(name) => names.push(name),
            }
        }
        Some(Destinations::new(&nets, names))
    }

    fn test(&mut self, fields: &Fields<'a>) -> PolicyTest {
        self.refuse_unknown(fields, TEST_KEYS);
        let (user, groups) = (self.find(fields, "user"), self.find(fields, "groups"));
        if user.is_none() && groups.is_none() {
            let next = "add user = \"…\" or groups = [\"…\"]";
            self.complain(&fields.place, Complaint::unfit("does not say whom it is about", next));
        }
        let [allow, deny] = ["allow", "deny"].map(|key| self.find(fields, key));
        if allow.is_none() && deny.is_none() {
            let next = "add allow = [\"tcp 10.1.2.3:443\"] or deny = […]";
            self.complain(&fields.place, Complaint::unfit("tests nothing", next));
        }
        let mut attempts = |entry: Option<Entry<'a>>| entry.map(|entry| self.items(&entry, values::parsed));
        let (allow, deny) = (attempts(allow).unwrap_or_default(), attempts(deny).unwrap_or_default());
        PolicyTest {
            user: user.and_then(|entry| self.keep(&entry.place, values::user(entry.value.get_ref()))),
            groups: groups.map(|entry| self.group_numbers(&entry)).unwrap_or_default(),
            allow,
            deny,
            line: fields.place.line,
        }
    }
}

/// Whether a list holds the sign for everything, and nothing else.
fn is_all(list: &DeValue<'_>) -> bool {
    let items = list.as_array().map(|items| &items[..]);
    matches!(items, Some([one]) if one.get_ref().as_str() == Some(ALL))
}

/// Where a rule is about.
enum Target {
    Everywhere,
    Networks(Vec<IpNet>),
    Name(String),
}

/// A network, an address, the name of a network of the file, or a DNS name, which has a dot.
fn target(text: &str, networks: &[(String, Vec<IpNet>)]) -> Parsed<Target> {
    if text == ALL {
        return Ok(Target::Everywhere);
    }
    if let Some(net) = values::network_in(text)? {
        return Ok(Target::Networks(vec![net]));
    }
    if let Some((_, nets)) = networks.iter().find(|(name, _)| name == text) {
        return Ok(Target::Networks(nets.clone()));
    }
    match domain(text).filter(|name| name.contains('.')) {
        Some(name) => Ok(Target::Name(name)),
        None if has_port(text) => {
            let next = "leave the port out, and write ports = [\"tcp/443\"] or the like";
            Err(Complaint::unfit(format!("{text:?} is no destination"), next))
        }
        None if text.contains(['.', ':', '/']) => {
            let next = "write a network such as \"10.1.0.0/16\", an address, or a name such as \"wiki.example.org\"";
            Err(Complaint::unfit(format!("{text:?} is no destination"), next))
        }
        None if networks.is_empty() => {
            let next = "name it in [networks], or write the network itself";
            Err(Complaint::unfit(format!("there is no network {text:?}"), next))
        }
        None => {
            let next = next_step(text, networks.iter().map(|(name, _)| name.as_str()));
            Err(Complaint::unfit(format!("there is no network {text:?}"), next))
        }
    }
}

/// Whether a text is an address or a name with a port.
fn has_port(text: &str) -> bool {
    let parts = text.rsplit_once(':');
    parts.is_some_and(|(place, port)| place.contains(['.', ']']) && port.parse::<u16>().is_ok())
}
