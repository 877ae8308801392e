//! A private D-Bus daemon with something on it that answers as systemd-resolved.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use adit_program::task::{self, Task};
use adit_testing::skip;
use futures::StreamExt;
use zbus::as_variant::Serialize;
use zbus::message::{Message, Type};
use zbus::{Connection, MessageStream, ObjectPath, conn};

/// Enough for a private bus: anyone on it may own and call anything.
const CONFIGURATION: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=@SOCKET@</listen><policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>"#;

/// Path of a link's object, without its index.
const LINKS: &str = "/org/freedesktop/resolve1/link/_";

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

/// A server's address family, address, port and name.
type ExtendedServer = (i32, Vec<u8>, u16, String);

/// The settings of a link. The administrator wants TLS and signatures everywhere.
#[derive(Debug, Clone, Default)]
struct Link {
    servers: Vec<(i32, Vec<u8>)>,
    domains: Vec<(String, bool)>,
    default_route: bool,
    without_tls: bool,
    without_signatures: bool,
}

async fn serve(connection: Connection, mut messages: MessageStream, calls: Arc<Mutex<Vec<String>>>) {
    let mut links = BTreeMap::<i32, Link>::new();
    while let Some(Ok(message)) = messages.next().await {
        let header = message.header();
        if header.message_type() != Type::MethodCall {
            continue;
        }
        let method = header.member().map(ToString::to_string).unwrap_or_default();
        match method.as_str() {
            "GetLink" => {
                let object = format!("{LINKS}{}", message.body().deserialize::<i32>().unwrap());
                connection.reply(&header, &ObjectPath::try_from(object).unwrap()).await.unwrap();
            }
            "Get" => answer(&connection, &message, &links).await,
            _ => {
                let arguments = take(&method, &message, &mut links);
                calls.lock().unwrap().push(format!("{method} {arguments}").trim_end().to_owned());
                connection.reply(&header, &()).await.unwrap();
            }
        }
    }
}

/// Answers with a property of a link, or of all links.
async fn answer(connection: &Connection, message: &Message, links: &BTreeMap<i32, Link>) {
    let (header, body) = (message.header(), message.body());
    let (_, name): (String, String) = body.deserialize().unwrap();
    let object = header.path().map(ToString::to_string).unwrap_or_default();
    let index: i32 = object.strip_prefix(LINKS).map_or(0, |index| index.parse().unwrap());
    let link = links.get(&index).cloned().unwrap_or_default();
    let word = |off: bool| if off { "no".to_owned() } else { "yes".to_owned() };
    let replied = match name.as_str() {
        "DNS" => connection.reply(&header, &Serialize(&link.servers)).await,
        "Domains" => connection.reply(&header, &Serialize(&link.domains)).await,
        "DefaultRoute" => connection.reply(&header, &Serialize(&link.default_route)).await,
        "DNSOverTLS" => connection.reply(&header, &Serialize(&word(link.without_tls))).await,
        "DNSSEC" => connection.reply(&header, &Serialize(&word(link.without_signatures))).await,
        "DNSEx" => {
            let all = links.iter().flat_map(|(index, link)| {
                let extended =
                    |(family, address): &(i32, Vec<u8>)| (*index, *family, address.clone(), 0u16, String::new());
                link.servers.iter().map(extended).collect::<Vec<_>>()
            });
            connection.reply(&header, &Serialize(&all.collect::<Vec<_>>())).await
        }
        other => panic!("nobody told the fake of {other}"),
    };
    replied.unwrap();
}

/// Does what a call says, and returns its arguments as text.
fn take(method: &str, message: &Message, links: &mut BTreeMap<i32, Link>) -> String {
    let body = message.body();
    match method {
        "SetLinkDNS" => {
            let (index, servers): (i32, Vec<(i32, Vec<u8>)>) = body.deserialize().unwrap();
            links.entry(index).or_default().servers.clone_from(&servers);
            format!("{:?}", (index, servers))
        }
        "SetLinkDNSEx" => {
            let (index, servers): (i32, Vec<ExtendedServer>) = body.deserialize().unwrap();
            let plain = servers.iter().map(|(family, address, ..)| (*family, address.clone()));
            links.entry(index).or_default().servers = plain.collect();
            format!("{:?}", (index, servers))
        }
        "SetLinkDomains" => {
            let (index, domains): (i32, Vec<(String, bool)>) = body.deserialize().unwrap();
            links.entry(index).or_default().domains.clone_from(&domains);
            format!("{:?}", (index, domains))
        }
        "SetLinkDefaultRoute" => {
            let (index, takes_all): (i32, bool) = body.deserialize().unwrap();
            links.entry(index).or_default().default_route = takes_all;
            format!("{:?}", (index, takes_all))
        }
        "SetLinkDNSOverTLS" | "SetLinkDNSSEC" => {
            let (index, mode): (i32, String) = body.deserialize().unwrap();
            let link = links.entry(index).or_default();
            *(if method == "SetLinkDNSSEC" { &mut link.without_signatures } else { &mut link.without_tls }) = true;
            format!("{:?}", (index, mode))
        }
        "RevertLink" => {
            let index: i32 = body.deserialize().unwrap();
            links.remove(&index);
            format!("{index:?}")
        }
        _ => String::new(),
    }
}
