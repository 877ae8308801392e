//! A private D-Bus daemon with something on it that answers as systemd-resolved.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use adit_program::task::{self, Task};
use adit_testing::skip;
use futures::StreamExt;
use zbus::message::{Message, Type};
use zbus::{Connection, MessageStream, conn};

/// Enough for a private bus: anyone on it may own and call anything.
const CONFIGURATION: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=@SOCKET@</listen><policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>"#;

/// Something that answers as systemd-resolved and remembers what it was asked.
pub(super) struct FakeResolved {
    /// D-Bus address of its bus.
    pub(super) address: String,
    calls: Arc<Mutex<Vec<String>>>,
    _serving: Task,
    _daemon: Daemon,
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().expect("the daemon is our child");
        self.0.wait().expect("the daemon is our child");
    }
}

impl FakeResolved {
    /// Starts bus and service; without a `dbus-daemon` program, says that the test is skipped.
    pub(super) async fn start(directory: &Path) -> Option<Self> {
        let socket = directory.join("bus");
        let configuration = directory.join("bus.conf");
        fs::write(&configuration, CONFIGURATION.replace("@SOCKET@", &socket.to_string_lossy())).unwrap();
        let started = Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile", "--print-address", "--config-file"])
            .arg(&configuration)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut daemon) = started else {
            skip("needs the program dbus-daemon");
            return None;
        };
        let mut address = String::new();
        let stdout = daemon.stdout.take().unwrap();
        let daemon = Daemon(daemon);
        BufReader::new(stdout).read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        let connection = conn::Builder::address(address.as_str()).build().await.unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let messages = MessageStream::from(&connection);
        connection.request_name("org.freedesktop.resolve1").await.unwrap();
        let serving = task::spawn(serve(connection, messages, calls.clone()));
        Some(Self { address, calls, _serving: serving, _daemon: daemon })
    }

    /// The calls so far: method and arguments.
    pub(super) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

async fn serve(connection: Connection, mut messages: MessageStream, calls: Arc<Mutex<Vec<String>>>) {
    while let Some(Ok(message)) = messages.next().await {
        let header = message.header();
        if header.message_type() == Type::MethodCall {
            let method = header.member().map(ToString::to_string).unwrap_or_default();
            let arguments = arguments(&method, &message);
            calls.lock().unwrap().push(format!("{method} {arguments}").trim_end().to_owned());
            connection.reply(&header, &()).await.unwrap();
        }
    }
}

fn arguments(method: &str, message: &Message) -> String {
    let body = message.body();
    match method {
        "SetLinkDNS" => format!("{:?}", body.deserialize::<(i32, Vec<(i32, Vec<u8>)>)>().unwrap()),
        "SetLinkDomains" => format!("{:?}", body.deserialize::<(i32, Vec<(String, bool)>)>().unwrap()),
        "SetLinkDefaultRoute" => format!("{:?}", body.deserialize::<(i32, bool)>().unwrap()),
        "RevertLink" => format!("{:?}", body.deserialize::<i32>().unwrap()),
        _ => String::new(),
    }
}
