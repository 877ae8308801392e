use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Barrier;
use tokio::time::timeout;

use super::{CallError, Handler, Handling, MAX_BODY, Request, Response, call, serve};

/// Answers `/echo` with the request, `/both` when two such requests are there, `/slow` never.
struct Echo(Barrier);

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
