use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Barrier, broadcast};
use tokio::time::timeout;

use super::{
    CallError, Events, Follower, Handler, Handling, MAX_BODY, MAX_FOLLOWERS, Request, Response, Subscribing, call,
    follow, serve,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Answers `/echo` with the request, `/both` when two such requests are there, `/slow` never.
struct Echo(Barrier);

/// Tells at `/events` what a test says, after the word "first", while the test has the sender.
struct Teller(broadcast::WeakSender<String>);

impl Handler for Teller {
    fn follow(&self, request: &Request) -> Option<Subscribing<'_>> {
        (request.path == "/events").then(|| -> Subscribing<'_> {
            Box::pin(async {
                let tell = self.0.upgrade().ok_or_else(|| Response::refused(503, "it is ending"))?;
                Ok(Events::new(&"first".to_owned(), tell.subscribe()))
            })
        })
    }

    fn handle(&self, _request: Request) -> Handling<'_> {
        Box::pin(async { Response::ok(json!("whole")) })
    }
}

fn teller() -> (broadcast::Sender<String>, Arc<dyn Handler>) {
    let (tell, _) = broadcast::channel(16);
    let handler = Arc::new(Teller(tell.downgrade()));
    (tell, handler)
}

async fn next(follower: &mut Follower) -> Result<Option<Value>, CallError> {
    timeout(PATIENCE, follower.next()).await.expect("something comes in time")
}

/// A follower that has read the first line.
async fn followed(path: &Path) -> Follower {
    let mut follower = follow(path, "/events").await.unwrap();
    assert_eq!(next(&mut follower).await.unwrap(), Some(json!("first")));
    follower
}

impl Handler for Echo {
    fn handle(&self, request: Request) -> Handling<'_> {
        Box::pin(async move {
            match request.path.as_str() {
                "/echo" => Response::ok(json!([request.method, request.body, request.peer_uid])),
                "/both" => {
                    self.0.wait().await;
                    Response::ok(Value::Null)
                }
                "/slow" => std::future::pending().await,
                _ => Response::refused(404, "no such thing"),
            }
        })
    }
}

fn echo() -> Arc<dyn Handler> {
    Arc::new(Echo(Barrier::new(2)))
}

fn socket() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.sock");
    (directory, path)
}

#[tokio::test]
async fn a_call_brings_method_body_and_caller() {
    let (_directory, path) = socket();
    let _server = serve(&path, echo()).unwrap();
    let own = nix::unistd::Uid::effective().as_raw();
    let answer = call(&path, "POST", "/echo?x=1", &json!({"name": "alice"})).await.unwrap();
    assert_eq!(answer, json!(["POST", {"name": "alice"}, own]));
    assert_eq!(call(&path, "GET", "/echo", &Value::Null).await.unwrap(), json!(["GET", null, own]));
}

#[tokio::test]
async fn a_refusal_carries_status_and_message() {
    let (_directory, path) = socket();
    let _server = serve(&path, echo()).unwrap();
    let error = call(&path, "GET", "/nothing", &Value::Null).await.unwrap_err();
    assert!(matches!(&error, CallError::Refused { status: 404, message } if message == "no such thing"), "{error:?}");
}

#[tokio::test]
async fn calls_are_answered_at_the_same_time() {
    let (_directory, path) = socket();
    let _server = serve(&path, echo()).unwrap();
    let both =
        futures::future::join(call(&path, "GET", "/both", &Value::Null), call(&path, "GET", "/both", &Value::Null));
    let (first, second) = timeout(Duration::from_secs(10), both).await.unwrap();
    first.unwrap();
    second.unwrap();
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let (_directory, path) = socket();
    let _server = serve(&path, echo()).unwrap();
    let fits = "x".repeat(MAX_BODY - 2);
    call(&path, "POST", "/echo", &json!(fits)).await.unwrap();
    let error = call(&path, "POST", "/echo", &json!(fits + "x")).await.unwrap_err();
    assert!(matches!(error, CallError::Refused { status: 413, .. }), "{error:?}");
}

#[tokio::test]
async fn a_body_that_is_not_json_is_refused() {
    let (_directory, path) = socket();
    let _server = serve(&path, echo()).unwrap();
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream
        .write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nconnection: close\r\n\r\n{{{{")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn the_socket_is_private_and_goes_with_its_server() {
    let (_directory, path) = socket();
    let server = serve(&path, echo()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(server);
    assert!(!path.exists());
    assert!(matches!(call(&path, "GET", "/echo", &Value::Null).await, Err(CallError::NotRunning { .. })));
}

#[tokio::test]
async fn dropping_the_server_ends_its_connections() {
    let (_directory, path) = socket();
    let server = serve(&path, echo()).unwrap();
    let (caller, called) = (path.clone(), adit_program::task::spawn);
    let slow = called(async move { call(&caller, "GET", "/slow", &Value::Null).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(server);
    let answer = timeout(Duration::from_secs(5), slow).await.unwrap().unwrap();
    assert!(matches!(answer, Err(CallError::Io { .. } | CallError::NotRunning { .. })), "{answer:?}");
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let (_directory, path) = socket();
    drop(UnixListener::bind(&path).unwrap());
    assert!(matches!(call(&path, "GET", "/echo", &Value::Null).await, Err(CallError::NotRunning { .. })));
    let _server = serve(&path, echo()).unwrap();
    assert_eq!(serve(&path, echo()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    call(&path, "GET", "/echo", &Value::Null).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_not_a_socket_is_left_alone() {
    let (_directory, path) = socket();
    fs::write(&path, "precious").unwrap();
    assert_eq!(serve(&path, echo()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read_to_string(Path::new(&path)).unwrap(), "precious");
}

#[tokio::test]
async fn followers_hear_each_event_once_until_there_are_no_more() {
    let (_directory, path) = socket();
    let (tell, handler) = teller();
    let _server = serve(&path, handler).unwrap();
    let mut followers = [followed(&path).await, followed(&path).await];
    for event in ["second", "third\nwith a line end"] {
        tell.send(event.to_owned()).unwrap();
    }
    for follower in &mut followers {
        assert_eq!(next(follower).await.unwrap(), Some(json!("second")));
        assert_eq!(next(follower).await.unwrap(), Some(json!("third\nwith a line end")));
    }
    assert_eq!(call(&path, "GET", "/echo", &Value::Null).await.unwrap(), json!("whole"), "others are answered");
    drop(tell);
    for follower in &mut followers {
        assert_eq!(next(follower).await.unwrap(), None, "that was all");
    }
}

#[tokio::test]
async fn who_may_not_follow_hears_why() {
    let (_directory, path) = socket();
    let (tell, handler) = teller();
    let server = serve(&path, handler).unwrap();
    drop(tell);
    let error = follow(&path, "/events").await.err().unwrap();
    assert!(matches!(&error, CallError::Refused { status: 503, message } if message == "it is ending"), "{error:?}");
    drop(server);
    let error = follow(&path, "/events").await.err().unwrap();
    assert!(matches!(error, CallError::NotRunning { .. }), "{error:?}");
}

/// Tells the first follower that it is there, and no other any more.
#[derive(Default)]
struct Ending(OnceLock<broadcast::Sender<String>>);

impl Handler for Ending {
    fn follow(&self, _request: &Request) -> Option<Subscribing<'_>> {
        let (tell, later) = broadcast::channel(16);
        let is_first = self.0.set(tell).is_ok();
        let ending = || Response::refused(503, "it is ending");
        Some(Box::pin(async move { is_first.then(|| Events::new(&"first".to_owned(), later)).ok_or_else(ending) }))
    }

    fn handle(&self, _request: Request) -> Handling<'_> {
        Box::pin(async { Response::ok(Value::Null) })
    }
}

#[tokio::test]
async fn who_comes_while_the_server_waits_for_its_last_followers_hears_that_it_ends() {
    let (_directory, path) = socket();
    let server = serve(&path, Arc::new(Ending::default())).unwrap();
    let _slow = followed(&path).await;
    let (gone, late) = futures::future::join(server.followers_gone(), follow(&path, "/events")).await;
    let ((), Err(error)) = (gone, late) else { panic!("a late follower is let in") };
    assert!(matches!(&error, CallError::Refused { status: 503, message } if message == "it is ending"), "{error:?}");
}

#[tokio::test]
async fn followers_are_limited_and_one_that_leaves_makes_room() {
    let (_directory, path) = socket();
    let (_tell, handler) = teller();
    let _server = serve(&path, handler).unwrap();
    let mut followers = Vec::new();
    for _ in 0..MAX_FOLLOWERS {
        followers.push(followed(&path).await);
    }
    let error = follow(&path, "/events").await.err().unwrap();
    assert!(matches!(error, CallError::Refused { status: 503, .. }), "{error:?}");
    call(&path, "GET", "/echo", &Value::Null).await.unwrap();
    followers.pop();
    let has_room = async {
        while follow(&path, "/events").await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, has_room).await.expect("the place of one that left is free");
}

#[tokio::test]
async fn follower_that_does_not_read_is_dropped_and_others_hear_on() {
    let (_directory, path) = socket();
    let (tell, handler) = teller();
    let _server = serve(&path, handler).unwrap();
    let mut reader = followed(&path).await;
    let mut stuck = UnixStream::connect(&path).await.unwrap();
    stuck.write_all(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let both_follow = async {
        while tell.receiver_count() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, both_follow).await.unwrap();
    // More than its socket holds, and what waits in front of that.
    let long = "x".repeat(16 * 1024);
    let mut told = 0;
    let dropped = async {
        while tell.receiver_count() > 1 {
            tell.send(long.clone()).unwrap();
            told += 1;
            assert_eq!(next(&mut reader).await.unwrap(), Some(json!(long)));
        }
    };
    timeout(PATIENCE, dropped).await.expect("it is dropped");
    assert!(told > 32, "some may wait for a reader that pauses: {told}");
    let mut heard = Vec::new();
    timeout(PATIENCE, stuck.read_to_end(&mut heard)).await.expect("its connection is closed").ok();
    assert!(!heard.ends_with(b"0\r\n\r\n"), "it is not told that it has heard all");
}

#[tokio::test]
async fn last_event_is_heard_although_the_server_goes() {
    let (_directory, path) = socket();
    let (tell, handler) = teller();
    let server = serve(&path, handler).unwrap();
    let mut follower = followed(&path).await;
    tell.send("last".to_owned()).unwrap();
    drop(tell);
    timeout(PATIENCE, server.followers_gone()).await.unwrap();
    drop(server);
    assert_eq!(next(&mut follower).await.unwrap(), Some(json!("last")));
    assert_eq!(next(&mut follower).await.unwrap(), None);
}

#[tokio::test]
async fn server_that_breaks_off_is_told_from_one_that_has_told_all() {
    let (_directory, path) = socket();
    let (_tell, handler) = teller();
    let server = serve(&path, handler).unwrap();
    let mut follower = followed(&path).await;
    drop(server);
    let error = next(&mut follower).await.unwrap_err();
    assert!(matches!(error, CallError::Io { .. }), "{error:?}");
}
