//! The sessions that go on a login of their user.

use std::collections::BTreeSet;
use std::sync::Arc;

use adit_proto::login::token::LoginId;

use super::LocalCore;
use crate::core::login::logins::{LoginStep, Logins};
use crate::core::sessions::{Ending, Session};
use crate::sources::Source;

impl LocalCore {
    /// Where users log in, if they can.
    pub fn logins(&self) -> Option<Arc<Logins>> {
        self.logins.load_full()
    }

    /// From now on this is what users read who begin a login.
    pub fn set_banner(&self, banner: Option<String>) {
        self.banner.store(banner.map(Arc::new));
    }

    /// Puts it above the first form of a login, unless a source has something to say there.
    pub(super) fn show_banner(&self, step: &mut LoginStep) {
        if let (LoginStep::Ask { form, .. }, Some(banner)) = (step, &*self.banner.load())
            && form.text.is_empty()
        {
            form.text = String::clone(banner);
        }
    }

    /// From now on users of these sources log in, first asked first. Sessions by a login go on, also those of sources
    /// that are asked no longer.
    pub fn replace_sources(&self, sources: Vec<Arc<dyn Source>>) {
        if let Some(logins) = self.logins() {
            self.logins.store(Some(Arc::new(logins.over(sources))));
        }
    }

    /// The users who have sessions by a login, each once.
    pub fn logged_in(&self) -> BTreeSet<String> {
        self.by_login().map(|session| session.device.user.clone()).collect()
    }

    /// Shuts out the devices that a user connected by a login, and says how many had a session. What was given to the
    /// user must be void before: whoever is on the way to a session finds that out before the session is handed over.
    pub fn end_logins(&self, user: &str) -> usize {
        let of_user = self.by_login().filter(|session| session.device.user == user);
        of_user.filter(|session| self.shut_out(&session.device.id, Ending::LoginOver)).count()
    }

    /// Ends a login for ever, and at once the sessions that go on it, whoever opened them. Blocks.
    pub(super) fn end_login(&self, login: &LoginId) {
        // First: whoever is on the way to a session finds that out before the session is handed over.
        if let Err(error) = self.accounts.end_login(login) {
            tracing::warn!(%error, "a user has logged out, but the token is good until its end");
        }
        for session in self.by_login().filter(|session| session.login().is_some_and(|of| of.id == *login)) {
            self.shut_out(&session.device.id, Ending::LoginOver);
        }
    }

    fn by_login(&self) -> impl Iterator<Item = Arc<Session>> {
        self.sessions.all().into_iter().filter(|session| session.login().is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::pin::Pin;
    use std::sync::{Mutex, PoisonError};
    use std::time::{Duration, SystemTime};

    use adit_proto::login::flow::Answers;
    use adit_proto::login::token::LoginEnd;
    use adit_proto::login::{Method, Person, Verdict};
    use adit_proto::packet::icmp::GatewayAddresses;
    use adit_testing::PATIENCE;
    use zeroize::Zeroizing;

    use super::super::WRITERS;
    use super::super::tests::{core, open};
    use super::*;
    use crate::accounts::sqlite::Store;
    use crate::accounts::{Accounts, UserName};
    use crate::config::config_for_tests;
    use crate::core::callers::Caller;
    use crate::core::login::logins::LoginWish;
    use crate::core::login::{Credential, Identity, LastingLogin, LoginError};
    use crate::core::personal::PersonalTerms;
    use crate::core::sessions::Connection;
    use crate::core::tests::{FakeAccounts, FakeFlows, Nowhere, POOL, apart, device, pool, result};
    use crate::core::{Core as _, OpenError, OpenSession};
    use crate::directories::StateDir;
    use crate::identity::ServiceKey;
    use crate::policy::PolicyFile;
    use crate::sources::{Answering, LinkWish, Origin, Recheck, Source};

    /// Accounts that know alice, whose logins are of the first generation.
    fn with_alice() -> (Arc<LocalCore>, Arc<FakeAccounts>) {
        let (core, accounts) = core();
        accounts.say("alice", "ldap", &[]);
        (core, accounts)
    }

    /// Opens the session of a device of alice that came with this login, of this generation.
    fn open_by_login(
        core: &Arc<LocalCore>,
        of: &str,
        (login, generation): (u8, u64),
    ) -> (Result<(), OpenError>, Arc<Nowhere>) {
        let connection = Arc::<Nowhere>::default();
        let kept: Arc<dyn Connection> = Arc::<Nowhere>::clone(&connection);
        let login = LastingLogin { id: [login; 16], end: LoginEnd { since_boot: u64::MAX, unix: None }, generation };
        let identity = Identity { device: device(of), login: Some(login) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let opened = runtime.block_on(Arc::clone(core).open(identity, kept));
        // It stays open for as long as the test runs.
        (opened.map(std::mem::forget), connection)
    }

    #[test]
    fn devices_by_a_login_are_shut_out_and_others_of_the_user_go_on() {
        let (core, _accounts) = with_alice();
        let log_in = |of: &str| {
            let connection = Arc::<Nowhere>::default();
            let caller = Arc::new(Caller::new(Arc::<Nowhere>::clone(&connection)));
            assert!(core.log_in(&Credential::Token(of.to_owned()), &caller).is_ok());
            (caller, connection)
        };
        let (second_of_a, second_of_b) = (log_in("dev-a"), log_in("dev-b"));
        let (opened, closed) = open_by_login(&core, "dev-a", (1, 0));
        opened.unwrap();
        let (_, untouched) = open(&core, "dev-b").unwrap();
        assert_eq!(core.logged_in().into_iter().collect::<Vec<_>>(), ["alice"]);
        assert_eq!(core.end_logins("bob"), 0);
        assert_eq!(core.end_logins("alice"), 1);
        assert_eq!((closed.closed(), untouched.closed()), (Some(Ending::LoginOver), None));
        let others = [second_of_a, second_of_b].map(|(_, connection)| connection.closed());
        assert_eq!(others, [Some(Ending::LoginOver), None], "its further connections, too");
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

    /// A core whose users are those of a directory.
    fn over(source: &Arc<Directory>, folder: &Path) -> (Arc<LocalCore>, Arc<Store>) {
        let store = Arc::new(Store::create(&folder.join("store.db")).unwrap());
        let key = ServiceKey::load_or_create(&StateDir::new(folder)).unwrap();
        let chain: Vec<Arc<dyn Source>> = vec![Arc::<Directory>::clone(source)];
        let logins = Logins::new(chain, Arc::clone(&store), &key, [1; 32], Duration::from_secs(3600));
        let policy = "[groups.office]\nmembers = [\"ldap:staff\"]\nroutes = [\"10.1.0.0/16\"]\n";
        let policy = PolicyFile::parse(Path::new("policy.toml"), policy).unwrap();
        let config = config_for_tests(Path::new("/nowhere"));
        let terms = PersonalTerms::new(&config, GatewayAddresses::default(), Some(Arc::new(policy)));
        let accounts: Arc<dyn Accounts> = Arc::<Store>::clone(&store);
        let core = LocalCore::new(accounts, Arc::<FakeFlows>::default(), pool(), terms, POOL, Arc::default());
        (Arc::new(core.with_logins(Arc::new(logins))), store)
    }

    /// Logs alice in, and gives her token.
    async fn log_in(core: &Arc<LocalCore>) -> String {
        let given = [("user", "alice"), ("password", "secret")];
        let answers = given.map(|(name, answer)| (name.to_owned(), answer.to_owned().into())).into();
        let origin = Origin { address: [192, 0, 2, 7].into(), device: None };
        let wish = LoginWish { handle: None, answers, link: LinkWish::DeviceCode, origin };
        let step = Arc::clone(core).login(wish).await;
        let LoginStep::Done { token, .. } = step else { panic!("nobody is refused") };
        token
    }

    /// Opens a session by a session token alone; gives also its connection.
    async fn connect(
        core: &Arc<LocalCore>,
        token: &str,
        host: &str,
    ) -> Result<(OpenSession, Arc<Nowhere>), LoginError> {
        let connection = Arc::<Nowhere>::default();
        let caller = Arc::new(Caller::new(Arc::<Nowhere>::clone(&connection)));
        let credential = Credential::Login { token: token.to_owned().into(), name: host.to_owned() };
        let identity = Arc::clone(core).authenticate(credential, caller).await?;
        let kept: Arc<dyn Connection> = Arc::<Nowhere>::clone(&connection);
        Ok((Arc::clone(core).open(identity, kept).await.unwrap(), connection))
    }

    #[tokio::test]
    async fn who_logs_out_ends_what_others_opened_by_the_same_login_and_nothing_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let (core, _store) = over(&Arc::default(), folder.path());
        let (first, second) = (log_in(&core).await, log_in(&core).await);
        let (_stolen, by_first) = connect(&core, &first, "laptop").await.unwrap();
        let (_own, by_second) = connect(&core, &second, "phone").await.unwrap();
        for nonsense in ["", "nonsense"] {
            Arc::clone(&core).log_out(nonsense.to_owned().into()).await;
        }
        assert_eq!((by_first.closed(), by_second.closed()), (None, None));
        Arc::clone(&core).log_out(first.clone().into()).await;
        assert_eq!((by_first.closed(), by_second.closed()), (Some(Ending::LoginOver), None));
        assert_eq!(core.sessions().len(), 1);
        let again = connect(&core, &first, "laptop").await;
        assert!(again.is_err_and(|error| matches!(error, LoginError::Needed(_))));

        let unused = log_in(&core).await;
        Arc::clone(&core).log_out(unused.clone().into()).await;
        assert!(connect(&core, &unused, "laptop").await.is_err(), "it never had a session");
        let newest = log_in(&core).await;
        assert!(connect(&core, &newest, "laptop").await.is_ok(), "the positive control");
    }

    #[tokio::test]
    async fn login_in_other_groups_changes_what_the_sessions_of_all_devices_may() {
        let folder = tempfile::tempdir().unwrap();
        let source = Arc::<Directory>::default();
        let (core, store) = over(&source, folder.path());

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

    #[tokio::test]
    async fn who_begins_a_login_reads_the_banner_of_now() {
        let folder = tempfile::tempdir().unwrap();
        let (core, _store) = over(&Arc::default(), folder.path());
        let ask = async |handle: Option<String>| {
            let origin = Origin { address: [192, 0, 2, 7].into(), device: None };
            let wish = LoginWish { handle, answers: Answers::new(), link: LinkWish::DeviceCode, origin };
            let LoginStep::Ask { handle, form } = Arc::clone(&core).login(wish).await else { panic!("it is asked") };
            (handle, form.text)
        };
        assert_eq!(ask(None).await.1, "");
        core.set_banner(Some("For staff only.".to_owned()));
        let (handle, text) = ask(None).await;
        assert_eq!(text, "For staff only.");
        assert_eq!(ask(Some(handle)).await.1, "", "it is read once");
        core.set_banner(None);
        assert_eq!(ask(None).await.1, "");
    }

    #[tokio::test]
    async fn log_out_with_what_is_no_token_waits_for_nobody_who_writes() {
        let folder = tempfile::tempdir().unwrap();
        let (core, _store) = over(&Arc::default(), folder.path());
        let token = log_in(&core).await;
        let all = u32::try_from(WRITERS).unwrap();
        let writing = core.writers.acquire_many(all).await.unwrap();
        let log_out = |token: &str, patience| {
            tokio::time::timeout(patience, Arc::clone(&core).log_out(Zeroizing::new(token.to_owned())))
        };
        for garbage in ["", "bm9uc2Vuc2U", &token[1..]] {
            log_out(garbage, PATIENCE).await.expect("it is nobody's");
        }
        assert!(log_out(&token, Duration::from_millis(50)).await.is_err(), "the positive control waits");
        drop(writing);
        log_out(&token, PATIENCE).await.expect("its turn has come");
    }

    #[test]
    fn login_that_is_made_void_while_its_device_connects_opens_no_session() {
        let (core, accounts) = with_alice();
        accounts.hold_up();
        let opening = Arc::clone(&core);
        let slow = apart(move || open_by_login(&opening, "dev-a", (1, 0)).0);
        accounts.wait_for(1);
        accounts.void_logins("alice");
        assert_eq!(core.end_logins("alice"), 0, "there is no session to end yet");
        accounts.go_on();
        assert!(matches!(result(&slow), Err(OpenError::LoginOver)));
        assert!(core.sessions().is_empty());
        assert_eq!(core.leases.devices(), 0);
        open_by_login(&core, "dev-a", (1, 1)).0.unwrap();
        assert_eq!(core.sessions().len(), 1, "a login of now");
    }

    #[test]
    fn login_that_is_ended_while_its_device_connects_opens_no_session() {
        let (core, accounts) = with_alice();
        accounts.hold_up();
        let opening = Arc::clone(&core);
        let slow = apart(move || open_by_login(&opening, "dev-a", (1, 0)).0);
        accounts.wait_for(1);
        core.end_login(&[1; 16]);
        accounts.go_on();
        assert!(matches!(result(&slow), Err(OpenError::LoginOver)));
        assert!(core.sessions().is_empty());
        open_by_login(&core, "dev-a", (2, 0)).0.unwrap();
        assert_eq!(core.sessions().len(), 1, "the positive control");
    }

    #[test]
    fn session_goes_on_the_newest_login_of_its_device_and_ends_with_no_former_one() {
        let (core, _accounts) = with_alice();
        let (opened, closed) = open_by_login(&core, "dev-a", (1, 0));
        opened.unwrap();
        let session = core.sessions().of_device("dev-a").unwrap();
        session.renew_login(LastingLogin { id: [2; 16], ..session.login().unwrap() });
        core.end_login(&[1; 16]);
        assert_eq!(closed.closed(), None);
        core.end_login(&[2; 16]);
        assert_eq!(closed.closed(), Some(Ending::LoginOver));
    }
}
