use std::sync::atomic::{AtomicUsize, Ordering};

use adit_proto::login::token::Clocks;
use adit_proto::login::{Kind, Method, Question, StartedLink, Verdict};
use tokio::time::Instant as Clock;
use zeroize::Zeroizing;

use super::*;
use crate::accounts::UserName;
use crate::directories::StateDir;
use crate::sources::{Answering, LinkAnswer, LinkSource, MOST_STRANGERS, Recheck, Unavailable};

const SECOND: Duration = Duration::from_secs(1);
const HOME: &str = "198.51.100.7";
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// A source that says what the test wants after a time, one after the other like a single thread that hashes.
struct Double {
    name: &'static str,
    takes: Duration,
    says: fn(&str, &str) -> Verdict,
    link: Option<fn(usize) -> LinkAnswer>,
    thread: tokio::sync::Mutex<()>,
    waiting: AtomicUsize,
    most_waiting: AtomicUsize,
    asked: AtomicUsize,
}

impl Double {
    fn new(name: &'static str, says: fn(&str, &str) -> Verdict) -> Self {
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

    async fn say(&self, name: &str, password: &str) -> Verdict {
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
        let user_code = (wish == LinkWish::DeviceCode).then(|| "ABCD-EFGH".to_owned());
        let (lifetime, interval) = (300 * SECOND, SECOND);
        let link = StartedLink { url: "https://idp.example".to_owned(), user_code, lifetime, interval, state: vec![1] };
        Box::pin(async { Ok(link) })
    }

    fn poll<'a>(&'a self, _state: &'a [u8]) -> std::pin::Pin<Box<dyn Future<Output = LinkAnswer> + Send + 'a>> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { (self.link.unwrap())(asked) })
    }
}

fn person(source: &str, name: &str) -> Person {
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
fn users(name: &str, password: &str) -> Verdict {
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

struct World {
    _directory: tempfile::TempDir,
    store: Arc<Store>,
    source: Arc<Double>,
    logins: Arc<Logins>,
}

fn world(source: Double) -> World {
    world_of(vec![Arc::new(source)])
}

/// Logins over several sources, of which the last tells who was let in.
fn world_of(chain: Vec<Arc<Double>>) -> World {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::create(&directory.path().join("store.db")).unwrap());
    let key = ServiceKey::load_or_create(&StateDir::new(directory.path())).unwrap();
    let source = Arc::clone(chain.last().unwrap());
    let chain = chain.into_iter().map(|double| double as Arc<dyn Source>).collect();
    let logins = Arc::new(Logins::new(chain, Arc::clone(&store), &key, [5; 32], LIFETIME));
    World { _directory: directory, store, source, logins }
}

fn origin(address: &str, device: Option<&str>) -> Origin {
    Origin { address: address.parse().unwrap(), device: device.map(str::to_owned) }
}

fn wish(handle: Option<String>, answers: &[(&str, &str)], origin: Origin) -> LoginWish {
    let answers = answers.iter().map(|(name, answer)| ((*name).to_owned(), (*answer).to_owned().into())).collect();
    LoginWish { handle, answers, browser: false, origin }
}

impl World {
    async fn log_in(&self, name: &str, password: &str, from: Origin) -> LoginStep {
        self.logins.advance(wish(None, &[("user", name), ("password", password)], from)).await
    }

    fn device_of(&self, user: &str) -> String {
        self.store.token(&UserName::parse(user).unwrap(), SystemTime::now()).unwrap().0.id
    }
}

fn message(step: &LoginStep) -> &'static str {
    match step {
        LoginStep::Refused { message, .. } => message,
        LoginStep::Ask { .. } | LoginStep::Open { .. } | LoginStep::Wait { .. } | LoginStep::Done { .. } => "",
    }
}

fn token(step: LoginStep) -> String {
    match step {
        LoginStep::Done { token, .. } => token,
        LoginStep::Refused { message, .. } => panic!("refused: {message}"),
        LoginStep::Ask { .. } | LoginStep::Open { .. } | LoginStep::Wait { .. } => panic!("not over"),
    }
}

fn handle(step: LoginStep) -> String {
    match step {
        LoginStep::Ask { handle, .. } | LoginStep::Open { handle, .. } | LoginStep::Wait { handle, .. } => handle,
        LoginStep::Refused { message, .. } => panic!("refused: {message}"),
        LoginStep::Done { .. } => panic!("done"),
    }
}

#[tokio::test(start_paused = true)]
async fn right_password_ends_in_a_token_of_the_device_or_in_a_ticket() {
    let world = world(Double::new("local", users));
    let device = world.device_of("alice");
    let clocks = clocks::now();
    let now = clocks.unix;
    let step = world.log_in("alice", "right", origin(HOME, Some(&device))).await;
    let LoginStep::Done { user, token, ends_at } = step else { panic!("{}", message(&step)) };
    assert_eq!(user, "alice");
    assert!((now + LIFETIME.as_secs()..now + LIFETIME.as_secs() + 60).contains(&ends_at));
    let opened = world.logins.tokens().open(&token, Some(&device), &clocks).unwrap();
    assert_eq!((opened.user.as_str(), opened.methods), ("alice", vec![Method::Password]));
    assert!(world.logins.tokens().open(&token, None, &clocks).is_err(), "it is no ticket");
    assert!(world.logins.tokens().open(&token, Some("dev-other"), &clocks).is_err());
    let over = Clocks { since_boot: clocks.since_boot + LIFETIME.as_secs() + 60, ..clocks };
    assert!(world.logins.tokens().open(&token, Some(&device), &over).is_err(), "it ends");

    let ticket = self::token(world.log_in("bob", "right", origin(HOME, None)).await);
    assert!(world.logins.tokens().open(&ticket, None, &clocks).is_ok());
    assert!(world.logins.tokens().open(&ticket, Some(&device), &clocks).is_err());
}

#[tokio::test(start_paused = true)]
async fn login_lasts_as_long_as_is_said_of_its_user() {
    let world = world(Double::new("local", users));
    let logins = Arc::into_inner(world.logins).unwrap().lasting_each(|known| {
        assert_eq!(known.groups, ["staff"], "as the source says now");
        if known.user == "alice" { 60 * SECOND } else { LIFETIME }
    });
    let world = World { logins: Arc::new(logins), ..world };
    let now = clocks::now().unix;
    for (name, lifetime) in [("alice", 60), ("bob", LIFETIME.as_secs())] {
        let step = world.log_in(name, "right", origin(HOME, None)).await;
        let LoginStep::Done { ends_at, .. } = step else { panic!("{name}: {}", message(&step)) };
        assert!((now + lifetime..now + lifetime + 60).contains(&ends_at), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_get_one_answer_in_one_time() {
    let mut double = Double::new("local", users);
    double.takes = Duration::from_millis(300);
    let world = world(double);
    let mut seen = Vec::new();
    let tries =
        [("alice", "wrong"), ("nobody", "right"), ("locked", "x"), ("disabled", "x"), ("alice", ""), ("Al ice!", "x")];
    for (number, (name, password)) in tries.into_iter().enumerate() {
        let begun = Clock::now();
        let step = world.log_in(name, password, origin(&format!("203.0.{number}.1"), None)).await;
        seen.push((message(&step), begun.elapsed()));
    }
    assert!(seen.iter().all(|(text, time)| *text == message(&NOT_ACCEPTED) && *time == SECOND), "{seen:?}");
    let begun = Clock::now();
    token(world.log_in("alice", "right", origin(HOME, None)).await);
    assert!(begun.elapsed() < SECOND, "who is let in does not wait");
}

#[tokio::test(start_paused = true)]
async fn slow_source_is_told_at_the_next_whole_second() {
    let mut double = Double::new("local", users);
    double.takes = Duration::from_millis(1200);
    let world = world(double);
    let begun = Clock::now();
    world.log_in("alice", "wrong", origin(HOME, None)).await;
    assert_eq!(begun.elapsed(), 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn while_a_source_is_away_all_refusals_say_so() {
    let world = world(Double::new("ldap", users));
    assert_eq!(message(&world.log_in("alice", "a", origin(HOME, None)).await), message(&NOT_ACCEPTED));
    assert_eq!(message(&world.log_in("away", "x", origin(HOME, None)).await), message(&SOURCE_AWAY));
    assert_eq!(world.logins.chain().away().unwrap(), "ldap: no answer");
    assert_eq!(message(&world.log_in("alice", "b", origin(HOME, None)).await), message(&SOURCE_AWAY));
    assert_eq!(message(&world.log_in("nobody", "b", origin(HOME, None)).await), message(&NOT_ACCEPTED), "it answers");
}

#[tokio::test(start_paused = true)]
async fn login_goes_on_over_sources_of_the_same_names_and_no_others() {
    let world = world(Double::new("local", users));
    let asked = || async { handle(world.log_in("coded", "right", origin(HOME, None)).await) };
    let over = |names: &[&'static str]| {
        let double = |name: &&'static str| -> Arc<dyn Source> { Arc::new(Double::new(name, users)) };
        world.logins.over(names.iter().map(double).collect())
    };
    let answer = async |logins: Logins, handle: String| {
        logins.advance(wish(Some(handle), &[("code", "123456")], origin(HOME, None))).await
    };
    token(answer(over(&["local"]), asked().await).await);
    for others in [&["ldap"][..], &["ldap", "local"], &["local", "ldap"]] {
        let step = answer(over(others), asked().await).await;
        assert_eq!(message(&step), message(&EXPIRED), "{others:?}");
    }
    // A token of before opens, and what was counted is counted on.
    let newer = over(&["ldap"]);
    let given = token(world.log_in("alice", "right", origin(HOME, None)).await);
    assert!(newer.tokens().open(&given, None, &clocks::now()).is_ok());
    assert_eq!(newer.bans(), []);
    for number in 0..10 {
        world.log_in(&format!("user-{number}"), "x", origin("203.0.113.9", None)).await;
    }
    assert_eq!(newer.bans()[0].network.to_string(), "203.0.113.9/32");
}

#[tokio::test(start_paused = true)]
async fn question_is_escaped_and_its_handle_is_good_for_one_device() {
    let world = world(Double::new("local", users));
    let device = world.device_of("coded");
    let asked = world.log_in("coded", "right", origin(HOME, Some(&device))).await;
    let LoginStep::Ask { handle, form } = asked else { panic!("{}", message(&asked)) };
    assert_eq!((form.text.as_str(), form.fields[0].name), ("Code\\u{1b}", "code"));
    let answer = |from: Origin, code: &str| {
        let wish = wish(Some(handle.clone()), &[("code", code)], from);
        world.logins.advance(wish)
    };
    assert_eq!(message(&answer(origin(HOME, None), "123456").await), message(&EXPIRED), "another connection");
    assert_eq!(message(&answer(origin(HOME, Some(&device)), "000000").await), message(&NOT_ACCEPTED));
    token(answer(origin(HOME, Some(&device)), "123456").await);
    for forged in ["", "AAAA", "no base64!", &handle[..handle.len() - 2]] {
        let step = world.logins.advance(wish(Some(forged.to_owned()), &[], origin(HOME, Some(&device)))).await;
        assert_eq!(message(&step), message(&EXPIRED), "{forged}");
    }
}

#[tokio::test(start_paused = true)]
async fn codes_are_limited_though_a_handle_can_be_used_again() {
    let world = world(Double::new("local", users));
    let first = handle(world.log_in("coded", "right", origin(HOME, None)).await);
    for number in 0..30 {
        let wish = wish(Some(first.clone()), &[("code", &number.to_string())], origin(HOME, None));
        world.logins.advance(wish).await;
    }
    assert_eq!(world.source.asked.load(Ordering::Relaxed), 1 + 10, "the password, and as many codes as there may be");
}

/// A thousand wrong passwords at once, from everywhere: half of them for alice, and every fourth from her own address.
fn flood(world: &Arc<World>) -> tokio::task::JoinSet<&'static str> {
    let mut flood = tokio::task::JoinSet::new();
    for number in 0..1000_u32 {
        let world = Arc::clone(world);
        let elsewhere = format!("203.{}.{}.9", number % 200, number / 200);
        let from = if number % 4 == 1 { HOME.to_owned() } else { elsewhere };
        let name = if number % 4 < 2 { "alice".to_owned() } else { format!("user-{number}") };
        let password = number.to_string();
        flood.spawn(async move { message(&world.log_in(&name, &password, origin(&from, None)).await) });
    }
    flood
}

/// How long some logins took.
async fn times(world: &World, name: &str, from: Origin) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..5 {
        let begun = Clock::now();
        token(world.log_in(name, "right", from.clone()).await);
        times.push(begun.elapsed());
    }
    times
}

#[tokio::test(start_paused = true)]
async fn user_with_a_known_place_logs_in_during_a_flood() {
    let mut double = Double::new("local", users);
    double.takes = Duration::from_millis(25);
    let world = Arc::new(world(double));
    let device = world.device_of("alice");
    let office = || origin("198.51.100.200", None);
    token(world.log_in("bob", "right", office()).await);
    let flood = flood(&world);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let stranger = world.log_in("alice", "right", origin(HOME, None)).await;
    assert_ne!(message(&stranger), "", "the positive control: without her device she is a stranger");
    let alice = times(&world, "alice", origin(HOME, Some(&device))).await;
    assert!(alice.iter().all(|time| *time < 2 * SECOND), "{alice:?}");
    let bob = times(&world, "bob", office()).await;
    assert!(bob.iter().all(|time| *time < 2 * SECOND), "in a network from where he logged in before: {bob:?}");
    assert!(world.source.most_waiting.load(Ordering::Relaxed) <= 9, "eight strangers and the user");
    flood.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn source_without_room_is_not_away_and_its_users_passwords_stay_with_it() {
    let full = Double::new("ldap", |name, _| match name {
        "alice" => Verdict::Busy("ldap: full".to_owned()),
        _ => Verdict::Unknown,
    });
    let world = world_of(vec![Arc::new(full), Arc::new(Double::new("local", users))]);
    let step = world.log_in("alice", "right", origin(HOME, None)).await;
    assert!(matches!(step, LoginStep::Refused { retry_after: Some(_), .. }), "{}", message(&step));
    assert_eq!(world.source.asked.load(Ordering::Relaxed), 0, "the next source is not asked");
    assert_eq!(world.logins.chain().away(), None);
    assert_eq!(world.logins.turned_away(), [("ldap".to_owned(), 1)].into());
    token(world.log_in("bob", "right", origin(HOME, None)).await);
    assert_eq!(world.source.asked.load(Ordering::Relaxed), 1, "the positive control");
}

#[tokio::test(start_paused = true)]
async fn no_refusal_tells_strangers_which_names_the_first_of_several_sources_knows() {
    let away = Double::new("ldap", |_, _| Verdict::Unavailable("ldap: no answer".to_owned()));
    let world = world_of(vec![Arc::new(Double::new("local", users)), Arc::new(away)]);
    let device = world.device_of("alice");
    // Nobody has noticed yet that the directory is away, nor does alice's login ask it.
    for (number, name) in ["alice", "nobody", "alice", "disabled", "alice"].into_iter().enumerate() {
        let step = world.log_in(name, &number.to_string(), origin(&format!("203.0.{number}.9"), None)).await;
        assert_eq!(message(&step), message(&UNSURE), "{name}");
    }
    let same_again = world.log_in("alice", "0", origin("203.0.0.9", None)).await;
    assert_eq!(message(&same_again), message(&UNSURE));
    let known = world.log_in("alice", "x", origin(HOME, Some(&device))).await;
    assert_eq!(message(&known), message(&SOURCE_AWAY), "the control: who is known hears what is the matter");
    let alone = self::world(Double::new("local", users));
    assert_eq!(message(&alone.log_in("alice", "x", origin(HOME, None)).await), message(&NOT_ACCEPTED));
}

#[tokio::test(start_paused = true)]
async fn password_of_a_user_goes_nowhere_else_while_their_source_is_away() {
    let away = Double::new("ldap", |_, _| Verdict::Unavailable("ldap: no answer".to_owned()));
    let world = world_of(vec![Arc::new(away), Arc::new(Double::new("local", users))]);
    world.store.record_person(&person("ldap", "alice"), SystemTime::now()).unwrap();
    let of_alice = message(&world.log_in("alice", "right", origin(HOME, None)).await);
    assert_eq!(world.source.asked.load(Ordering::Relaxed), 0, "she belongs to the directory");
    let of_nobody = message(&world.log_in("nobody", "right", origin("203.0.113.9", None)).await);
    assert_eq!(of_alice, of_nobody, "which strangers do not learn");
    token(world.log_in("bob", "right", origin("203.0.114.9", None)).await);
    assert_eq!(world.source.asked.load(Ordering::Relaxed), 2, "the positive control: of others it is not known");
}

#[tokio::test(start_paused = true)]
async fn two_logins_of_an_account_at_a_time_are_asked_about() {
    let mut double = Double::new("radius", users);
    double.takes = 30 * SECOND;
    let world = Arc::new(world(double));
    let device = world.device_of("alice");
    let mut flood = tokio::task::JoinSet::new();
    for number in 0..10_u32 {
        let world = Arc::clone(&world);
        let from = origin(&format!("203.{number}.0.9"), None);
        flood.spawn(async move { message(&world.log_in("alice", &number.to_string(), from).await) });
    }
    tokio::time::sleep(SECOND / 2).await;
    assert_eq!(world.source.waiting.load(Ordering::Relaxed), 2);
    let (_, waiting) = tokio::join!(world.log_in("alice", "right", origin(HOME, Some(&device))), async {
        tokio::time::sleep(SECOND / 4).await;
        world.source.waiting.load(Ordering::Relaxed)
    });
    assert_eq!(waiting, 3, "with her device she does not wait for them");
    let answers = flood.join_all().await;
    assert_eq!(answers.iter().filter(|answer| **answer == message(&BUSY)).count(), 8, "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn strangers_leave_room_at_a_directory_for_who_is_known() {
    let mut double = Double::new("ldap", users);
    double.takes = SECOND;
    let world = Arc::new(world(double));
    let device = world.device_of("alice");
    let mut flood = tokio::task::JoinSet::new();
    for number in 0..200_u32 {
        let world = Arc::clone(&world);
        let from = origin(&format!("203.{number}.0.9"), None);
        flood.spawn(async move { message(&world.log_in(&format!("user-{number}"), "x", from).await) });
    }
    tokio::time::sleep(SECOND / 2).await;
    assert_eq!(world.source.most_waiting.load(Ordering::Relaxed), MOST_STRANGERS);
    let alice = world.log_in("alice", "right", origin(HOME, Some(&device)));
    let (step, waiting) = tokio::join!(alice, async {
        tokio::time::sleep(SECOND / 4).await;
        world.source.waiting.load(Ordering::Relaxed)
    });
    assert!(waiting > MOST_STRANGERS, "she is asked about beside them");
    token(step);
    let answers = flood.join_all().await;
    assert!(answers.contains(&message(&BUSY)), "the positive control: strangers find none");
}

#[tokio::test(start_paused = true)]
async fn who_the_store_does_not_take_is_refused_though_the_source_accepts() {
    let world = world(Double::new("local", |name, _| Verdict::Accepted(person("ldap", name))));
    token(world.log_in("alice", "x", origin(HOME, None)).await);
    world.store.set_disabled(&UserName::parse("alice").unwrap(), true, SystemTime::now()).unwrap();
    assert_eq!(message(&world.log_in("alice", "x", origin(HOME, None)).await), message(&NOT_ACCEPTED), "disabled");
    let local = person("local", "carol");
    world.store.invite(&UserName::parse("carol").unwrap(), SECOND, SystemTime::now()).unwrap();
    world.store.record_person(&local, SystemTime::now()).unwrap();
    let taken = world.log_in("carol", "x", origin(HOME, None)).await;
    assert_eq!(message(&taken), message(&NOT_ACCEPTED), "another person's name");
    let odd = world.log_in("no name", "x", origin(HOME, None)).await;
    assert_eq!(message(&odd), message(&NOT_ACCEPTED), "no name for a user here");
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_though_the_source_accepts_is_named_in_the_trail_alone() {
    let world = world(Double::new("ldap", |name, _| Verdict::Accepted(person("ldap", name))));
    world.store.invite(&UserName::parse("carol").unwrap(), SECOND, SystemTime::now()).unwrap();
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::DEBUG);
    let logging = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());
    assert_eq!(message(&world.log_in("carol", "x", origin(HOME, None)).await), message(&NOT_ACCEPTED));
    drop(logging);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let (trail, other): (Vec<&str>, Vec<&str>) = log.lines().partition(|line| line.contains(&format!(" {TRAIL}: ")));
    assert!(other.iter().any(|line| line.contains("WARN") && line.contains("refused")), "{log}");
    assert!(!other.iter().any(|line| line.contains("carol")), "{log}");
    let what_to_run = "adit-server user link carol --source ldap --subject 'carol'";
    assert!(trail.iter().any(|line| line.contains("DEBUG") && line.contains(what_to_run)), "{log}");
}

#[tokio::test(start_paused = true)]
async fn device_of_another_user_gets_no_token() {
    let world = world(Double::new("local", users));
    let (own, others) = (world.device_of("alice"), world.device_of("bob"));
    let refused = world.log_in("alice", "right", origin(HOME, Some(&others))).await;
    assert_eq!(message(&refused), message(&OTHERS_DEVICE));
    token(world.log_in("alice", "right", origin(HOME, Some(&own))).await);
}

#[tokio::test(start_paused = true)]
async fn failures_are_limited_listed_and_forgiven() {
    let world = world(Double::new("local", users));
    let from = || origin("203.0.113.5", None);
    for number in 0..5 {
        world.log_in("alice", &number.to_string(), from()).await;
    }
    let LoginStep::Refused { retry_after: Some(time), .. } = world.log_in("alice", "right", from()).await else {
        panic!("five are enough");
    };
    assert!(time <= 60 * SECOND);
    world.logins.unlock("alice");
    token(world.log_in("alice", "right", from()).await);
    assert_eq!(world.logins.bans(), []);
    for number in 0..10 {
        world.log_in(&format!("user-{number}"), "x", from()).await;
    }
    assert_eq!(world.logins.bans()[0].network.to_string(), "203.0.113.5/32");
    assert!(world.logins.unban("203.0.113.5/32".parse().unwrap()));
    assert_eq!(world.logins.bans(), []);
}

/// A directory that takes two names for alice.
fn two_names(name: &str, password: &str) -> Verdict {
    users(if name == "a.liddell@corp" { "alice" } else { name }, password)
}

#[tokio::test(start_paused = true)]
async fn failures_by_each_name_of_a_user_are_forgiven_together() {
    let world = world(Double::new("ldap", two_names));
    let (name, other) = ("alice", "a.liddell@corp");
    let lock = async |name: &str, from: &Origin| {
        for number in 0..5 {
            world.log_in(name, &number.to_string(), from.clone()).await;
        }
        let step = world.log_in(name, "right", from.clone()).await;
        assert!(matches!(step, LoginStep::Refused { retry_after: Some(_), .. }), "{}", message(&step));
    };
    lock(other, &origin("203.0.1.9", None)).await;
    assert!(!world.logins.unlock(name), "nobody knows yet that it is she");
    assert!(world.logins.unlock(other));
    token(world.log_in(other, "right", origin(HOME, None)).await);
    for (locked, unlocked, from) in [(name, other, "203.0.2.9"), (other, name, "203.0.3.9")] {
        lock(locked, &origin(from, None)).await;
        assert!(world.logins.unlock(unlocked));
        token(world.log_in(locked, "right", origin(from, None)).await);
    }
}

#[tokio::test]
async fn name_typed_before_a_login_in_a_browser_is_not_taken_for_its_users() {
    let mut browser = Double::new("oidc", users);
    browser.link = Some(|_| LinkAnswer::Settled(Verdict::Accepted(person("oidc", "mallory"))));
    let world = world_of(vec![Arc::new(Double::new("ldap", two_names)), Arc::new(browser)]);
    let from = || origin(HOME, None);
    let typed = handle(world.logins.advance(wish(None, &[("user", "bob")], from())).await);
    let begun = handle(world.logins.advance(wish(Some(typed), &[("method", "browser")], from())).await);
    tokio::time::sleep(SECOND).await;
    token(world.logins.advance(wish(Some(begun), &[], from())).await);
    let standing = world.logins.places.standing("bob", &from()).await.unwrap();
    assert_eq!((standing.account.as_str(), standing.known), ("bob", None));
    token(world.log_in("a.liddell@corp", "right", from()).await);
    let standing = world.logins.places.standing("a.liddell@corp", &from()).await.unwrap();
    assert_eq!(standing.account, "alice", "the positive control: by a password");
}

#[tokio::test(start_paused = true)]
async fn password_that_was_right_lets_in_once_an_administrator_says_so() {
    let world = world(Double::new("local", |name, _| Verdict::Accepted(person("ldap", name))));
    let alice = UserName::parse("alice").unwrap();
    token(world.log_in("alice", "right", origin(HOME, None)).await);
    world.store.set_disabled(&alice, true, SystemTime::now()).unwrap();
    for _ in 0..3 {
        assert_eq!(message(&world.log_in("alice", "right", origin(HOME, None)).await), message(&NOT_ACCEPTED));
    }
    assert_eq!(world.source.asked.load(Ordering::Relaxed), 2, "it is not tried again and again");
    world.store.set_disabled(&alice, false, SystemTime::now()).unwrap();
    // As `user enable` does.
    assert!(world.logins.unlock("alice"));
    token(world.log_in("alice", "right", origin(HOME, None)).await);
}

#[tokio::test(start_paused = true)]
async fn source_that_does_not_answer_is_given_up() {
    let mut double = Double::new("radius", users);
    double.takes = 3600 * SECOND;
    let world = world(double);
    let begun = Clock::now();
    assert_eq!(message(&world.log_in("alice", "right", origin(HOME, None)).await), message(&SOURCE_AWAY));
    assert!(begun.elapsed() <= 62 * SECOND);
}

#[tokio::test]
async fn link_is_polled_until_it_is_settled() {
    let mut double = Double::new("oidc", users);
    double.link = Some(|asked| match asked {
        0 => LinkAnswer::Pending { interval: SECOND },
        _ => LinkAnswer::Settled(Verdict::Accepted(person("oidc", "alice"))),
    });
    let world = world(double);
    let begun = world.logins.advance(wish(None, &[], origin(HOME, None))).await;
    let LoginStep::Open { handle, user_code, .. } = begun else { panic!("{}", message(&begun)) };
    assert_eq!(user_code.as_deref(), Some("ABCD-EFGH"), "this client has no browser");
    let next = |handle: String| world.logins.advance(wish(Some(handle), &[], origin(HOME, None)));
    let handle = self::handle(next(handle).await);
    assert_eq!(world.source.asked.load(Ordering::Relaxed), 0, "it is too early");
    tokio::time::sleep(SECOND).await;
    let handle = self::handle(next(handle).await);
    tokio::time::sleep(SECOND).await;
    token(next(handle).await);
}
