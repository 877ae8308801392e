//! A client whose host sleeps, and what it does when that wakes.

use std::time::Duration;

use adit_proto::role::Role;
use adit_proto::waking::WakeEvent;

use crate::connection::{Loss, ROUND_TRIP};
use crate::moments::Moments;
use crate::promises::{Kept, broken};

use super::World;

/// What it takes to make another connection and to prove a slow path.
const FLOWS_WITHIN: Duration = Duration::from_millis(2500);

impl World {
    /// The client's host sleeps for so long.
    pub(crate) fn sleep(&mut self, time: Duration, told: bool, gateway_sends: bool) -> Kept {
        self.asleep = true;
        if gateway_sends {
            self.busy(time.min(Duration::from_secs(5)), Duration::from_millis(250), &[Role::Server], false)?;
        }
        self.run(time)?;
        self.asleep = false;
        self.begin_watching_anew();
        if let Some(connection) = &mut self.connection {
            connection.wake();
        }
        if told { self.wake(time) } else { Ok(()) }
    }

    /// The client's host wakes after so long.
    fn wake(&mut self, slept: Duration) -> Kept {
        self.awakening.handle_wake(slept, ROUND_TRIP, self.now);
        self.follow_awakening()
    }

    /// Hears answers of the gateway, and does what the machine wants.
    pub(super) fn follow_awakening(&mut self) -> Kept {
        while self.answers.pop_front_if(|at| *at <= self.now).is_some() {
            self.received += 1;
        }
        self.awakening.handle_timeout(self.received, self.now);
        while let Some(event) = self.awakening.poll_event() {
            match event {
                WakeEvent::Probe => {
                    self.rebind()?;
                    self.ask();
                }
                WakeEvent::Ask => self.ask(),
                WakeEvent::GiveUp if self.connection.is_some() => self.lose(Loss::AtClient)?,
                WakeEvent::GiveUp => {}
            }
        }
        Ok(())
    }

    /// Asks the gateway for a sign of life.
    fn ask(&mut self) {
        if let Some(connection) = &mut self.connection
            && connection.is_answered(&self.network)
        {
            self.answers.push_back(self.now + ROUND_TRIP);
        }
    }

    /// Packets flow again soon after a host woke, by whatever carrier.
    pub(crate) fn expect_awake(&mut self) -> Kept {
        let both = [Role::Client, Role::Server];
        self.busy(FLOWS_WITHIN, Duration::from_millis(100), &both, false)?;
        let sent = [self.send_packet(Role::Client, false)?, self.send_packet(Role::Server, false)?];
        self.run(Duration::from_secs(1))?;
        let arrived = sent.map(|packet| packet.is_some_and(|packet| self.ledger.fate(packet).0));
        if arrived != [true; 2] {
            return broken("packets flow again soon after the host woke", &arrived);
        }
        Ok(())
    }
}
