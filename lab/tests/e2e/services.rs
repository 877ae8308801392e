//! Services of the lab's hosts, and who connects to them.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use adit_lab::Host;
use adit_testing::PATIENCE;

/// Opens a port on all addresses of a host, until the listener is dropped.
pub(crate) fn listen(host: &Host, port: u16) -> TcpListener {
    host.run(move || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap())
}

/// A service that says `word` to whoever connects, and closes.
pub(crate) fn say(host: &Host, port: u16, word: &'static str) {
    let listener = listen(host, port);
    drop(host.start(move || {
        for stream in listener.incoming() {
            let _gone = stream.and_then(|mut stream| stream.write_all(word.as_bytes()));
        }
    }));
}

/// A service that sends back what comes, on many connections.
pub(crate) fn echo(host: &Host, port: u16) {
    let listener = listen(host, port);
    drop(host.start(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut reader = stream.try_clone().unwrap();
                let mut writer = stream;
                let _ended = io::copy(&mut reader, &mut writer);
            });
        }
    }));
}

/// Connects from a host; what is read from the connection has to come.
pub(crate) fn connect(from: &Host, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let stream = from.run(move || TcpStream::connect_timeout(&to, patience))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// What a program that connects to [`say`] hears, or how it is refused.
pub(crate) fn hear(from: &Host, to: SocketAddr) -> Result<String, io::ErrorKind> {
    let mut said = String::new();
    let heard = connect(from, to, PATIENCE).and_then(|mut stream| stream.read_to_string(&mut said));
    heard.map(|_| said).map_err(|error| error.kind())
}
