//! What servers are told of one session at one moment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_net::carrier::counters::Traffic;
use adit_proto::radius::attribute::{
    ACCT_DELAY_TIME, ACCT_INPUT_GIGAWORDS, ACCT_INPUT_OCTETS, ACCT_INPUT_PACKETS, ACCT_OUTPUT_GIGAWORDS,
    ACCT_OUTPUT_OCTETS, ACCT_OUTPUT_PACKETS, ACCT_SESSION_ID, ACCT_SESSION_TIME, ACCT_STATUS_TYPE,
    ACCT_TERMINATE_CAUSE, CALLING_STATION_ID, EVENT_TIMESTAMP, FRAMED_IP_ADDRESS, FRAMED_IPV6_ADDRESS, NAS_PORT_TYPE,
    USER_NAME, VIRTUAL,
};
use adit_proto::radius::request::{DoesNotFit, Draft};
use serde::{Deserialize, Serialize};

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Unix time at which it was so.
    pub(super) at: u64,
    pub(super) event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Event {
    /// The gateway begins: whatever sessions a server knows of are over.
    GatewayBegins,
    /// A session begins.
    Start(SessionFacts),
    /// It goes on.
    Interim(SessionFacts, Sums),
    /// It has ended, for this reason (RFC 2866 section 5.10).
    Stop(SessionFacts, Sums, u32),
}

/// What does not change while a session lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SessionFacts {
    /// Its name, which no other session ever has.
    pub(super) name: String,
    pub(super) user: String,
    /// The client's outer address.
    pub(super) remote: IpAddr,
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
}

/// What a session adds up to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sums {
    pub(super) seconds: u64,
    pub(super) rx_bytes: u64,
    pub(super) rx_packets: u64,
    pub(super) tx_bytes: u64,
    pub(super) tx_packets: u64,
}

impl Sums {
    pub(super) fn new(seconds: u64, traffic: &Traffic) -> Self {
        let Traffic { rx_bytes, rx_packets, tx_bytes, tx_packets, .. } = *traffic;
        Self { seconds, rx_bytes, rx_packets, tx_bytes, tx_packets }
    }

    /// Bytes count on in a second attribute; packets begin again at zero.
    fn write(&self, draft: Draft) -> Result<Draft, DoesNotFit> {
        draft
            .number(ACCT_SESSION_TIME, u32::try_from(self.seconds).unwrap_or(u32::MAX))?
            .number(ACCT_INPUT_OCTETS, low(self.rx_bytes))?
            .number(ACCT_INPUT_GIGAWORDS, high(self.rx_bytes))?
            .number(ACCT_INPUT_PACKETS, low(self.rx_packets))?
            .number(ACCT_OUTPUT_OCTETS, low(self.tx_bytes))?
            .number(ACCT_OUTPUT_GIGAWORDS, high(self.tx_bytes))?
            .number(ACCT_OUTPUT_PACKETS, low(self.tx_packets))
    }
}

impl SessionFacts {
    fn write(&self, draft: Draft) -> Result<Draft, DoesNotFit> {
        let mut draft = draft
            .text(ACCT_SESSION_ID, &self.name)?
            .text(USER_NAME, &self.user)?
            .text(CALLING_STATION_ID, &self.remote.to_string())?
            .number(NAS_PORT_TYPE, VIRTUAL)?;
        if let Some(v4) = self.v4 {
            draft = draft.bytes(FRAMED_IP_ADDRESS, &v4.octets())?;
        }
        if let Some(v6) = self.v6 {
            draft = draft.bytes(FRAMED_IPV6_ADDRESS, &v6.octets())?;
        }
        Ok(draft)
    }
}

impl Record {
    /// Writes it into a request that is sent at `now`, in Unix time.
    pub(super) fn write(&self, draft: Draft, now: u64) -> Result<Draft, DoesNotFit> {
        let late = u32::try_from(now.saturating_sub(self.at)).unwrap_or(u32::MAX);
        let draft = draft
            .number(ACCT_STATUS_TYPE, self.event.status())?
            .number(EVENT_TIMESTAMP, low(self.at))?
            .number(ACCT_DELAY_TIME, late)?;
        match &self.event {
            Event::GatewayBegins => draft.text(ACCT_SESSION_ID, "gateway"),
            Event::Start(session) => session.write(draft),
            Event::Interim(session, sums) => sums.write(session.write(draft)?),
            Event::Stop(session, sums, cause) => {
                sums.write(session.write(draft)?)?.number(ACCT_TERMINATE_CAUSE, *cause)
            }
        }
    }
}

impl Event {
    /// Acct-Status-Type (RFC 2866 section 5.1).
    fn status(&self) -> u32 {
        match self {
            Self::Start(_) => 1,
            Self::Stop(..) => 2,
            Self::Interim(..) => 3,
            Self::GatewayBegins => 7,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "these are the low 32 bits")]
fn low(number: u64) -> u32 {
    number as u32
}

fn high(number: u64) -> u32 {
    (number >> 32) as u32
}
