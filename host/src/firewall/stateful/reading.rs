//! What one listed rule does with a datagram of the gateway.

use crate::nft::{ListedElement, ListedExpression, ListedVerdict};

/// Numbers of the kernel's nftables machine (`include/uapi/linux/netfilter/nf_tables.h`).
mod key {
    pub(super) const META_INPUT: u32 = 4;
    pub(super) const META_OUTPUT: u32 = 5;
    pub(super) const META_INPUT_NAME: u32 = 6;
    pub(super) const META_OUTPUT_NAME: u32 = 7;
    pub(super) const META_PROTOCOL: u32 = 16;
    pub(super) const CT_STATE: u32 = 0;
    pub(super) const NETWORK_HEADER: u32 = 1;
    pub(super) const TRANSPORT_HEADER: u32 = 2;
}

const UDP: u8 = 17;
/// Bits of a connection's state, for nftables and for the match "conntrack" of iptables.
const ESTABLISHED: u32 = 2;
const NEW: u32 = 8;
const UNTRACKED: u32 = 64;
const UNTRACKED_IPTABLES: u32 = 256;

/// Whether something holds for a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    No,
    Maybe,
    Yes,
}

/// A datagram of the gateway that comes from outside, or leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Datagram {
    /// To this port.
    Incoming { port: u16 },
    /// From this port.
    Outgoing { port: u16 },
}

/// What connection tracking says of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    New,
    Established,
    Untracked,
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Continue,
    Accept,
    Drop,
    Return,
    Jump(String),
    GoTo(String),
}

/// What a register holds.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Loaded {
    /// These bytes.
    Known(Vec<u8>),
    /// The name or number of the link, which is not that of the loopback link given here.
    Link {
        loopback: Vec<u8>,
    },
    /// Something that an untracked datagram does not have.
    OfConnection,
    Unknown,
}

impl Answer {
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Maybe,
        }
    }

    /// What is left of this once `other` has taken its share.
    pub(super) fn unless(self, other: Self) -> Self {
        match other {
            Self::No => self,
            Self::Yes => Self::No,
            Self::Maybe => self.and(Self::Maybe),
        }
    }

    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
            Self::Yes => Self::No,
        }
    }
}

impl From<bool> for Answer {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl State {
    fn bit(self) -> u32 {
        match self {
            Self::New => NEW,
            Self::Established => ESTABLISHED,
            Self::Untracked => UNTRACKED,
        }
    }
}

/// Reads a rule: whether it matches the datagram, and what it does then.
pub(super) fn read(
    expressions: &[ListedExpression],
    datagram: Datagram,
    state: State,
    elements: impl Fn(&str) -> Option<Vec<ListedElement>>,
) -> (Answer, Verdict) {
    let mut reader = Reader { datagram, state, elements, registers: Vec::new(), verdict: Verdict::Continue };
    let matches = expressions.iter().map(|expression| reader.step(expression)).fold(Answer::Yes, Answer::and);
    (matches, reader.verdict)
}

struct Reader<E> {
    datagram: Datagram,
    state: State,
    elements: E,
    registers: Vec<(u32, Loaded)>,
    verdict: Verdict,
}

impl<E: Fn(&str) -> Option<Vec<ListedElement>>> Reader<E> {
    /// Does what an expression does, and tells whether the rule goes on behind it.
    fn step(&mut self, expression: &ListedExpression) -> Answer {
        let number = |attribute| expression.number(attribute);
        match expression.name.as_str() {
            "meta" if number(1).is_some() => self.load(number(1), self.meta(number(2))),
            "payload" if number(1).is_some() => self.load(number(1), self.payload(expression)),
            "ct" if number(1).is_some() => self.load(number(1), self.connection(number(2))),
            "bitwise" => self.mask(expression),
            "cmp" => self.compare(expression),
            "lookup" => self.look_up(expression),
            "immediate" => self.decide(expression.verdict().as_ref()),
            "reject" => self.decide(Some(&ListedVerdict::Drop)),
            "target" if expression.text(1) == "REJECT" => self.decide(Some(&ListedVerdict::Drop)),
            "match" => self.iptables_match(expression),
            "counter" | "log" | "notrack" | "target" | "meta" | "ct" | "payload" | "objref" | "last" => Answer::Yes,
            _ => self.forget(),
        }
    }

    fn load(&mut self, register: Option<u32>, loaded: Loaded) -> Answer {
        let register = register.unwrap_or_default();
        self.registers.retain(|(known, _)| *known != register);
        self.registers.push((register, loaded));
        Answer::Yes
    }

    fn loaded(&self, register: Option<u32>) -> &Loaded {
        let held = self.registers.iter().find(|(known, _)| Some(*known) == register);
        held.map_or(&Loaded::Unknown, |(_, loaded)| loaded)
    }

    /// An expression that is not understood may match or not, and may leave anything anywhere.
    fn forget(&mut self) -> Answer {
        self.registers.clear();
        Answer::Maybe
    }

    fn meta(&self, key: Option<u32>) -> Loaded {
        let incoming = matches!(self.datagram, Datagram::Incoming { .. });
        let index = || Loaded::Link { loopback: 1u32.to_ne_bytes().to_vec() };
        let name = || Loaded::Link { loopback: b"lo".to_vec() };
        match key {
            Some(key::META_PROTOCOL) => Loaded::Known(vec![UDP]),
            Some(key::META_INPUT) if incoming => index(),
            Some(key::META_INPUT_NAME) if incoming => name(),
            Some(key::META_OUTPUT) if !incoming => index(),
            Some(key::META_OUTPUT_NAME) if !incoming => name(),
            _ => Loaded::Unknown,
        }
    }

    /// The protocol in either IP header, and the gateway's port.
    fn payload(&self, expression: &ListedExpression) -> Loaded {
        let (base, offset, length) = (expression.number(2), expression.number(3), expression.number(4));
        match (base, offset, length, self.datagram) {
            (Some(key::NETWORK_HEADER), Some(9 | 6), Some(1), _) => Loaded::Known(vec![UDP]),
            (Some(key::TRANSPORT_HEADER), Some(0), Some(2), Datagram::Outgoing { port })
            | (Some(key::TRANSPORT_HEADER), Some(2), Some(2), Datagram::Incoming { port }) => {
                Loaded::Known(port.to_be_bytes().to_vec())
            }
            _ => Loaded::Unknown,
        }
    }

    fn connection(&self, key: Option<u32>) -> Loaded {
        if key == Some(key::CT_STATE) {
            Loaded::Known(self.state.bit().to_ne_bytes().to_vec())
        } else {
            Loaded::OfConnection
        }
    }

    fn mask(&mut self, expression: &ListedExpression) -> Answer {
        if expression.number(6).is_some_and(|operation| operation != 0) {
            return self.load(expression.number(2), Loaded::Unknown);
        }
        let masked = match (self.loaded(expression.number(1)), expression.data(4), expression.data(5)) {
            (Loaded::Known(bytes), Some(mask), Some(flips))
                if bytes.len() == mask.len() && mask.len() == flips.len() =>
            {
                let bits = bytes.iter().zip(mask).zip(flips);
                Loaded::Known(bits.map(|((byte, mask), flip)| (byte & mask) ^ flip).collect())
            }
            (Loaded::OfConnection, ..) => Loaded::OfConnection,
            _ => Loaded::Unknown,
        };
        self.load(expression.number(2), masked)
    }

    fn compare(&self, expression: &ListedExpression) -> Answer {
        let Some(value) = expression.data(3) else { return Answer::Maybe };
        match self.loaded(expression.number(1)) {
            Loaded::Known(bytes) => match expression.number(2) {
                Some(0) => (bytes.as_slice() == value).into(),
                Some(1) => (bytes.as_slice() != value).into(),
                Some(2) => (bytes.as_slice() < value).into(),
                Some(3) => (bytes.as_slice() <= value).into(),
                Some(4) => (bytes.as_slice() > value).into(),
                Some(5) => (bytes.as_slice() >= value).into(),
                _ => Answer::Maybe,
            },
            Loaded::Link { loopback } if is_padded(loopback, value) => Answer::from(expression.number(2) != Some(0)),
            Loaded::OfConnection => self.of_connection(),
            Loaded::Link { .. } | Loaded::Unknown => Answer::Maybe,
        }
    }

    fn of_connection(&self) -> Answer {
        if self.state == State::Untracked { Answer::No } else { Answer::Maybe }
    }

    /// Looks a register up in a set, or in a map of verdicts.
    fn look_up(&mut self, expression: &ListedExpression) -> Answer {
        let bytes = match self.loaded(expression.number(2)) {
            Loaded::Known(bytes) => bytes.clone(),
            Loaded::OfConnection => return self.of_connection(),
            Loaded::Link { .. } | Loaded::Unknown => return Answer::Maybe,
        };
        let Some(mut elements) = (self.elements)(&expression.text(1)) else { return Answer::Maybe };
        if elements.iter().any(|element| element.key.len() != bytes.len()) {
            return Answer::Maybe;
        }
        // In a set of ranges, each begins with an element and ends before one that is marked.
        let ranges = elements.iter().any(|element| element.ends);
        elements.sort_by(|a, b| a.key.cmp(&b.key));
        let found = elements.iter().rfind(|element| if ranges { element.key <= bytes } else { element.key == bytes });
        let found = found.filter(|element| !element.ends);
        if let Some(verdict) = found.and_then(|element| element.verdict.as_ref()) {
            self.decide(Some(verdict));
        }
        let inverted = expression.number(5) == Some(1);
        if inverted { Answer::from(found.is_some()).not() } else { found.is_some().into() }
    }

    fn decide(&mut self, verdict: Option<&ListedVerdict>) -> Answer {
        if let Some(verdict) = verdict {
            self.verdict = match verdict {
                ListedVerdict::Accept => Verdict::Accept,
                ListedVerdict::Drop => Verdict::Drop,
                ListedVerdict::Return => Verdict::Return,
                ListedVerdict::Jump(chain) => Verdict::Jump(chain.clone()),
                ListedVerdict::GoTo(chain) => Verdict::GoTo(chain.clone()),
                ListedVerdict::Other => Verdict::Continue,
            };
        }
        Answer::Yes
    }

    /// A match of iptables, in the layout of `include/uapi/linux/netfilter/xt_*.h`.
    fn iptables_match(&self, expression: &ListedExpression) -> Answer {
        let information = expression.value(3);
        let short = |at: usize| Some(u16::from_ne_bytes(information.get(at..at + 2)?.try_into().ok()?));
        let bit = match self.state {
            State::Untracked => UNTRACKED_IPTABLES,
            State::New | State::Established => self.state.bit(),
        };
        match expression.text(1).as_str() {
            "comment" => Answer::Yes,
            "tcp" | "icmp" | "icmp6" => Answer::No,
            "udp" => udp_match(information, self.datagram).unwrap_or(Answer::Maybe),
            "state" => {
                let mask = information.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
                mask.map_or(Answer::Maybe, |mask| (mask & bit != 0).into())
            }
            "conntrack" => {
                let (flags, inverted) = (short(146), short(148));
                let states = if expression.number(2) == Some(1) {
                    information.get(150).copied().map(u16::from)
                } else {
                    short(150)
                };
                let (Some(flags), Some(inverted), Some(states)) = (flags, inverted, states) else {
                    return Answer::Maybe;
                };
                let of_state = Answer::from((u32::from(states) & bit != 0) != (inverted & 1 != 0));
                match (flags & 1 != 0, flags & !1 != 0) {
                    (true, false) => of_state,
                    (true, true) => of_state.and(self.of_connection()),
                    (false, _) => self.of_connection(),
                }
            }
            _ => Answer::Maybe,
        }
    }
}

/// Whether a value is these bytes and zeros.
fn is_padded(bytes: &[u8], value: &[u8]) -> bool {
    value.strip_prefix(bytes).is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
}

/// `struct xt_udp`: the range of source ports, that of destination ports, and a flag to invert either.
fn udp_match(information: &[u8], datagram: Datagram) -> Option<Answer> {
    let short = |at: usize| Some(u16::from_ne_bytes(information.get(at..at + 2)?.try_into().ok()?));
    let (own, other, own_flag, port) = match datagram {
        Datagram::Outgoing { port } => (0, 4, 1, port),
        Datagram::Incoming { port } => (4, 0, 2, port),
    };
    let inverted = *information.get(8)?;
    let of_own = Answer::from((short(own)?..=short(own + 2)?).contains(&port) != (inverted & own_flag != 0));
    let any_other = short(other)? == 0 && short(other + 2)? == u16::MAX && inverted & (3 - own_flag) == 0;
    Some(of_own.and(if any_other { Answer::Yes } else { Answer::Maybe }))
}
