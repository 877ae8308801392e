//! The texts in a policy.

use std::fmt::{Debug, Display};
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use crate::policy::attempt::domain;
use crate::policy::{Attempt, FormError, Hours, Member, Place, PortMatch, Quota, QuotaAction, Rate};

/// Every line is tried as each text that a policy holds. What is taken survives being shown, and what is refused has a
/// next step. Services mean the same once they are merged.
pub fn policy_text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (mut attempts, mut services) = (Vec::new(), Vec::new());
    for line in text.lines() {
        attempts.extend(shown::<Attempt>(line));
        services.extend(shown::<PortMatch>(line));
        shown::<Rate>(line);
        read::<Quota>(line);
        read::<QuotaAction>(line);
        read::<Member>(line);
        if let Some(hours) = read::<Hours>(line) {
            let week = (0..7).flat_map(|day| (0..24 * 60).map(move |minute| (day, minute)));
            assert!(week.into_iter().any(|(day, minute)| hours.contain(day, minute)), "they are never");
        }
        if let Some(name) = domain(line) {
            assert_eq!(domain(&name), Some(name), "it has one form");
        }
    }
    let merged = PortMatch::merged(&services);
    for attempt in attempts {
        let destination = match attempt.to {
            Place::Address(address) => address,
            Place::Name(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        let flow = attempt.flow(destination);
        let is_one = |services: &[PortMatch]| services.iter().any(|service| service.matches(&flow, false));
        assert_eq!(is_one(&services), is_one(&merged));
    }
}

fn read<T: FromStr<Err = FormError>>(text: &str) -> Option<T> {
    let read = text.parse();
    if let Err(FormError { reason, next }) = &read {
        assert!(!reason.is_empty() && !next.is_empty());
    }
    read.ok()
}

fn shown<T: FromStr<Err = FormError> + Display + Debug + PartialEq>(text: &str) -> Option<T> {
    let read = read::<T>(text)?;
    assert_eq!(read.to_string().parse().as_ref(), Ok(&read));
    Some(read)
}
