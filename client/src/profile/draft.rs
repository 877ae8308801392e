//! A profile between its file and its checks: every key read, but not yet seen together.

use std::net::SocketAddr;

use adit_program::configuration::{Fault, Finding, Origin, Overrides};
use adit_program::toml_error::TomlFault;
use adit_proto::invite::Place;
use adit_proto::mark::Mark;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::keys::KEYS;
use super::{
    EspTable, GatewayProtocol, Identity, LanAccess, LoginTable, Profile, ProfileError, ProfileName, WorkersTable,
};
use crate::captive_portal::CaptiveProbe;

/// What stands in the file of a profile.
#[derive(Default, PartialEq)]
pub(super) struct Draft {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) others: Vec<Place>,
    pub(super) protocol: GatewayProtocol,
    pub(super) user: String,
    pub(super) device: String,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) kill_switch: Option<bool>,
    pub(super) lan: LanAccess,
    pub(super) captive_probe: CaptiveProbe,
    pub(super) full_tunnel: bool,
    pub(super) authority: String,
    pub(super) pin: Option<[u8; 32]>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<Zeroizing<String>>,
    pub(super) token: Option<Zeroizing<String>>,
    pub(super) login: LoginTable,
    pub(super) esp: EspTable,
    pub(super) workers: WorkersTable,
    pub(super) mark: Mark,
}

/// Reads and checks a profile file's text.
pub(super) fn parse(name: ProfileName, text: &str) -> Result<Profile, ProfileError> {
    let mut draft = Draft::default();
    let syntax = |fault| ProfileError::syntax(&name, &fault);
    let mut findings = KEYS.read(text, &Overrides::default(), &mut draft).map_err(syntax)?;
    // A value out of bounds is told last: first the file must be one of a profile.
    findings.sort_by(|a, b| rank(a).cmp(&rank(b)));
    let first = findings.into_iter().next();
    let (unfit, grave) = match first {
        Some(finding) if is_unfit(&finding) => (Some(finding), None),
        other => (None, other),
    };
    if let Some(finding) = grave {
        return Err(error(&name, finding));
    }
    let profile = draft.check(name.clone())?;
    unfit.map_or(Ok(profile), |finding| Err(error(&name, finding)))
}

impl Draft {
    fn check(self, name: ProfileName) -> Result<Profile, ProfileError> {
        let invalid = |message: &str| ProfileError::invalid(&name, message);
        let is_foreign = self.protocol == GatewayProtocol::AnyConnect;
        let identity = match (self.certificate, self.key, self.token) {
            (None, None, None) if is_foreign => Identity::Login,
            (_, _, Some(_)) if is_foreign => {
                return Err(invalid("users log in at AnyConnect gateways, without `token`"));
            }
            (Some(chain_pem), Some(key_pem), None) => Identity::Certificate { chain_pem, key_pem },
            (None, None, Some(token)) => Identity::Token(token),
            (None, None, None) => return Err(invalid("neither `certificate` and `key` nor `token` is given")),
            (Some(_), None, None) => return Err(invalid("`certificate` without `key`")),
            (None, Some(_), None) => return Err(invalid("`key` without `certificate`")),
            (_, _, Some(_)) => return Err(invalid("`token` excludes `certificate` and `key`")),
        };
        if self.host.is_empty() || self.host.contains(char::is_whitespace) {
            return Err(invalid("`host` is not a host name or address"));
        }
        if self.port == 0 {
            return Err(invalid("`port` is 0"));
        }
        if self.pin.is_some() && (!is_foreign || !self.authority.is_empty()) {
            return Err(invalid("`pin` is for AnyConnect gateways without `authority`"));
        }
        if !is_foreign && self.login != LoginTable::default() {
            return Err(invalid("`[login]` is for AnyConnect gateways"));
        }
        if self.authority.is_empty() && !is_foreign {
            return Err(invalid("`authority` is missing"));
        }
        if !self.authority.is_empty() && CertificateDer::from_pem_slice(self.authority.as_bytes()).is_err() {
            return Err(invalid("`authority` is not a PEM certificate"));
        }
        if let Identity::Certificate { chain_pem, .. } = &identity
            && CertificateDer::from_pem_slice(chain_pem.as_bytes()).is_err()
        {
            return Err(invalid("`certificate` is not a PEM certificate"));
        }
        Ok(Profile {
            name,
            host: self.host,
            port: self.port,
            others: self.others,
            protocol: self.protocol,
            user: self.user,
            device: self.device,
            addresses: self.addresses,
            kill_switch: self.kill_switch,
            lan: self.lan,
            captive_probe: self.captive_probe,
            full_tunnel: self.full_tunnel,
            authority_pem: self.authority,
            pin: self.pin,
            identity,
            login: self.login,
            esp: self.esp,
            workers: self.workers,
            mark: self.mark,
        })
    }
}

/// Which of several findings is told: the lowest. Unknown keys come first, those outside of tables before the others;
/// then values of a wrong form, by the name of their key; then what is missing, and what is out of bounds, by rows.
fn rank(finding: &Finding) -> (u8, &str) {
    match &finding.fault {
        Fault::Unknown { .. } if !finding.key.contains('.') => (0, ""),
        Fault::Unknown { .. } => (1, ""),
        Fault::NotTable(_) => (2, &finding.key),
        Fault::Refused(complaint) if complaint.malformed_at.is_some() => (2, &finding.key),
        Fault::Missing { .. } => (3, ""),
        Fault::Refused(_) => (4, ""),
    }
}

fn is_unfit(finding: &Finding) -> bool {
    matches!(&finding.fault, Fault::Refused(complaint) if complaint.malformed_at.is_none())
}

/// The error a finding amounts to.
fn error(name: &ProfileName, finding: Finding) -> ProfileError {
    let Finding { key, origin, fault } = finding;
    let line = match origin {
        Origin::Line(line) => line,
        Origin::Nowhere | Origin::Variable(_) | Origin::Flag => 1,
    };
    match fault {
        Fault::Unknown { .. } => {
            let nearest = KEYS.closest_in_table(&key);
            ProfileError::UnknownKey { name: name.to_string(), key, nearest }
        }
        Fault::NotTable(_) => {
            ProfileError::syntax(name, &TomlFault { line, reason: format!("`{key}` is not a table") })
        }
        Fault::Missing { .. } => {
            ProfileError::syntax(name, &TomlFault { line, reason: format!("missing field `{key}`") })
        }
        Fault::Refused(complaint) => match complaint.malformed_at {
            Some(below) => {
                ProfileError::syntax(name, &TomlFault { line: line.saturating_add(below), reason: complaint.reason })
            }
            None => ProfileError::invalid(name, format!("`{key}` {}", complaint.reason)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_read_into_a_place_of_its_own() {
        let read = |text: &str| {
            let mut draft = Draft::default();
            let findings = KEYS.read(text, &Overrides::default(), &mut draft).unwrap();
            assert!(findings.iter().all(|finding| matches!(finding.fault, Fault::Missing { .. })), "{findings:?}");
            draft
        };
        let mut drafts = vec![read("")];
        for key in KEYS.rows() {
            let draft = read(&format!("{} = {}\n", key.name, key.example));
            assert!(!drafts.contains(&draft), "{} changes nothing, or what another key changes", key.name);
            drafts.push(draft);
        }
    }

    #[test]
    fn defaults_of_the_rows_are_those_of_the_program() {
        let mut draft = Draft::default();
        KEYS.read("", &Overrides::default(), &mut draft).unwrap();
        assert_eq!((draft.esp, draft.workers), (EspTable::default(), WorkersTable::default()));
        assert_eq!(draft.mark, Mark::CLIENT);
    }
}
