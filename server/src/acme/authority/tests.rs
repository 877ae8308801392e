//! With an authority of a few lines, which says what strangers of Debian cannot yet say; that issues nothing.

use std::convert::Infallible;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;
use std::time::SystemTime;

use adit_program::task::{self, Task};
use data_encoding::BASE64URL_NOPAD;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::super::schedule::Life;
use super::*;
use crate::config::config_for_tests;

const NAME: &str = "vpn.example.org";
const PROBLEM: &str = "urn:ietf:params:acme:error:";

/// What the authority was asked, by path, with what was signed.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// An authority on the loopback, and a gateway as its customer.
struct World {
    _directory: tempfile::TempDir,
    authority: Authority,
    asked: Asked,
    _serving: Task,
}

/// The status and the kind of problem with which it answers an order.
type OnOrder = fn(&Value) -> (u16, &'static str);

impl World {
    async fn new(on_order: OnOrder) -> Self {
        Self::pausing("7200", on_order).await
    }

    /// One with these words in each answer about when to ask again.
    async fn pausing(pause: &'static str, on_order: OnOrder) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let mut config = config_for_tests(directory.path());
        fs::create_dir(config.state_dir.path()).unwrap();
        config.acme.directory = format!("{base}/dir");
        config.acme.names = vec![NAME.to_owned()];
        // Not those of the system, which need not have any.
        let authority = directory.path().join("ca.pem");
        let made = rcgen::generate_simple_self_signed(["acme.example".to_owned()]).unwrap();
        fs::write(&authority, made.cert.pem()).unwrap();
        config.acme.authority = Some(authority);
        let asked = Asked::default();
        let seen = Arc::clone(&asked);
        let account = config.state_dir.acme_account();
        let serving = task::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = service_fn(|request| {
                    let mode = fs::metadata(&account).ok().map(|file| file.permissions().mode() & 0o777);
                    let (base, seen) = (base.clone(), Arc::clone(&seen));
                    async move { Ok::<_, Infallible>(answer(request, &base, &seen, (pause, on_order), mode).await) }
                });
                let _gone = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            }
        });
        let authority = Authority::new(&config).unwrap();
        Self { _directory: directory, authority, asked, _serving: serving }
    }

    /// What was signed for this path, each time.
    fn asked(&self, path: &str) -> Vec<Value> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(at, _)| at == path).map(|(_, payload)| payload.clone()).collect()
    }

    async fn order(&self, former: Option<&Kept>) -> Refusal {
        self.authority.certificate(NAME, former, &Arc::default()).await.unwrap_err()
    }
}

async fn answer(
    request: Request<Incoming>,
    base: &str,
    seen: &Asked,
    (pause, on_order): (&str, OnOrder),
    mode: Option<u32>,
) -> Response<Full<Bytes>> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let signed = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    let payload = BASE64URL_NOPAD.decode(signed["payload"].as_str().unwrap_or_default().as_bytes()).unwrap();
    let payload = serde_json::from_slice::<Value>(&payload).unwrap_or_default();
    let (status, text) = match path.as_str() {
        "/dir" => {
            let urls = json!({
                "newNonce": format!("{base}/nonce"), "newAccount": format!("{base}/new-account"),
                "newOrder": format!("{base}/order"), "renewalInfo": format!("{base}/renewal"),
            });
            (200, urls.to_string())
        }
        "/new-account" => {
            assert_eq!(mode, Some(0o600), "its key is written before");
            (201, json!({ "status": "valid" }).to_string())
        }
        "/account" => (200, json!({ "status": "valid" }).to_string()),
        "/order" => {
            let (status, kind) = on_order(&payload);
            (status, json!({ "type": format!("{PROBLEM}{kind}"), "detail": "no" }).to_string())
        }
        path if path.starts_with("/renewal/") => {
            let window = json!({ "start": "2026-03-01T00:00:00Z", "end": "2026-03-03T00:00:00Z" });
            (200, json!({ "suggestedWindow": window }).to_string())
        }
        _ => (200, String::new()),
    };
    if method != Method::HEAD {
        seen.lock().unwrap().push((path, payload));
    }
    let answer = Response::builder().status(status).header("replay-nonce", "one").header("retry-after", pause);
    answer.header("location", format!("{base}/account")).body(Full::new(Bytes::from(text))).unwrap()
}

/// A certificate that the authority would know again.
fn kept() -> Kept {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().clone();
    let life = Life { begins: SystemTime::UNIX_EPOCH, ends: SystemTime::now() };
    Kept { directory: String::new(), certificate, life }
}

#[tokio::test]
async fn wish_of_the_authority_is_heard_with_when_to_ask_again() {
    let world = World::new(|_| (500, "")).await;
    let day = |text| humantime::parse_rfc3339(text).unwrap();
    let window = Window { begins: day("2026-03-01T00:00:00Z"), ends: day("2026-03-03T00:00:00Z") };
    let Wish::Window(told, Some(again)) = world.authority.wish(&kept()).await else { panic!("no window") };
    assert_eq!(told, window);
    assert!((7100..=7200).contains(&again.as_secs()), "{again:?}");
}

#[tokio::test]
async fn pause_that_no_clock_can_show_is_a_day() {
    for pause in ["18446744073709551615", "+18446744073709551615", "86401"] {
        let world = World::pausing(pause, |_| (500, "")).await;
        let Wish::Window(_, Some(again)) = world.authority.wish(&kept()).await else { panic!("no window: {pause}") };
        assert!((86_300..=86_400).contains(&again.as_secs()), "{pause}: {again:?}");
    }
}

#[test]
fn pause_of_a_day_or_less_and_one_that_is_a_date_are_left_as_they_are() {
    let told = |pause: &'static str| {
        let mut headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(pause))]);
        shorten_pause(&mut headers);
        headers[RETRY_AFTER].to_str().unwrap().to_owned()
    };
    for good in ["", "0", "86400", "Fri, 31 Dec 1999 23:59:59 GMT", "soon"] {
        assert_eq!(told(good), good);
    }
    assert_eq!(told("86401"), "86400");
    let mut none = HeaderMap::new();
    shorten_pause(&mut none);
    assert!(none.is_empty());
}

#[tokio::test]
async fn order_names_the_certificate_that_it_replaces_and_does_without_where_that_is_not_wanted() {
    let world =
        World::new(|order| if order["replaces"].is_string() { (409, "alreadyReplaced") } else { (429, "rateLimited") });
    let world = world.await;
    let refusal = world.order(Some(&kept())).await;
    assert!(refusal.reason.contains("rateLimited") && refusal.pause.is_some(), "{refusal:?}");
    let orders = world.asked("/order");
    assert_eq!(orders.len(), 2, "{orders:?}");
    let id = orders[0]["replaces"].as_str().unwrap();
    assert!(id.split('.').all(|part| BASE64URL_NOPAD.decode(part.as_bytes()).is_ok_and(|part| part.len() > 8)), "{id}");
    assert_eq!(orders[1]["replaces"], Value::Null);
    assert_eq!(orders[1]["identifiers"], json!([{ "type": "dns", "value": NAME }]));
}

#[tokio::test]
async fn account_is_made_once_with_the_terms_accepted() {
    let world = World::new(|_| (500, "")).await;
    for _ in 0..2 {
        world.authority.wish(&kept()).await;
    }
    let accounts = world.asked("/new-account");
    assert_eq!(accounts.len(), 1, "{accounts:?}");
    assert_eq!(accounts[0]["termsOfServiceAgreed"], true);
}

#[tokio::test]
async fn contact_is_told_when_it_changes() {
    let mut world = World::new(|_| (500, "")).await;
    world.authority.settings.contact = Some("admin@example.org".to_owned());
    for _ in 0..2 {
        world.authority.wish(&kept()).await;
    }
    assert_eq!(world.asked("/account"), [json!({ "contact": ["mailto:admin@example.org"] })]);
    world.authority.settings.contact = None;
    world.authority.wish(&kept()).await;
    assert_eq!(world.asked("/account")[1..], [json!({ "contact": [] })]);
}

#[tokio::test]
async fn account_that_the_authority_has_forgotten_is_asked_for_again() {
    let world = World::new(|_| (400, "accountDoesNotExist")).await;
    world.order(None).await;
    assert_eq!((world.asked("/new-account").len(), world.asked("/order").len()), (2, 2), "tried once more");
}

#[tokio::test]
async fn gateway_without_room_for_a_certificate_orders_none() {
    let world = World::new(|_| (403, "rejectedIdentifier")).await;
    // Nothing can be written below a file.
    fs::write(world.authority.state_dir.acme(), "").unwrap();
    let refusal = world.order(None).await;
    let path = world.authority.state_dir.acme_certificate(NAME).display().to_string();
    assert!(refusal.reason.starts_with(&path) && refusal.reason.contains("cannot be written"), "{refusal:?}");
    assert!(world.asked.lock().unwrap().is_empty(), "nobody was asked");
    fs::remove_file(world.authority.state_dir.acme()).unwrap();
    world.order(None).await;
    assert_eq!(world.asked("/order").len(), 1, "the positive control");
}
