//! Logins over sources that say what a test wants.

use std::sync::atomic::{AtomicUsize, Ordering};

use adit_proto::login::{Kind, Method, Question, StartedLink, Verdict};
use zeroize::Zeroizing;

use super::super::*;
use crate::accounts::UserName;
use crate::directories::StateDir;
use crate::sources::{Answering, LinkAnswer, LinkSource, LinkWish, Recheck, Unavailable};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOME: &str = "198.51.100.7";
pub(super) const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// A source that says what the test wants after a time, one after the other like a single thread that hashes.
pub(super) struct Double {
    pub(super) name: &'static str,
    pub(super) takes: Duration,
    pub(super) says: fn(&str, &str) -> Verdict,
    pub(super) link: Option<fn(usize) -> LinkAnswer>,
    pub(super) thread: tokio::sync::Mutex<()>,
    pub(super) waiting: AtomicUsize,
    pub(super) most_waiting: AtomicUsize,
    pub(super) asked: AtomicUsize,
}

impl Double {
    pub(super) fn new(name: &'static str, says: fn(&str, &str) -> Verdict) -> Self {
        Self {
            name,
            takes: Duration::ZERO,
            says,
            link: None,
            thread: tokio::sync::Mutex::default(),
            waiting: AtomicUsize::default(),
            most_waiting: AtomicUsize::default(),
            asked: AtomicUsize::default(),
        }
    }

    pub(super) async fn say(&self, name: &str, password: &str) -> Verdict {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_waiting.fetch_max(waiting, Ordering::Relaxed);
        let _thread = self.thread.lock().await;
        tokio::time::sleep(self.takes).await;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        (self.says)(name, password)
    }
}

impl Source for Double {
    fn name(&self) -> &'static str {
        self.name
    }

    fn check<'a>(&'a self, name: &'a str, password: &'a Zeroizing<String>, _origin: &'a Origin) -> Answering<'a> {
        Box::pin(self.say(name, password))
    }

    fn answer<'a>(&'a self, state: &'a [u8], answer: &'a Zeroizing<String>, _origin: &'a Origin) -> Answering<'a> {
        Box::pin(async move { self.say(std::str::from_utf8(state).unwrap(), answer).await })
    }

    fn recheck<'a>(&'a self, _person: &'a Person) -> std::pin::Pin<Box<dyn Future<Output = Recheck> + Send + 'a>> {
        Box::pin(async { Recheck::Unknown("not asked here".to_owned()) })
    }

    fn links(&self) -> Option<&dyn LinkSource> {
        self.link.is_some().then_some(self as &dyn LinkSource)
    }
}

impl LinkSource for Double {
    fn begin<'a>(
        &'a self,
        wish: LinkWish,
        _origin: &'a Origin,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<StartedLink, Unavailable>> + Send + 'a>> {
        let user_code = matches!(wish, LinkWish::DeviceCode).then(|| "ABCD-EFGH".to_owned());
        let (lifetime, interval) = (300 * SECOND, SECOND);
        let (url, state, returns) = ("https://idp.example".to_owned(), vec![1], false);
        Box::pin(async move { Ok(StartedLink { url, user_code, lifetime, interval, state, returns }) })
    }

    fn poll<'a>(
        &'a self,
        _state: &'a [u8],
        _proof: Option<&'a str>,
    ) -> std::pin::Pin<Box<dyn Future<Output = LinkAnswer> + Send + 'a>> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { (self.link.unwrap())(asked) })
    }
}

pub(super) fn person(source: &str, name: &str) -> Person {
    Person {
        source: source.to_owned(),
        subject: name.to_owned(),
        name: name.to_owned(),
        groups: vec!["staff".to_owned()],
        methods: vec![Method::Password],
        session_lifetime: None,
        generation: None,
    }
}

/// A source that knows some users: their password is `right`, and one has to give the code 123456 as well.
pub(super) fn users(name: &str, password: &str) -> Verdict {
    let question = || Question { text: "Code\u{1b}".to_owned(), kind: Kind::Code, echo: false };
    match (name, password) {
        ("coded", "123456") | ("alice" | "bob", "right") => Verdict::Accepted(person("local", name)),
        ("coded", "right") => Verdict::Ask { question: question(), state: name.as_bytes().to_vec() },
        ("alice" | "bob" | "coded", _) => Verdict::Refused(Cause::WrongPassword),
        ("locked", _) => Verdict::Refused(Cause::Locked),
        ("disabled", _) => Verdict::Refused(Cause::Disabled),
        ("away", _) => Verdict::Unavailable("ldap: no answer".to_owned()),
        _ => Verdict::Unknown,
    }
}

pub(super) struct World {
    pub(super) _directory: tempfile::TempDir,
    pub(super) store: Arc<Store>,
    pub(super) source: Arc<Double>,
    pub(super) logins: Arc<Logins>,
}

pub(super) fn world(source: Double) -> World {
    world_of(vec![Arc::new(source)])
}

/// Logins over several sources, of which the last tells who was let in.
pub(super) fn world_of(chain: Vec<Arc<Double>>) -> World {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::create(&directory.path().join("store.db")).unwrap());
    let key = ServiceKey::load_or_create(&StateDir::new(directory.path())).unwrap();
    let source = Arc::clone(chain.last().unwrap());
    let chain = chain.into_iter().map(|double| double as Arc<dyn Source>).collect();
    let logins = Arc::new(Logins::new(chain, Arc::clone(&store), &key, [5; 32], LIFETIME));
    World { _directory: directory, store, source, logins }
}

pub(super) fn origin(address: &str, device: Option<&str>) -> Origin {
    Origin { address: address.parse().unwrap(), device: device.map(str::to_owned) }
}

pub(super) fn wish(handle: Option<String>, answers: &[(&str, &str)], origin: Origin) -> LoginWish {
    let answers = answers.iter().map(|(name, answer)| ((*name).to_owned(), (*answer).to_owned().into())).collect();
    LoginWish { handle, answers, link: LinkWish::DeviceCode, origin }
}

impl World {
    pub(super) async fn log_in(&self, name: &str, password: &str, from: Origin) -> LoginStep {
        self.logins.advance(wish(None, &[("user", name), ("password", password)], from)).await
    }

    pub(super) fn device_of(&self, user: &str) -> String {
        self.store.token(&UserName::parse(user).unwrap(), SystemTime::now()).unwrap().0.id
    }
}

pub(super) fn message(step: &LoginStep) -> &'static str {
    match step {
        LoginStep::Refused { message, .. } => message,
        LoginStep::Ask { .. } | LoginStep::Open { .. } | LoginStep::Wait { .. } | LoginStep::Done { .. } => "",
    }
}

pub(super) fn token(step: LoginStep) -> String {
    match step {
        LoginStep::Done { token, .. } => token,
        LoginStep::Refused { message, .. } => panic!("refused: {message}"),
        LoginStep::Ask { .. } | LoginStep::Open { .. } | LoginStep::Wait { .. } => panic!("not over"),
    }
}

pub(super) fn handle(step: LoginStep) -> String {
    match step {
        LoginStep::Ask { handle, .. } | LoginStep::Open { handle, .. } | LoginStep::Wait { handle, .. } => handle,
        LoginStep::Refused { message, .. } => panic!("refused: {message}"),
        LoginStep::Done { .. } => panic!("done"),
    }
}
