//! What a login is worth.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_host::PolicyClass;
use adit_proto::address_pool::Lease;
use adit_proto::packet::icmp::GatewayAddresses;
use adit_proto::policy::{Class, DestinationPolicy, Hours, Quota, QuotaAction, Rate, SecondFactor, WhenFull};
use ipnet::IpNet;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::policy::Policy;
use crate::config::Config;

/// What the device of one session was given.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Its inner addresses, for as long as the session lives.
    pub lease: Lease,
    /// Everything else, which an order may change.
    pub terms: Arc<Terms>,
}

/// What a session may do. Sessions on the same terms share them.
#[derive(Debug)]
pub struct Terms {
    /// Prefixes it is told to send to the gateway.
    pub routes: Vec<IpNet>,
    /// The resolvers it is told to ask.
    pub dns: Resolvers,
    /// Where its packets may go, whatever the rules of the policy say.
    pub policy: Arc<Policy>,
    /// Which rules of the gateway's policy it meets.
    pub class: Class,
    /// These rules as the kernel gets them; `None` on a gateway without a policy.
    pub rules: Option<Arc<PolicyClass>>,
    /// Bounds of what it may do. The largest packet is that of its first terms for the whole of its life.
    pub limits: SessionLimits,
}

/// The resolvers of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolvers {
    /// Their addresses; empty leaves the client's own in place.
    pub servers: Vec<IpAddr>,
    /// Domains they answer for; empty means every name.
    pub domains: Vec<String>,
}

/// Bounds of what one session may do. What is `None` has no bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionLimits {
    /// Largest packet it may send or receive, in bytes.
    pub largest_packet: u16,
    /// Most that it sends.
    pub rate_up: Option<Rate>,
    /// Most that it receives.
    pub rate_down: Option<Rate>,
    /// Most that its user moves in each period.
    pub quota: Option<Quota>,
    /// What happens to who has used up the quota.
    pub quota_action: QuotaAction,
    /// How many sessions its user has at a time.
    pub sessions: Option<SessionsOfUser>,
    /// How long it may carry no packet.
    pub idle_timeout: Option<Duration>,
    /// How long after the login it ends; `None` leaves that to the configuration.
    pub session_lifetime: Option<Duration>,
    /// When it may be open.
    pub hours: Option<OpenHours>,
    /// When a login needs a second factor; `None` leaves that to the configuration.
    pub second_factor: Option<SecondFactor>,
}

/// How many sessions one user has at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionsOfUser {
    /// The most there are.
    pub most: usize,
    /// What happens to who opens one more.
    pub when_full: WhenFull,
}

/// Hours of the week, and the clocks that show them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenHours {
    hours: Hours,
    /// `None` where this host does not know the zone any longer: then it is never one of them.
    zone: Option<TimeZone>,
}

impl OpenHours {
    /// Looks the time zone up.
    pub fn new(hours: Hours) -> Self {
        let zone = TimeZone::get(hours.zone())
            .inspect_err(|error| tracing::error!(%error, zone = hours.zone(), "no session is open in these hours"))
            .ok();
        Self { hours, zone }
    }

    /// Tells whether a moment is one of them.
    pub fn contain(&self, clock: SystemTime) -> bool {
        let (Some(zone), Ok(moment)) = (&self.zone, Timestamp::try_from(clock)) else { return false };
        let shown = zone.to_datetime(moment);
        let weekday = usize::try_from(shown.weekday().to_monday_zero_offset());
        let minute = u16::try_from(i32::from(shown.hour()) * 60 + i32::from(shown.minute()));
        weekday.ok().zip(minute.ok()).is_some_and(|(weekday, minute)| self.hours.contain(weekday, minute))
    }
}

impl SessionLimits {
    /// No bound but the largest packet.
    pub fn unlimited(largest_packet: u16) -> Self {
        Self {
            largest_packet,
            rate_up: None,
            rate_down: None,
            quota: None,
            quota_action: QuotaAction::Block,
            sessions: None,
            idle_timeout: None,
            session_lifetime: None,
            hours: None,
            second_factor: None,
        }
    }
}

impl Terms {
    /// Makes terms that allow what they advertise, and there only what `destinations` allow.
    pub fn new(routes: Vec<IpNet>, dns: Resolvers, destinations: DestinationPolicy, limits: SessionLimits) -> Self {
        let policy = Arc::new(Policy::new(destinations, &routes));
        Self { routes, dns, policy, class: Class::default(), rules: None, limits }
    }

    /// The terms of who is in no group, as the gateway is configured; `own` are its addresses in the pools.
    pub fn of(config: &Config, own: GatewayAddresses) -> Self {
        let dns = Resolvers { servers: config.dns.servers.clone(), domains: config.dns.domains.clone() };
        let routes = config.routes.iter().copied().chain(Self::always_advertised(config, own)).collect();
        Self::new(routes, dns, Self::destinations(config, own), SessionLimits::unlimited(config.tun.mtu))
    }

    /// The gateway itself, and the other clients where they may be reached.
    pub(super) fn always_advertised(config: &Config, own: GatewayAddresses) -> Vec<IpNet> {
        let gateway = own.v4.map(IpAddr::V4).into_iter().chain(own.v6.map(IpAddr::V6)).map(IpNet::from);
        let pools = config.pool.v4.map(IpNet::V4).into_iter().chain(config.pool.v6.map(IpNet::V6));
        gateway.chain(pools.filter(|_| config.client_to_client)).collect()
    }

    pub(super) fn destinations(config: &Config, own: GatewayAddresses) -> DestinationPolicy {
        DestinationPolicy {
            pool_v4: config.pool.v4,
            pool_v6: config.pool.v6,
            gateway: own,
            client_to_client: config.client_to_client,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_those_of_the_zones_clocks_in_summer_and_winter() {
        let hours = OpenHours::new("Mon-Fri 07:00-20:00 Europe/Berlin".parse().unwrap());
        let at = |text: &str| hours.contain(humantime::parse_rfc3339(text).unwrap());
        assert!(at("2026-01-05T06:00:00Z") && !at("2026-01-05T05:59:59Z"), "Monday, UTC+1");
        assert!(at("2026-07-06T05:00:00Z") && !at("2026-07-06T04:59:59Z"), "Monday, UTC+2");
        assert!(at("2026-07-10T17:59:59Z") && !at("2026-07-10T18:00:00Z") && !at("2026-07-11T12:00:00Z"));
    }

    #[test]
    fn hours_of_a_zone_that_is_gone_are_never() {
        let hours = OpenHours::new("Mon-Sun 00:00-24:00 Europe/Atlantis".parse().unwrap());
        assert!(!hours.contain(SystemTime::UNIX_EPOCH));
        assert!(OpenHours::new("Mon-Sun 00:00-24:00 UTC".parse().unwrap()).contain(SystemTime::UNIX_EPOCH));
    }
}
