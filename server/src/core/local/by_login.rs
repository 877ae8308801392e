//! The sessions that go on a login of their user.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::LocalCore;
use crate::core::Order;
use crate::core::login::logins::Logins;
use crate::core::sessions::{Ending, Session};

impl LocalCore {
    /// Where users log in, if they can.
    pub fn logins(&self) -> Option<&Arc<Logins>> {
        self.logins.as_ref()
    }

    /// The users who have sessions by a login, each once.
    pub fn logged_in(&self) -> BTreeSet<String> {
        self.by_login().map(|session| session.device.user.clone()).collect()
    }

    /// Ends the sessions that a user has by a login, and says how many. What was given to the user must be void before,
    /// or they come back.
    pub fn end_logins(&self, user: &str) -> usize {
        let of_user = self.by_login().filter(|session| session.device.user == user);
        of_user.filter(|session| self.order(&session.device.id, Order::End(Ending::LoginOver))).count()
    }

    fn by_login(&self) -> impl Iterator<Item = Arc<Session>> {
        self.sessions.all().into_iter().filter(|session| session.goes_on_login())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::pin::Pin;
    use std::sync::{Mutex, PoisonError};
    use std::time::{Duration, SystemTime};

    use adit_proto::login::token::LoginEnd;
    use adit_proto::login::{Method, Person, Verdict};
    use adit_proto::packet::icmp::GatewayAddresses;
    use zeroize::Zeroizing;

    use super::super::tests::{core, open};
    use super::*;
    use crate::accounts::sqlite::Store;
    use crate::accounts::{Accounts, UserName};
    use crate::config::config_for_tests;
    use crate::core::Core as _;
    use crate::core::login::logins::{LoginStep, LoginWish};
    use crate::core::personal::PersonalTerms;
    use crate::core::tests::{FakeFlows, Nowhere, POOL, pool};
    use crate::directories::StateDir;
    use crate::identity::ServiceKey;
    use crate::policy::PolicyFile;
    use crate::sources::{Answering, Origin, Recheck, Source};

    #[test]
    fn sessions_by_a_login_end_and_others_of_the_user_go_on() {
        let (core, _accounts) = core();
        let (by_login, closed) = open(&core, "dev-a").unwrap();
        let (_, untouched) = open(&core, "dev-b").unwrap();
        assert!(core.logged_in().is_empty());
        by_login.set_login_end(Some(LoginEnd::At(u64::MAX)));
        assert_eq!(core.logged_in().into_iter().collect::<Vec<_>>(), ["alice"]);
        assert_eq!(core.end_logins("bob"), 0);
        assert_eq!(core.end_logins("alice"), 1);
        assert_eq!((closed.closed(), untouched.closed()), (Some(Ending::LoginOver), None));
        assert_eq!(core.sessions().len(), 1);
    }
    /// A directory that lets everybody in, in the groups that it is told.
    #[derive(Default)]
    struct Directory(Mutex<Vec<String>>);

    impl Directory {
        fn put_into(&self, groups: &[&str]) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
                groups.iter().map(|group| (*group).to_owned()).collect();
        }
    }

    impl Source for Directory {
        fn name(&self) -> &'static str {
            "ldap"
        }

        fn check<'a>(&'a self, name: &'a str, _password: &'a Zeroizing<String>, _origin: &'a Origin) -> Answering<'a> {
            let person = Person {
                source: "ldap".to_owned(),
                subject: name.to_owned(),
                name: name.to_owned(),
                groups: self.0.lock().unwrap_or_else(PoisonError::into_inner).clone(),
                methods: vec![Method::Password],
                session_lifetime: None,
                generation: None,
            };
            Box::pin(std::future::ready(Verdict::Accepted(person)))
        }

        fn answer<'a>(
            &'a self,
            _state: &'a [u8],
            _answer: &'a Zeroizing<String>,
            _origin: &'a Origin,
        ) -> Answering<'a> {
            Box::pin(std::future::ready(Verdict::Unknown))
        }

        fn recheck<'a>(&'a self, _person: &'a Person) -> Pin<Box<dyn Future<Output = Recheck> + Send + 'a>> {
            Box::pin(std::future::ready(Recheck::Unknown(String::new())))
        }
    }

    async fn log_in(core: &Arc<LocalCore>) {
        let given = [("user", "alice"), ("password", "secret")];
        let answers = given.map(|(name, answer)| (name.to_owned(), answer.to_owned().into())).into();
        let origin = Origin { address: [192, 0, 2, 7].into(), device: None };
        let step = Arc::clone(core).login(LoginWish { handle: None, answers, browser: false, origin }).await;
        assert!(matches!(step, LoginStep::Done { .. }));
    }

    #[tokio::test]
    async fn login_in_other_groups_changes_what_the_sessions_of_all_devices_may() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::create(&directory.path().join("store.db")).unwrap());
        let key = ServiceKey::load_or_create(&StateDir::new(directory.path())).unwrap();
        let source = Arc::<Directory>::default();
        let chain: Vec<Arc<dyn Source>> = vec![Arc::<Directory>::clone(&source)];
        let logins = Logins::new(chain, Arc::clone(&store), &key, [1; 32], Duration::from_secs(3600));
        let policy = "[groups.office]\nmembers = [\"ldap:staff\"]\nroutes = [\"10.1.0.0/16\"]\n";
        let policy = PolicyFile::parse(Path::new("policy.toml"), policy).unwrap();
        let config = config_for_tests(Path::new("/nowhere"));
        let terms = PersonalTerms::new(&config, GatewayAddresses::default(), Some(Arc::new(policy)));
        let accounts: Arc<dyn Accounts> = Arc::<Store>::clone(&store);
        let core = LocalCore::new(accounts, Arc::<FakeFlows>::default(), pool(), terms, POOL, Arc::default());
        let core = Arc::new(core.with_logins(Arc::new(logins)));

        source.put_into(&["staff"]);
        log_in(&core).await;
        let alice = UserName::parse("alice").unwrap();
        let sessions = [1, 2].map(|_| {
            let device = store.token(&alice, SystemTime::now()).unwrap().0;
            core.open_session(device, Arc::<Nowhere>::default()).unwrap()
        });
        let in_office = || {
            let of_office = |session: &Arc<Session>| session.grant().terms.routes == ["10.1.0.0/16".parse().unwrap()];
            sessions.each_ref().map(of_office)
        };
        assert_eq!(in_office(), [true, true], "the positive control");
        source.put_into(&[]);
        log_in(&core).await;
        assert_eq!(in_office(), [false, false]);
        source.put_into(&["staff"]);
        log_in(&core).await;
        assert_eq!(in_office(), [true, true]);
    }
}
