//! What happens in a world, drawn from a seed.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use adit_netem::random::Random;
use adit_netem::{Link, LinkDirection};
use adit_proto::dtls::suite::CipherSuite;
use adit_proto::esp::capsule::Group;
use adit_proto::esp::field::Answer;
use adit_proto::esp::lifetime::RekeyPolicy;
use adit_proto::esp::session::Hints;
use adit_proto::role::Role;
use adit_proto::sealing::suite::Suite;

use crate::moments::Moments;
use crate::nat::Nat;
use crate::network::{Attack, WIDE, way};
use crate::promises::{Broken, Kept, Tally};
use crate::world::World;

/// Things that happen in a scenario: that many and fewer than that.
const EVENTS: (u64, u64) = (5, 20);

/// Sizes of datagrams that networks take; the last two are too small for ESP.
const SIZES: [usize; 7] = [WIDE, 1452, 1412, 1372, 1320, 1300, 1000];

/// Milliseconds in which an end that goes on sending what gets lost has to notice, whatever the reason.
const LONG: u64 = 35_000;

/// Something that happens. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nobody sends packets.
    Pause(u64),
    /// These ends send packets, the largest that they may or small ones.
    Busy { time: u64, every: u64, client: bool, gateway: bool, full: bool },
    /// The network gets another quality.
    Quality(Quality),
    /// UDP passes or does not, up and down.
    Block { up: bool, down: bool },
    /// Nothing passes, or all does.
    Unplug(bool),
    /// The largest datagrams that pass have another size; the client's system says so, or not.
    Size { up: usize, down: usize, refuses: bool },
    /// Datagrams with a mark get lost.
    DropMarks { up: bool, down: bool },
    /// The NAT forgets everything.
    RestartNat,
    /// The NAT has another address.
    MoveNat(u8),
    /// The NAT forgets what was not used for so many seconds.
    HastyNat(u64),
    /// The client is somewhere else, behind a NAT or not, and hears of it or not.
    Move { to: u8, nat: bool, told: bool },
    /// The client hears of a change that is none.
    Rebind,
    /// The client's host sleeps.
    Sleep { time: u64, told: bool, gateway_sends: bool },
    /// The gateway is killed and started again.
    RestartGateway,
    /// The client ends its session and begins another.
    Reconnect,
    /// The packet path of an end wants new keys, or doubts the path.
    Hint { client: bool, rekey: bool, doubt: bool },
    /// An end leaves out more numbers of its key than its peer remembers.
    Skip { client: bool },
    /// The attacker sends what it saw so many datagrams ago, in its own name or another's.
    Attack { attack: Attack, up: bool, back: usize, own_name: bool },
    /// The attacker holds back so many datagrams and sends them in its own name.
    Steal { up: bool, count: u32 },
    /// The attacker forwards to the client what the gateway sends to the attacker.
    Relay(bool),
}

/// How good a network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quality {
    Good,
    Home,
    Slow,
    Lossy,
    Awful,
}

impl Quality {
    const ALL: [Self; 5] = [Self::Good, Self::Home, Self::Slow, Self::Lossy, Self::Awful];

    fn link(self) -> Link {
        let link = |delay_ms, jitter_ms| Link { delay_ms, jitter_ms, ..Link::default() };
        match self {
            Self::Good => link(1.0, 0.0),
            Self::Home => Link { duplicate_percent: 1.0, ..link(12.0, 4.0) },
            Self::Slow => Link { reorder_percent: 5.0, reorder_ms: 40.0, ..link(150.0, 40.0) },
            Self::Lossy => Link {
                loss_percent: 5.0,
                loss_burst_packets: Some(3.0),
                reorder_percent: 5.0,
                reorder_ms: 20.0,
                duplicate_percent: 3.0,
                corrupt_percent: 1.0,
                ..link(30.0, 40.0)
            },
            Self::Awful => Link {
                loss_percent: 30.0,
                loss_burst_packets: Some(5.0),
                reorder_percent: 10.0,
                reorder_ms: 300.0,
                duplicate_percent: 10.0,
                corrupt_percent: 3.0,
                ..link(250.0, 200.0)
            },
        }
    }
}

/// How packets go in datagrams, if they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// By ESP, beside CONNECT-IP.
    Esp,
    /// In records of DTLS, beside AnyConnect's channel.
    Records,
}

/// What a scenario begins with.
pub(crate) struct Settings {
    pub(crate) kind: Kind,
    /// The suites of DTLS at both ends.
    pub(crate) record_suites: Vec<CipherSuite>,
    pub(crate) negotiated: Answer,
    pub(crate) policies: [RekeyPolicy; 2],
    pub(crate) client: SocketAddr,
    pub(crate) network_seed: u64,
    has_nat: bool,
}

impl Settings {
    fn draw(random: &mut Random) -> Self {
        let suite = pick(random, &Suite::ALL);
        let group = pick(random, &[Group::X25519, Group::X25519, Group::X25519MlKem768]);
        let policies = [(); 2].map(|()| {
            let usual = RekeyPolicy::default();
            let short = RekeyPolicy { after: Duration::from_secs(4), ..usual };
            let few = RekeyPolicy { packets: 400, ..usual };
            pick(random, &[usual, usual, short, few])
        });
        Self {
            kind: pick(random, &[Kind::Esp, Kind::Esp, Kind::Esp, Kind::Records]),
            record_suites: vec![pick(random, &CipherSuite::PSK)],
            negotiated: Answer { suite, group, vouched: random.chance(0.5) },
            policies,
            client: client_at(0, true),
            network_seed: random.draw(),
            has_nat: random.chance(0.7),
        }
    }

    pub(crate) fn nat(&self) -> Option<Nat> {
        self.has_nat.then(|| nat_at(0))
    }

    /// After how long keys are replaced at the latest.
    pub(crate) fn shortest_life(&self) -> Duration {
        self.policies[0].after.min(self.policies[1].after)
    }
}

/// The client's own address in one of several networks, with a NAT or without.
fn client_at(network: u8, nat: bool) -> SocketAddr {
    let address: IpAddr = match (nat, network % 2) {
        (true, _) => [192, 168, network, 2].into(),
        (false, 0) => [198, 51, 100, network].into(),
        (false, _) => [0x2001, 0xdb8, u16::from(network), 0, 0, 0, 0, 7].into(),
    };
    SocketAddr::new(address, 40_000 + u16::from(network))
}

/// The NAT of one of several networks.
fn nat_at(network: u8) -> Nat {
    Nat::new([203, 0, 113, network].into(), Duration::from_secs(120))
}

/// Everything that happens to a client and its gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) events: Vec<Event>,
}

/// What came of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Course {
    /// All that happened, in one number.
    pub(crate) digest: u64,
    pub(crate) tally: Tally,
    /// How much time passed in it.
    pub(crate) elapsed: Duration,
}

impl Scenario {
    /// The scenario of a seed.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed, "events");
        let count = EVENTS.0 + random.draw() % (EVENTS.1 - EVENTS.0);
        let events = (0..count).flat_map(|_| [draw_event(&mut random), draw_time(&mut random)]).collect();
        Self { seed, events }
    }

    /// Lets it happen.
    ///
    /// # Errors
    /// If a promise is not kept. A panic counts as one.
    pub(crate) fn run(&self) -> Kept<Course> {
        catch_unwind(AssertUnwindSafe(|| self.unfold())).unwrap_or_else(|panic| {
            Err(Broken { promise: "no input makes a machine panic", detail: message(panic.as_ref()) })
        })
    }

    fn unfold(&self) -> Kept<Course> {
        let mut random = Random::new(self.seed, "world");
        let settings = Settings::draw(&mut random);
        let quality = pick(&mut random, &Quality::ALL);
        let mut world = World::new(settings, random);
        world.network.set_link(&quality.link());
        for event in &self.events {
            event.happen(&mut world)?;
        }
        world.come_to_rest()?;
        Ok(Course { digest: world.digest(), tally: world.tally(), elapsed: world.elapsed() })
    }

    /// The fewest of its events that break the same promise, in the same order.
    pub(crate) fn shrink(&self, broken: &Broken) -> Self {
        let mut smallest = self.clone();
        let mut at = 0;
        let mut began_with = smallest.events.len();
        while at < smallest.events.len() {
            let mut fewer = smallest.clone();
            fewer.events.remove(at);
            if fewer.run().is_err_and(|other| other.promise == broken.promise) {
                smallest = fewer;
            } else {
                at += 1;
            }
            if at == smallest.events.len() && smallest.events.len() < began_with {
                (at, began_with) = (0, smallest.events.len());
            }
        }
        smallest
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words").to_owned()
}

fn pick<T: Copy>(random: &mut Random, from: &[T]) -> T {
    let at = random.draw() % u64::try_from(from.len()).expect("a small number");
    from[usize::try_from(at).expect("a small number")]
}

fn below(random: &mut Random, limit: u64) -> u64 {
    random.draw() % limit
}

/// Time that passes between two events.
fn draw_time(random: &mut Random) -> Event {
    if random.chance(0.3) {
        let longest = pick(random, &[50, 2_000, 20_000, 70_000]);
        return Event::Pause(below(random, longest));
    }
    let ends = pick(random, &[(true, true), (true, true), (true, false), (false, true)]);
    let time = pick(random, &[300, 1_500, 3_000, 6_000, LONG]);
    let every = if time == LONG { 400 } else { pick(random, &[15, 60, 250, 400]) };
    Event::Busy { time, every, client: ends.0, gateway: ends.1, full: random.chance(0.3) }
}

fn draw_event(random: &mut Random) -> Event {
    let yes = |random: &mut Random| random.chance(0.5);
    match below(random, 25) {
        0 | 1 => Event::Quality(pick(random, &Quality::ALL)),
        2 => Event::Block { up: true, down: true },
        3 => Event::Block { up: yes(random), down: yes(random) },
        4 => Event::Block { up: false, down: false },
        5 => Event::Unplug(yes(random)),
        6 => Event::Unplug(false),
        7 => Event::Size { up: pick(random, &SIZES), down: pick(random, &SIZES), refuses: yes(random) },
        8 => Event::Size { up: WIDE, down: WIDE, refuses: false },
        9 => Event::DropMarks { up: yes(random), down: yes(random) },
        10 => Event::RestartNat,
        11 => Event::MoveNat(u8::try_from(below(random, 4)).expect("a small number")),
        12 => Event::HastyNat(pick(random, &[3, 10, 20, 60])),
        13 | 14 => {
            let to = u8::try_from(1 + below(random, 6)).expect("a small number");
            Event::Move { to, nat: yes(random), told: random.chance(0.7) }
        }
        15 => Event::Rebind,
        16 => {
            let time = pick(random, &[3_000, 12_000, 45_000, 200_000, 28_800_000]);
            Event::Sleep { time, told: yes(random), gateway_sends: yes(random) }
        }
        17 => Event::RestartGateway,
        18 => Event::Reconnect,
        19 => Event::Hint { client: yes(random), rekey: yes(random), doubt: yes(random) },
        20 | 21 => {
            let attack = pick(random, &[Attack::Replay, Attack::Replay, Attack::Forge, Attack::Reflect]);
            let back = usize::try_from(below(random, 24)).expect("a small number");
            Event::Attack { attack, up: yes(random), back, own_name: yes(random) }
        }
        22 => Event::Skip { client: yes(random) },
        23 => Event::Steal { up: random.chance(0.8), count: 1 + u32::try_from(below(random, 3)).expect("small") },
        _ => Event::Relay(random.chance(0.8)),
    }
}

impl Event {
    fn happen(self, world: &mut World) -> Kept {
        match self {
            Self::Pause(time) => world.run(Duration::from_millis(time)),
            Self::Busy { time, every, client, gateway, full } => {
                let ends = [client.then_some(Role::Client), gateway.then_some(Role::Server)];
                let ends: Vec<Role> = ends.into_iter().flatten().collect();
                world.busy(Duration::from_millis(time), Duration::from_millis(every), &ends, full)
            }
            Self::Move { to, nat, told } => {
                let was_well = world.is_well();
                world.network.client = client_at(to, nat);
                world.network.nat = nat.then(|| nat_at(to));
                world.begin_watching_anew();
                if told {
                    world.rebind()?;
                }
                if told && was_well { world.expect_moved() } else { Ok(()) }
            }
            Self::Rebind => world.rebind(),
            Self::Sleep { time, told, gateway_sends } => {
                let was_well = told && world.is_well();
                world.sleep(Duration::from_millis(time), told, gateway_sends)?;
                if was_well { world.expect_awake() } else { Ok(()) }
            }
            Self::RestartGateway => {
                let was_well = world.is_well();
                world.restart_gateway();
                if was_well { world.expect_returned() } else { Ok(()) }
            }
            Self::Reconnect => world.reconnect(),
            Self::Hint { client, rekey, doubt } => {
                let role = if client { Role::Client } else { Role::Server };
                world.hint(role, Hints { rekey, doubt, ..Hints::default() })
            }
            Self::Skip { client } => world.skip_numbers(if client { Role::Client } else { Role::Server }),
            Self::Attack { attack, up, back, own_name } => {
                world.network.attack(attack, direction(up), back, own_name, world.now);
                // What an attacker carries past a block may prove a path.
                world.begin_watching_anew();
                Ok(())
            }
            Self::Quality(_)
            | Self::Block { .. }
            | Self::Unplug(_)
            | Self::Size { .. }
            | Self::DropMarks { .. }
            | Self::RestartNat
            | Self::MoveNat(_)
            | Self::HastyNat(_)
            | Self::Steal { .. }
            | Self::Relay(_) => {
                self.change_network(world);
                world.begin_watching_anew();
                world.tell_interface();
                Ok(())
            }
        }
    }

    fn change_network(self, world: &mut World) {
        let network = &mut world.network;
        match (self, &mut network.nat) {
            (Self::Quality(quality), _) => network.set_link(&quality.link()),
            (Self::Block { up, down }, _) => network.blocked = [up, down],
            (Self::Unplug(unplugged), _) => network.unplugged = unplugged,
            (Self::Size { up, down, refuses }, _) => (network.largest, network.refuses) = ([up, down], refuses),
            (Self::DropMarks { up, down }, _) => network.drops_marks = [up, down],
            (Self::RestartNat, Some(nat)) => nat.restart(),
            (Self::MoveNat(to), Some(nat)) => {
                nat.restart();
                nat.address = [203, 0, 113, 100 + to].into();
            }
            (Self::HastyNat(seconds), Some(nat)) => nat.timeout = Duration::from_secs(seconds),
            (Self::Steal { up, count }, _) => network.steals[way(direction(up))] = count,
            (Self::Relay(relays), _) => network.relays = relays,
            (_, _) => {}
        }
    }
}

const fn direction(up: bool) -> LinkDirection {
    if up { LinkDirection::Up } else { LinkDirection::Down }
}
