//! Firewalls of others that let in, or out, the packets of tracked connections only.
//!
//! The gateway's own datagrams are exempt from connection tracking, which keeps strangers from filling its table. A
//! hand-written firewall may know only tracked ones: `ct state new udp dport 443 accept`. Where one drops what is not
//! tracked and may accept what is, the gateway has its datagrams tracked after all.
//!
//! Rules are read, not tried. A match that is not understood may hold or not, whatever the state of the connection is;
//! in doubt the datagrams are tracked, which costs time but always works.

mod reading;

use std::io;

use super::foreign::family_name;
use super::table;
use crate::error::HostError;
use crate::nft::{FAMILY_INET, FAMILY_IPV4, FAMILY_IPV6, Hook, ListedChain, ListedRule, Socket};
use reading::{Answer, Datagram, State, Verdict};

/// Chains that are followed within each other; the kernel itself follows 16.
const DEEPEST: usize = 16;
/// Most rules that are looked at in one base chain and those it leads to. Whoever has more has Adit track.
const MOST_RULES: usize = 20_000;
/// `NF_IP_PRI_CONNTRACK`: chains before it see no state.
const CONNTRACK_PRIORITY: i32 = -200;

/// A verdict that may be final for a datagram, in the order in which the chain comes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    answer: Answer,
    accepts: bool,
}

/// A port of the gateway whose datagrams have to be tracked, because a chain of another program wants it so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackedPort {
    /// The port.
    pub port: u16,
    /// The chain, such as `"inet filter input"`.
    pub chain: String,
}

/// What was found when the ruleset was last looked at.
#[derive(Debug, Default)]
pub(crate) struct Tracking {
    generation: Option<u32>,
    wanted: Vec<TrackedPort>,
}

impl Tracking {
    /// As [`tracked_ports`]. The ruleset is read only if it changed.
    ///
    /// # Errors
    /// As [`tracked_ports`].
    pub(crate) fn wanted(&mut self, ports: &[u16]) -> Result<&[TrackedPort], HostError> {
        let failed = |source| HostError::system("read the firewall's chains", source);
        let generation = Socket::open().and_then(|socket| socket.generation()).map_err(failed)?;
        if self.generation != Some(generation) {
            self.wanted = tracked_ports(ports)?;
            self.generation = Some(generation);
        }
        Ok(&self.wanted)
    }
}

/// Finds chains that pass the gateway's datagrams only if they are tracked: for each of its ports the first one.
///
/// # Errors
/// Fails without `CAP_NET_ADMIN`, or when the kernel has no nftables.
pub fn tracked_ports(ports: &[u16]) -> Result<Vec<TrackedPort>, HostError> {
    let failed = |source| HostError::system("read the firewall's chains", source);
    let socket = Socket::open().map_err(failed)?;
    let mut found = Vec::new();
    for port in ports {
        let chain = chains_that_want_tracking(&socket, *port).map_err(failed)?.into_iter().next();
        found.extend(chain.map(|chain| TrackedPort { port: *port, chain }));
    }
    Ok(found)
}

/// The base chains (`"inet filter input"`) that pass a datagram from or to a port of the gateway if its connection is
/// tracked, but drop one that is not.
fn chains_that_want_tracking(socket: &Socket, port: u16) -> io::Result<Vec<String>> {
    let chains = socket.chains()?;
    let mut found = Vec::new();
    for base in chains.iter().filter(|chain| sees_states(chain)) {
        // Of a connection that comes in, the first datagram decides: who admits that admits the rest.
        let (datagram, state) = if base.hook == Some(Hook::Output as u32) {
            (Datagram::Outgoing { port }, State::Established)
        } else {
            (Datagram::Incoming { port }, State::New)
        };
        let walk = |state| Walk { socket, chains: &chains, base, datagram, state, steps: Vec::new() }.steps();
        if wants_tracking(&walk(state)?, &walk(State::Untracked)?, !base.drops) {
            found.push(format!("{} {} {}", family_name(base.family), base.table, base.name));
        }
    }
    Ok(found)
}

fn sees_states(chain: &ListedChain) -> bool {
    let hooks = [Hook::Prerouting, Hook::Input, Hook::Output].map(|hook| Some(hook as u32));
    [FAMILY_INET, FAMILY_IPV4, FAMILY_IPV6].contains(&chain.family)
        && !table::is_of_a_gateway(&chain.table)
        && hooks.contains(&chain.hook)
        && chain.priority > CONNTRACK_PRIORITY
        && !chain.is_nat
}

/// Whether untracked datagrams are dropped that pass when they are tracked. Both lists are of the same rules.
fn wants_tracking(tracked: &[Step], untracked: &[Step], policy_accepts: bool) -> bool {
    let passes = untracked.iter().find(|step| step.answer == Answer::Yes).map_or(policy_accepts, |step| step.accepts);
    if passes {
        return false;
    }
    let (with, without) = (acceptances(tracked, policy_accepts), acceptances(untracked, policy_accepts));
    with.iter().any(|place| !without.contains(place))
}

/// The places at which a datagram may be accepted; the policy's is behind the last.
fn acceptances(steps: &[Step], policy_accepts: bool) -> Vec<usize> {
    let end = steps.iter().position(|step| step.answer == Answer::Yes);
    let considered = &steps[..end.map_or(steps.len(), |end| end + 1)];
    let accepting = |(place, step): (usize, &Step)| (step.accepts && step.answer != Answer::No).then_some(place);
    let policy = (end.is_none() && policy_accepts).then_some(steps.len());
    considered.iter().enumerate().filter_map(accepting).chain(policy).collect()
}

/// Follows one datagram through a base chain and those it leads to.
struct Walk<'a> {
    socket: &'a Socket,
    chains: &'a [ListedChain],
    base: &'a ListedChain,
    datagram: Datagram,
    state: State,
    steps: Vec<Step>,
}

impl Walk<'_> {
    fn steps(mut self) -> io::Result<Vec<Step>> {
        self.follow(&self.base.name, Answer::Yes, 0)?;
        Ok(self.steps)
    }

    /// Goes through a chain that the datagram comes to, or may come to.
    fn follow(&mut self, chain: &str, comes: Answer, depth: usize) -> io::Result<()> {
        if depth == DEEPEST || !self.chains.iter().any(|known| self.is_of_table(known) && known.name == chain) {
            return Ok(());
        }
        let mut comes = comes;
        for rule in self.socket.rules(self.base.family, &self.base.table, chain)? {
            if self.steps.len() >= MOST_RULES {
                return Ok(());
            }
            comes = self.obey(&rule, comes, depth)?;
        }
        Ok(())
    }

    /// Does what a rule says, and tells whether the datagram comes to the next one.
    fn obey(&mut self, rule: &ListedRule, comes: Answer, depth: usize) -> io::Result<Answer> {
        let elements = |set: &str| self.socket.elements(self.base.family, &self.base.table, set).ok();
        let (matches, verdict) = reading::read(&rule.expressions, self.datagram, self.state, elements);
        let here = comes.and(matches);
        match verdict {
            Verdict::Continue => Ok(comes),
            Verdict::Accept | Verdict::Drop => {
                self.steps.push(Step { answer: here, accepts: verdict == Verdict::Accept });
                Ok(comes)
            }
            Verdict::Return => Ok(comes.unless(here)),
            Verdict::Jump(chain) => {
                self.follow(&chain, here, depth + 1)?;
                Ok(comes)
            }
            Verdict::GoTo(chain) => {
                self.follow(&chain, here, depth + 1)?;
                Ok(comes.unless(here))
            }
        }
    }

    fn is_of_table(&self, chain: &ListedChain) -> bool {
        chain.family == self.base.family && chain.table == self.base.table
    }
}

#[cfg(test)]
mod tests;
