//! How a client comes to its connection, and how that ends.

use std::time::Duration;

use adit_proto::esp::session::{EspSession, Setup};
use adit_proto::role::Role;
use adit_proto::waking::Awakening;

use crate::connection::{Connection, GATEWAY_GIVES_UP, Loss};
use crate::network::gateway;
use crate::promises::Kept;
use crate::scenario::Kind;
use crate::tunnel::{EspTunnel, RecordTerms, RecordTunnel};

use super::{Dial, World, place};

/// The pause before a client makes another connection, and how long that takes.
const DIAL_PAUSE: Duration = Duration::from_millis(100);
const DIAL_AGAIN: Duration = Duration::from_secs(1);
const HANDSHAKE: Duration = Duration::from_millis(80);
/// After how long a gateway ends a session whose client went away without a word.
pub(super) const ORPHAN_ENDS: Duration = Duration::from_secs(60);
/// The largest packet that either end may send.
const LARGEST_PACKET: u16 = 1438;

impl World {
    /// The client ends its session, and connects again.
    pub(crate) fn reconnect(&mut self) -> Kept {
        self.lose(Loss::AtClient)
    }

    /// Ends and makes connections; says whether one did.
    pub(super) fn follow_connection(&mut self) -> Kept<bool> {
        let now = self.now;
        if let Some(connection) = &mut self.connection
            && let Some(loss) = connection.handle_timeout(&self.network, self.asleep, now)
        {
            self.lose(loss)?;
            return Ok(true);
        }
        if self.orphaned.is_some_and(|since| now - since >= ORPHAN_ENDS) {
            self.close(Role::Server)?;
        }
        let is_tcp = self.settings.kind == Kind::Records;
        let (passes_udp, is_out) = (self.network.passes_udp(), self.asleep || self.network.unplugged);
        match self.dial {
            Some(Dial::Waits(at)) if now >= at && is_out => self.dial = Some(Dial::Waits(now + DIAL_AGAIN)),
            Some(Dial::Waits(at)) if now >= at => {
                self.dial = Some(Dial::Handshake { done: now + HANDSHAKE, over_tcp: !passes_udp || is_tcp });
            }
            Some(Dial::Handshake { done, over_tcp }) if now >= done => {
                if is_out || !over_tcp && !passes_udp {
                    self.dial = Some(Dial::Waits(now + DIAL_AGAIN));
                } else {
                    self.connect(over_tcp)?;
                    return Ok(true);
                }
            }
            Some(Dial::Waits(_) | Dial::Handshake { .. }) | None => {}
        }
        Ok(false)
    }

    pub(super) fn lose(&mut self, loss: Loss) -> Kept {
        match (loss, &mut self.connection) {
            (Loss::AtGateway, Some(connection)) => {
                connection.forget(self.now);
                self.close(Role::Server)
            }
            (Loss::AtGateway, None) => Ok(()),
            (Loss::AtClient, _) => {
                self.connection = None;
                self.dial.get_or_insert(Dial::Waits(self.now + DIAL_PAUSE));
                self.orphaned = self.tunnel(Role::Server).map(|_| self.now);
                self.close(Role::Client)
            }
        }
    }

    /// Ends an end's session.
    pub(super) fn close(&mut self, role: Role) -> Kept {
        if role == Role::Server {
            self.orphaned = None;
        }
        self.watches[place(role)].begin_anew();
        self.tunnels[place(role)].take().map_or(Ok(()), |tunnel| tunnel.close(self.now))
    }

    /// A connection is made, with a new session that takes the place of the gateway's old one.
    fn connect(&mut self, over_tcp: bool) -> Kept {
        for role in [Role::Client, Role::Server] {
            self.close(role)?;
        }
        (self.connection, self.dial) = (Some(Connection::new(over_tcp)), None);
        (self.awakening, self.received) = (Awakening::new(GATEWAY_GIVES_UP), 0);
        self.answers.clear();
        let secret: [u8; 32] = self.bytes();
        for role in [Role::Client, Role::Server] {
            self.tunnels[place(role)] = Some(match self.settings.kind {
                Kind::Esp => Box::new(self.esp_tunnel(role, secret)?),
                Kind::Records => Box::new(self.record_tunnel(role, secret)?),
            });
        }
        self.tell_interface();
        self.sessions += 1;
        self.ledger.tally.sessions += 1;
        Ok(())
    }

    fn esp_tunnel(&mut self, role: Role, mut secret: [u8; 32]) -> Kept<EspTunnel> {
        let (negotiated, policy) = (self.settings.negotiated, self.settings.policies[place(role)]);
        let (secret, seed) = (&mut secret, self.bytes());
        let setup = Setup { negotiated, secret, policy, largest_packet: LARGEST_PACKET, seed };
        let session = match role {
            Role::Client => EspSession::client(setup, gateway(), self.now),
            Role::Server => EspSession::server(setup, self.now),
        };
        EspTunnel::new(role, self.sessions, session, self.now)
    }

    fn record_tunnel(&mut self, role: Role, secret: [u8; 32]) -> Kept<RecordTunnel> {
        let suites = self.settings.record_suites.clone();
        RecordTunnel::new(RecordTerms { role, generation: self.sessions, secret, suites, seed: self.bytes() }, self.now)
    }

    fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.random.draw().to_le_bytes());
        }
        bytes
    }
}
