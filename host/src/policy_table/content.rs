//! What the table is made from, and how it gets into the kernel.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use adit_proto::mark::Mark;

use super::class::{self, NameSets};
use super::{Generation, MemberChange, PolicyClass};
use crate::firewall::ANSWERS;
use crate::nft::{Batch, Chain, ChainKind, Element, Holds, Hook, Key, Rule, Set};

const FORWARD: &str = "forward";
/// Packets come here to be remembered and accepted.
pub(super) const ALLOWED: &str = "allowed";
/// Packets come here from the chains of classes, never to return.
pub(super) const REFUSED: &str = "refused";
/// The chains that lead the packets of members to the chain of their class, and come back with those of others.
const CLASSES: [(Key, &str); 2] = [(Key::V4, "classes_v4"), (Key::V6, "classes_v6")];
/// Before the chain of the gateway's firewall, which has `NF_IP_PRI_FILTER`.
const PRIORITY: i32 = -5;

#[derive(Debug, Clone)]
pub(super) struct Content {
    tun: String,
    /// Whether the table judges packets at all; if not, there is nothing in it.
    judges: bool,
    generation: Generation,
    classes: BTreeMap<u32, Arc<PolicyClass>>,
    members: HashMap<IpAddr, u32>,
    /// Former members' classes under this policy: connections they had were allowed by those.
    former: HashMap<IpAddr, u32>,
    names: BTreeMap<String, Name>,
}

/// A name of the classes' rules.
#[derive(Debug, Clone)]
pub(super) struct Name {
    sets: NameSets,
    addresses: Vec<IpAddr>,
    until: Instant,
}

/// What a change brings that the table does not have yet.
#[derive(Debug)]
pub(super) struct Learnt {
    classes: Vec<u32>,
    names: Vec<String>,
}

/// Where addresses move from one class to another; `None` is to have none.
#[derive(Debug)]
pub(super) struct Moves(Vec<Move>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Move {
    address: IpAddr,
    from: Option<u32>,
    to: Option<u32>,
}

impl Content {
    pub(super) fn new(tun: &str) -> Self {
        Self {
            tun: tun.to_owned(),
            judges: true,
            generation: Generation::FIRST,
            classes: BTreeMap::new(),
            members: HashMap::new(),
            former: HashMap::new(),
            names: BTreeMap::new(),
        }
    }

    /// Nothing, before the first policy.
    pub(super) fn idle(tun: &str) -> Self {
        Self { judges: false, ..Self::new(tun) }
    }

    /// The mark of what this policy allows.
    pub(super) fn mark(&self) -> Mark {
        self.generation.mark()
    }

    /// With other members, of classes that another policy gives them. Names keep their addresses.
    pub(super) fn under_next_policy(&self, members: HashMap<IpAddr, Arc<PolicyClass>>) -> Self {
        let mut next = Self { generation: self.generation.next(), ..Self::new(&self.tun) };
        for (address, class) in members {
            next.members.insert(address, class.number);
            next.add_class(class);
        }
        for (name, known) in &mut next.names {
            if let Some(former) = self.names.get(name) {
                known.addresses.clone_from(&former.addresses);
                known.until = former.until;
            }
        }
        next
    }

    /// Whether a change brings a class that is not known.
    pub(super) fn lacks_class(&self, changes: &[MemberChange]) -> bool {
        changes.iter().any(|change| match change {
            MemberChange::Admit(_, class) => !self.classes.contains_key(&class.number),
            MemberChange::Dismiss(_) => false,
        })
    }

    /// Forgets classes without members, and what only they name, if there are more than so many; says whether.
    pub(super) fn forget_idle_classes(&mut self, most: usize) -> bool {
        let used: BTreeSet<u32> = self.members.values().copied().collect();
        if self.classes.len() - used.len() <= most {
            return false;
        }
        self.classes.retain(|number, _| used.contains(number));
        let classes = &self.classes;
        self.names.retain(|name, _| classes.values().any(|class| class::names(class).any(|of_class| of_class == name)));
        true
    }

    /// Takes the classes that changes bring, and says which are new.
    pub(super) fn learn(&mut self, changes: &[MemberChange]) -> Learnt {
        let mut learnt = Learnt { classes: Vec::new(), names: Vec::new() };
        for change in changes {
            let MemberChange::Admit(_, class) = change else { continue };
            if !self.classes.contains_key(&class.number) {
                learnt.classes.push(class.number);
                learnt.names.extend(self.add_class(Arc::clone(class)));
            }
        }
        learnt
    }

    /// Adds a class, and says which of its names are new.
    fn add_class(&mut self, class: Arc<PolicyClass>) -> Vec<String> {
        let mut new = Vec::new();
        for name in class::names(&class) {
            if !self.names.contains_key(name) {
                let number = self.names.values().map(|name| name.sets.0 + 1).max().unwrap_or_default();
                let known = Name { sets: NameSets(number), addresses: Vec::new(), until: Instant::now() };
                self.names.insert(name.to_owned(), known);
                new.push(name.to_owned());
            }
        }
        self.classes.insert(class.number, class);
        new
    }

    /// Forgets what a change brought that the kernel refused.
    pub(super) fn unlearn(&mut self, learnt: &Learnt) {
        self.classes.retain(|number, _| !learnt.classes.contains(number));
        self.names.retain(|name, _| !learnt.names.contains(name));
    }

    /// What changes amount to; an address that stays where it is does not move.
    pub(super) fn moves(&self, changes: &[MemberChange]) -> Moves {
        let mut last = BTreeMap::new();
        for change in changes {
            match change {
                MemberChange::Admit(address, class) => last.insert(*address, Some(class.number)),
                MemberChange::Dismiss(address) => last.insert(*address, None),
            };
        }
        let moves =
            last.into_iter().map(|(address, to)| Move { address, from: self.members.get(&address).copied(), to });
        Moves(moves.filter(|step| step.from != step.to).collect())
    }

    /// Carries moves out, and returns the addresses whose connections another class than theirs allowed.
    pub(super) fn apply(&mut self, moves: &Moves) -> HashSet<IpAddr> {
        let mut judged_anew = HashSet::new();
        for &Move { address, from, to } in &moves.0 {
            self.set_member(address, to);
            match (from, to) {
                (Some(from), None) => drop(self.former.insert(address, from)),
                (from, Some(to)) => {
                    let allowed_by = from.or_else(|| self.former.get(&address).copied());
                    judged_anew.extend(allowed_by.filter(|class| *class != to).map(|_| address));
                }
                (None, None) => {}
            }
        }
        judged_anew
    }

    pub(super) fn revert(&mut self, moves: &Moves) {
        for step in &moves.0 {
            self.set_member(step.address, step.from);
        }
    }

    fn set_member(&mut self, address: IpAddr, class: Option<u32>) {
        match class {
            Some(class) => self.members.insert(address, class),
            None => self.members.remove(&address),
        };
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// A name with other addresses; `None` if no class has it.
    pub(super) fn resolved(&self, name: &str, addresses: &[IpAddr], until: Instant) -> Option<Name> {
        self.names.get(name).map(|known| Name { sets: known.sets, addresses: addresses.to_vec(), until })
    }

    pub(super) fn set_name(&mut self, name: &str, known: Name) {
        self.names.insert(name.to_owned(), known);
    }

    /// Fills a table that the batch has just made.
    pub(super) fn fill(&self, batch: &mut Batch) {
        if !self.judges {
            return;
        }
        batch.create_chain(Chain { name: FORWARD, kind: ChainKind::Filter, hook: Hook::Forward, priority: PRIORITY });
        batch.create_inner_chain(ALLOWED);
        batch.create_inner_chain(REFUSED);
        for (_, chain) in CLASSES {
            batch.create_inner_chain(chain);
        }
        for rule in self.rules() {
            batch.append_rule(&rule);
        }
        let all = Learnt { classes: self.classes.keys().copied().collect(), names: self.names() };
        self.fill_classes(&all, batch);
        let mut members: BTreeMap<(u32, bool), Vec<IpAddr>> = BTreeMap::new();
        for (address, class) in &self.members {
            members.entry((*class, address.is_ipv6())).or_default().push(*address);
        }
        for ((class, _), addresses) in members {
            let key = Key::of(addresses[0]);
            batch.add_elements(&class::members(class, key), addresses.into_iter().map(Element::address));
        }
    }

    fn rules(&self) -> Vec<Rule> {
        let from_client = || Rule::new(FORWARD).input(&self.tun);
        let mut rules = vec![
            Rule::new(FORWARD).input_not(&self.tun).accept(),
            // Answers to what was opened to a client, which its policy does not speak of.
            from_client().answer().accept(),
            from_client().established().connection_mark(self.mark()).accept(),
        ];
        for (key, chain) in CLASSES {
            let of_family = if key == Key::V4 { from_client().ipv4() } else { from_client().ipv6() };
            rules.push(of_family.jump(chain));
        }
        rules.push(from_client().drop("no class"));
        rules.push(Rule::new(ALLOWED).put_connection_mark(self.mark()));
        rules.push(Rule::new(ALLOWED).accept());
        let refused = || Rule::new(REFUSED);
        rules.push(refused().more_than(ANSWERS).drop("refused without an answer"));
        rules.push(refused().tcp().reset());
        rules.push(refused().prohibit());
        rules
    }

    /// Fills in classes and names that the table does not have yet.
    pub(super) fn fill_classes(&self, learnt: &Learnt, batch: &mut Batch) {
        let now = Instant::now();
        for name in learnt.names.iter().filter_map(|name| self.names.get(name)) {
            for key in Key::BOTH {
                batch.create_named_set(&Set { name: name.sets.of(key), key, holds: Holds::PassingAddresses });
            }
            name.fill(batch, now);
        }
        for class in learnt.classes.iter().filter_map(|number| self.classes.get(number)) {
            for (key, classes) in CLASSES {
                let chain = class::fill(class, key, |name| self.names.get(name).map(|name| name.sets), batch);
                let members = class::members(class.number, key);
                batch.create_named_set(&Set { name: members.clone(), key, holds: Holds::Addresses });
                batch.append_rule(&Rule::new(classes).source_in_set(key, &members).go_on_in(chain));
            }
        }
    }
}

impl Learnt {
    pub(super) fn is_empty(&self) -> bool {
        self.classes.is_empty() && self.names.is_empty()
    }
}

impl Moves {
    /// Takes addresses out of the sets of members and puts them into others.
    pub(super) fn fill(&self, batch: &mut Batch) {
        let mut sets: BTreeMap<String, (Vec<Element>, Vec<Element>)> = BTreeMap::new();
        for step in &self.0 {
            let set = |class| class::members(class, Key::of(step.address));
            if let Some(from) = step.from {
                sets.entry(set(from)).or_default().0.push(Element::address(step.address));
            }
            if let Some(to) = step.to {
                sets.entry(set(to)).or_default().1.push(Element::address(step.address));
            }
        }
        for (set, (leaving, coming)) in sets {
            batch.delete_elements(&set, leaving);
            batch.add_elements(&set, coming);
        }
    }
}

impl Name {
    /// Adds what is left of its time to its empty sets.
    fn fill(&self, batch: &mut Batch, now: Instant) {
        let left = self.until.saturating_duration_since(now);
        for key in Key::BOTH.into_iter().filter(|_| !left.is_zero()) {
            let of_family: BTreeSet<_> = self.addresses.iter().filter(|address| Key::of(**address) == key).collect();
            let elements = of_family.into_iter().map(|address| Element::address(*address).lasting(left));
            batch.add_elements(&self.sets.of(key), elements);
        }
    }

    /// Replaces what is in its sets.
    pub(super) fn refill(&self, batch: &mut Batch, now: Instant) {
        for key in Key::BOTH {
            batch.empty_set(&self.sets.of(key));
        }
        self.fill(batch, now);
    }
}
