//! Puts connection errors into the life cycle's terms and into words with a next step.

use std::io;

use adit_program::exit::Failure;
use adit_program::rights::Capability;

use crate::protocols::ConnectError;
use crate::state::Obstacle;

/// What kind of obstacle an error is.
pub(crate) fn obstacle(error: &ConnectError) -> Obstacle {
    match error {
        ConnectError::IdentityMismatch(_) => Obstacle::IdentityMismatch,
        ConnectError::Clock(_) => Obstacle::Clock,
        ConnectError::BrokenOff(_) => Obstacle::BrokenOff,
        ConnectError::Refused(_) | ConnectError::OutOfDate => Obstacle::Refused,
        ConnectError::LoginNeeded(_) => Obstacle::LoginNeeded,
        ConnectError::Unreachable(_)
        | ConnectError::NoRoute { .. }
        | ConnectError::Restarts(_)
        | ConnectError::Closed(_) => Obstacle::NoAnswer,
        ConnectError::Firewall(_) => Obstacle::Firewall,
        ConnectError::NarrowPath { .. } => Obstacle::NarrowPath,
        ConnectError::Protocol(_) => Obstacle::Protocol,
        ConnectError::Local(error) if error.kind() == io::ErrorKind::PermissionDenied => Obstacle::Permission,
        ConnectError::Local(error) if error.kind() == io::ErrorKind::InvalidInput => Obstacle::Local,
        ConnectError::Source(_) => Obstacle::DeviceGone,
        // No network, no such address family: that may pass.
        ConnectError::Local(_) => Obstacle::NoAnswer,
    }
}

/// The failure of a client that gives up.
pub(crate) fn failure(gateway: &str, obstacle: Obstacle, reason: &str) -> Failure {
    let reason = if reason.is_empty() { "no answer in time" } else { reason };
    Failure::new(obstacle.exit(), gateway, reason, next_step(obstacle))
}

/// The failure of a login or an enrolment.
pub(crate) fn join_failure(gateway: &str, error: &ConnectError) -> Failure {
    let obstacle = obstacle(error);
    let next = match obstacle {
        Obstacle::IdentityMismatch => {
            "do not go on: nothing proves that this is the gateway you mean; ask its administrator for an invite, or for \
             its authority's certificate or fingerprint (`--authority`, `--pin`)"
                .to_owned()
        }
        Obstacle::Refused => "ask the gateway's administrator for a new invite".to_owned(),
        Obstacle::NoAnswer
        | Obstacle::Firewall
        | Obstacle::NarrowPath
        | Obstacle::CaptivePortal
        | Obstacle::BrokenOff
        | Obstacle::Clock
        | Obstacle::Protocol
        | Obstacle::LoginNeeded
        | Obstacle::Permission
        | Obstacle::Local
        | Obstacle::DeviceGone => next_step(obstacle),
    };
    Failure { exit: obstacle.exit(), what: gateway.to_owned(), reason: error.to_string(), next }
}

fn next_step(obstacle: Obstacle) -> String {
    let fixed = match obstacle {
        Obstacle::NoAnswer => "check this host's network, that the gateway runs, and that its port is open",
        Obstacle::NarrowPath => {
            "use another network, or raise the MTU of the link on the way that is too narrow, which `tracepath` shows; a \
             tunnel or PPPoE around this one takes bytes, too"
        }
        Obstacle::CaptivePortal => {
            "open that page in a browser, then connect again; past a closed kill switch `adit-client portal NAME` lets a \
             browser out"
        }
        Obstacle::Firewall => {
            "find the rule with `nft list ruleset` or `iptables-save` and let the datagrams pass; if it is about the \
             mark, set another `mark` in the profile"
        }
        Obstacle::BrokenOff => {
            "try again; if it stays so, somebody between this host and the gateway breaks connections off, or another \
             program listens at its UDP port"
        }
        Obstacle::Clock => {
            "compare this host's clock with the time (`timedatectl` shows and sets it), and the gateway's"
        }
        Obstacle::Protocol => "check that an Adit gateway of a matching version listens there",
        Obstacle::Refused => "ask the gateway's administrator for a new invite, then `adit-client join URL --replace`",
        Obstacle::LoginNeeded => "log in with `adit-client login NAME`, then connect again",
        Obstacle::IdentityMismatch => {
            "do not go on: somebody else answers for the gateway, or it was set up anew; ask its administrator"
        }
        Obstacle::Permission => return Capability::NetAdmin.next_step(),
        Obstacle::DeviceGone => {
            "connect again with `adit-client up`; this host stays closed until then if everything went through the \
             tunnel, or until `adit-client cleanup`"
        }
        Obstacle::Local => "mend the profile, or join again with a new invite",
    };
    fixed.to_owned()
}

#[cfg(test)]
mod tests {
    use adit_program::exit::Exit;

    use super::*;

    fn exit(error: &ConnectError) -> Exit {
        obstacle(error).exit()
    }

    #[test]
    fn each_error_ends_with_its_exit_code() {
        let text = String::new;
        assert_eq!(exit(&ConnectError::Refused(text())), Exit::AuthRefused);
        assert_eq!(exit(&ConnectError::LoginNeeded(text())), Exit::AuthRefused);
        assert_eq!(exit(&ConnectError::IdentityMismatch(text())), Exit::IdentityMismatch);
        assert_eq!(exit(&ConnectError::Unreachable(text())), Exit::Unreachable);
        assert_eq!(exit(&ConnectError::Clock(text())), Exit::Unreachable);
        assert_eq!(exit(&ConnectError::BrokenOff(text())), Exit::Unreachable);
        assert_eq!(exit(&ConnectError::Closed(text())), Exit::Unreachable);
        assert_eq!(exit(&ConnectError::Restarts(std::time::Duration::ZERO)), Exit::Unreachable);
        assert_eq!(exit(&ConnectError::Firewall(text())), Exit::Unreachable);
        assert_eq!(exit(&ConnectError::Protocol(text())), Exit::Other);
        assert_eq!(exit(&ConnectError::Local(io::ErrorKind::PermissionDenied.into())), Exit::Permission);
        assert_eq!(exit(&ConnectError::Source(io::ErrorKind::NotFound.into())), Exit::Other);
        assert_eq!(exit(&ConnectError::Local(io::ErrorKind::InvalidInput.into())), Exit::Other);
        assert_eq!(exit(&ConnectError::Local(io::ErrorKind::NetworkUnreachable.into())), Exit::Unreachable);
    }

    #[test]
    fn nothing_that_is_unproven_ends_a_client() {
        let text = || "forged".to_owned();
        let unproven = [
            ConnectError::IdentityMismatch(text()),
            ConnectError::Clock(text()),
            ConnectError::BrokenOff(text()),
            ConnectError::Unreachable(text()),
        ];
        for error in unproven {
            assert!(error.is_unproven() && !obstacle(&error).is_final(), "{error}");
        }
        let refused = ConnectError::Refused(text());
        assert!(!refused.is_unproven() && obstacle(&refused).is_final());
    }

    #[test]
    fn failure_without_a_reason_still_names_one() {
        let failure = failure("gw:443", Obstacle::NoAnswer, "");
        assert!(!failure.reason.is_empty() && !failure.next.is_empty());
    }
}
