//! The terms of sessions, of those that begin and of those that live.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, MutexGuard, PoisonError};

use adit_host::{HostError, PolicyClass};
use adit_program::causes::with_causes;
use adit_proto::policy::Subject;

use super::LocalCore;
use crate::accounts::{Device, StoreFault};
use crate::config::SourceName;
use crate::core::enforcement::RuleTable;
use crate::core::grant::Terms;
use crate::core::personal::PersonalTerms;
use crate::core::sessions::Session;

/// The source of users whom no other vouches for.
const LOCAL: &str = SourceName::Local.word();

/// Nobody else renews terms meanwhile.
type Renewing<'a> = MutexGuard<'a, ()>;

impl LocalCore {
    /// The terms on which sessions begin now.
    pub fn personal_terms(&self) -> Arc<PersonalTerms> {
        self.terms.load()
    }

    /// From now on sessions begin, and those that live go on, on these terms; the kernel holds all of them to the new
    /// rules at once. Blocks until it does.
    ///
    /// # Errors
    /// The kernel's refusal; then everything is as before.
    pub fn replace_terms(&self, terms: PersonalTerms) -> Result<(), HostError> {
        self.replace_terms_by(terms, |rules| self.enforcement.replace(rules))
    }

    /// As [`Self::replace_terms`], for the first terms with a policy, to which this table holds sessions.
    ///
    /// # Errors
    /// The kernel's refusal; then everything is as before.
    pub fn bring_policy(&self, terms: PersonalTerms, table: Arc<dyn RuleTable>) -> Result<(), HostError> {
        self.replace_terms_by(terms, |rules| self.enforcement.bring(table, rules))
    }

    /// As [`Self::replace_terms`], for terms without a policy: `remove_table` removes the former one's table. Until it
    /// has, sessions that live are held to their rules, and those that are about to begin wait.
    ///
    /// # Errors
    /// That of `remove_table`; then everything is as before.
    pub fn release_policy(
        &self,
        terms: PersonalTerms,
        remove_table: impl FnOnce() -> Result<(), HostError>,
    ) -> Result<(), HostError> {
        self.replace_terms_by(terms, |_| {
            remove_table()?;
            self.enforcement.release();
            Ok(())
        })
    }

    fn replace_terms_by(
        &self,
        terms: PersonalTerms,
        put_in_force: impl FnOnce(&HashMap<IpAddr, Arc<PolicyClass>>) -> Result<(), HostError>,
    ) -> Result<(), HostError> {
        let _nobody_opens = self.opening.write().unwrap_or_else(PoisonError::into_inner);
        let renewing = self.renewing();
        let mut rules = HashMap::new();
        for session in self.sessions.all() {
            // Whose groups cannot be read is held to the former rules, and told of below.
            let Ok(of_session) = self.terms_among(&terms, &session.device, session.connection.group()) else {
                continue;
            };
            let Some(of_session) = &of_session.rules else { continue };
            rules.extend(session.addresses().map(|address| (address, Arc::clone(of_session))));
        }
        put_in_force(&rules)?;
        self.terms.replace(terms);
        self.renew_where(&renewing, |_| true);
        Ok(())
    }

    /// From now on the sessions of a user go on in the groups that the accounts know now.
    pub fn renew_terms_of(&self, user: &str) {
        self.renew_where(&self.renewing(), |session| session.device.user == user);
    }

    /// Gives a session that can be found the terms that its user has now, if these are others.
    pub(super) fn renew_terms(&self, session: &Session) -> Result<(), StoreFault> {
        self.renew(&self.renewing(), session)
    }

    fn renewing(&self) -> Renewing<'_> {
        self.renewing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renew_where(&self, renewing: &Renewing<'_>, wanted: impl Fn(&Session) -> bool) {
        for session in self.sessions.all().iter().filter(|session| wanted(session)) {
            if let Err(error) = self.renew(renewing, session) {
                let error = with_causes(&error);
                tracing::warn!(session = session.id, error, "a session goes on, on its former terms");
            }
        }
    }

    fn renew(&self, _renewing: &Renewing<'_>, session: &Session) -> Result<(), StoreFault> {
        let terms = self.terms_of(&session.device, session.connection.group())?;
        if !Arc::ptr_eq(&terms, &session.grant().terms) {
            self.change_terms(session, terms);
        }
        Ok(())
    }

    pub(super) fn change_terms(&self, session: &Session, terms: Arc<Terms>) {
        if let Some(rules) = &terms.rules {
            self.enforcement.reclass(session.lease, rules);
        }
        session.change_terms(terms);
    }

    /// The terms of a device's user who has chosen this group.
    pub(super) fn terms_of(&self, device: &Device, group: Option<&str>) -> Result<Arc<Terms>, StoreFault> {
        self.terms_among(&self.terms.load(), device, group)
    }

    /// The terms of a device's user among some.
    fn terms_among(
        &self,
        terms: &PersonalTerms,
        device: &Device,
        group: Option<&str>,
    ) -> Result<Arc<Terms>, StoreFault> {
        self.as_subject(terms, &device.user, |subject| terms.of_choice(subject, group))
    }

    /// Whether a user may choose a group now. Blocks.
    ///
    /// # Errors
    /// The accounts could not be read.
    pub fn is_choice_of(&self, user: &str, group: &str) -> Result<bool, StoreFault> {
        let terms = self.terms.load();
        self.as_subject(&terms, user, |subject| terms.may_choose(subject, group))
    }

    /// Sees a user as the policy of some terms does. The accounts are asked only where groups matter.
    fn as_subject<T>(
        &self,
        terms: &PersonalTerms,
        user: &str,
        see: impl FnOnce(&Subject<'_>) -> T,
    ) -> Result<T, StoreFault> {
        let person = if terms.policy().is_some() { self.accounts.person(user)? } else { None };
        let unknown = Subject { user, source: LOCAL, source_groups: &[] };
        Ok(see(&person.as_ref().map_or(unknown, Subject::from)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use adit_proto::packet::icmp::GatewayAddresses;

    use super::super::tests::core;
    use super::*;
    use crate::config::config_for_tests;
    use crate::core::OpenError;
    use crate::core::tests::{Nowhere, device};
    use crate::policy::PolicyFile;

    fn policy(members: &str) -> PersonalTerms {
        let text = format!(
            "[groups.all]\nmembers = [\"alice\"]\nroutes = [\"10.1.0.0/16\"]\n\
             [groups.part]\noffered = true\nmembers = [{members}]\nroutes = [\"10.2.0.0/16\"]\n"
        );
        let policy = PolicyFile::parse(Path::new("policy.toml"), &text).unwrap();
        PersonalTerms::new(
            &config_for_tests(Path::new("/nowhere")),
            GatewayAddresses::default(),
            Some(Arc::new(policy)),
        )
    }

    #[test]
    fn session_goes_on_the_terms_of_the_group_that_its_user_has_chosen() {
        let (core, accounts) = core();
        core.replace_terms(policy("\"alice\"")).unwrap();
        accounts.say("alice", "local", &[]);
        let open = |of: &str, group: Option<&str>| {
            core.open_session(device(of), Arc::new(Nowhere::of_group(group))).map(|session| {
                let routes: Vec<String> = session.grant().terms.routes.iter().map(ToString::to_string).collect();
                (session, routes)
            })
        };
        let (chosen, routes) = open("dev-a", Some("part")).unwrap();
        assert_eq!(routes, ["10.2.0.0/16"]);
        assert_eq!(open("dev-b", None).unwrap().1, ["10.1.0.0/16"], "who chooses nothing");
        for other in ["all", "nowhere"] {
            let refused = open("dev-c", Some(other));
            assert!(matches!(refused, Err(OpenError::NotInGroup)), "{other} is not offered");
        }
        core.replace_terms(policy("")).unwrap();
        let routes = chosen.grant().terms.routes.clone();
        assert_eq!(routes, ["10.1.0.0/16".parse().unwrap()], "its user is no member any more");
        assert!(matches!(open("dev-d", Some("part")), Err(OpenError::NotInGroup)));
    }
}
