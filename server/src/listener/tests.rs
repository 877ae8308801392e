use std::net::{IpAddr, Ipv4Addr};

use adit_net::tls::{ServerIdentity, challenge_config, client_config, listener_config};
use adit_program::task::{self, Task};
use hyper::StatusCode;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::ClientConfig;
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::connection::{MAX_HEAD, PATIENCE, admit};
use super::*;

/// A guest that answers at `/here`, takes over what comes to `/take`, and never answers at `/never`.
#[derive(Default)]
struct Host {
    /// Told when a connection that was taken over has ended.
    ended: Arc<Notify>,
}

impl Guest for Host {
    fn wants(&self, head: &Parts) -> bool {
        ["/here", "/take", "/never"].contains(&head.uri.path())
    }

    fn answer<'a>(
        &'a self,
        request: Request<Incoming>,
        caller: &'a Caller,
    ) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>> {
        Box::pin(async move {
            match request.uri().path() {
                "/never" => std::future::pending().await,
                "/take" => {
                    let mut answer = Answer::default();
                    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
                    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("echo"));
                    let ended = Arc::clone(&self.ended);
                    Reply::TakeOver(answer, Box::new(|stream, early| Box::pin(echo(stream, early, ended))))
                }
                _ => {
                    let shown = caller.certificate.is_some();
                    Reply::Answer(page(StatusCode::OK, "text/plain", format!("{:?} {shown}", caller.protocol)))
                }
            }
        })
    }
}

/// Says everything back in capitals.
async fn echo(mut stream: CallerStream, early: Bytes, ended: Arc<Notify>) {
    let mut heard = early.to_vec();
    loop {
        heard.make_ascii_uppercase();
        if stream.write_all(&heard).await.is_err() || stream.flush().await.is_err() {
            break;
        }
        heard.resize(1024, 0);
        match stream.read(&mut heard).await {
            Ok(0) | Err(_) => break,
            Ok(length) => heard.truncate(length),
        }
    }
    ended.notify_one();
}

/// An authority, and what it issued for the gateway and for a device.
struct Issued {
    authority: CertificateDer<'static>,
    identity: Arc<ServerIdentity>,
    device: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
}

fn issue() -> Issued {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority: CertificateDer<'static> = params.self_signed(&key).unwrap().into();
    let issuer = Issuer::new(params, key);
    let leaf = |name: &str, usage| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let leaf = params.signed_by(&key, &issuer).unwrap();
        (vec![leaf.into()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    };
    let (chain, key) = leaf("gateway.test", ExtendedKeyUsagePurpose::ServerAuth);
    let identity = Arc::new(ServerIdentity::new([chain, vec![authority.clone()]].concat(), key).unwrap());
    Issued { authority, identity, device: leaf("device.test", ExtendedKeyUsagePurpose::ClientAuth) }
}

/// A listener on the loopback, which ends when this is dropped.
struct Served {
    port: u16,
    issued: Issued,
    ended: Arc<Notify>,
    challenges: Arc<Challenges>,
    _serving: Task,
}

fn guests(callers: usize, challenges: &Arc<Challenges>) -> (Arc<Guests>, Arc<Notify>) {
    let host = Host::default();
    let ended = Arc::clone(&host.ended);
    (Arc::new(Guests::alone(vec![Arc::new(host)], callers).answering(challenges)), ended)
}

fn serving(has_tls: bool) -> Served {
    let issued = issue();
    let socket = bind((Ipv4Addr::LOCALHOST, 0).into(), "listen", "").unwrap();
    let port = socket.local_addr().unwrap().port();
    let tls = has_tls.then(|| listener_config(Arc::clone(&issued.identity), &issued.authority, false).unwrap());
    let challenges = Arc::default();
    let (guests, ended) = guests(512, &challenges);
    let listener = Listener::new(socket, tls).unwrap();
    Served { port, issued, ended, challenges, _serving: task::spawn(listener.serve(guests)) }
}

async fn connect(port: u16) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap()
}

fn client(authority: &CertificateDer<'static>, device: &Issued) -> Arc<ClientConfig> {
    let (chain, key) = &device.device;
    let mut config = ClientConfig::clone(&client_config(authority, Some((chain.clone(), key.clone_key()))).unwrap());
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"adit".to_vec()];
    Arc::new(config)
}

async fn shake_hands(stream: TcpStream, client: Arc<ClientConfig>) -> io::Result<ClientStream<TcpStream>> {
    TlsConnector::from(client).connect(ServerName::try_from("gateway.test").unwrap(), stream).await
}

/// Sends a request and gives all that comes back until the connection ends.
async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &str) -> String {
    // A gateway that refuses the head may not take all of it.
    let _refused = stream.write_all(text.as_bytes()).await;
    let mut heard = Vec::new();
    let _reset = stream.read_to_end(&mut heard).await;
    String::from_utf8(heard).unwrap()
}

/// All that comes until it ends like this.
async fn hear(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut heard = Vec::new();
    while !heard.ends_with(end.as_bytes()) {
        assert_ne!(stream.read_buf(&mut heard).await.unwrap(), 0, "{heard:?}");
    }
    String::from_utf8(heard).unwrap()
}

fn request(cookies: usize) -> String {
    let cookies = "x".repeat(cookies);
    format!("GET /here HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncookie: {cookies}\r\n\r\n")
}

fn is_answered(heard: &str) -> bool {
    heard.starts_with("HTTP/1.1 200 OK\r\n")
}

#[tokio::test]
async fn callers_are_served_over_tls_and_known_by_their_certificate() {
    let served = serving(true);
    let trusting = client(&served.issued.authority, &served.issued);
    let heard = say(shake_hands(connect(served.port).await, trusting).await.unwrap(), &request(0)).await;
    assert!(is_answered(&heard) && heard.ends_with("Some(TLSv1_3) true"), "{heard}");
    let another = client(&issue().authority, &served.issued);
    assert!(shake_hands(connect(served.port).await, another).await.is_err(), "the gateway shows its own certificate");
    let strange = client(&served.issued.authority, &issue());
    let refused = shake_hands(connect(served.port).await, strange).await;
    let heard = say(refused.unwrap(), &request(0)).await;
    assert_eq!(heard, "", "a certificate of another authority ends the handshake");
    assert!(!is_answered(&say(connect(served.port).await, &request(0)).await), "there is no way without TLS");
}

#[tokio::test]
async fn what_is_nobodys_gets_an_answer_that_tells_nothing() {
    let served = serving(false);
    for line in ["GET / HTTP/1.1", "POST /here/too HTTP/1.1", "CONNECT a:443 HTTP/1.1", "BREW /pot HTTP/1.1"] {
        let heard = say(connect(served.port).await, &format!("{line}\r\nhost: a\r\nconnection: close\r\n\r\n")).await;
        let (head, body) = heard.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n") && body.is_empty(), "{line}: {heard}");
        assert!(!head.contains("server:") && !head.contains("dit"), "{line}: {heard}");
    }
}

#[tokio::test]
async fn connection_that_a_guest_takes_over_is_its_own_for_as_long_as_it_likes() {
    let served = serving(true);
    let trusting = client(&served.issued.authority, &served.issued);
    let mut stream = shake_hands(connect(served.port).await, trusting).await.unwrap();
    // What follows the request at once is not lost.
    let ask = "GET /take HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let heard = hear(&mut stream, "EARLY").await;
    assert!(heard.starts_with("HTTP/1.1 101"), "{heard}");
    tokio::time::pause();
    sleep(Duration::from_secs(3600)).await;
    tokio::time::resume();
    stream.write_all(b"late").await.unwrap();
    assert_eq!(hear(&mut stream, "LATE").await, "LATE");
    drop(stream);
    timeout(adit_testing::PATIENCE, served.ended.notified()).await.expect("the guest sees the end");
}

#[tokio::test]
async fn head_that_no_browser_sends_is_refused() {
    let Served { port, _serving, .. } = serving(false);
    assert!(is_answered(&say(connect(port).await, &request(4096)).await));
    assert!(!is_answered(&say(connect(port).await, &request(2 * MAX_HEAD)).await));
    let many = request(0).replace("cookie: ", &"a: b\r\n".repeat(1000));
    assert!(!is_answered(&say(connect(port).await, &many).await));
}

#[tokio::test]
async fn who_is_slow_to_ask_is_not_waited_for() {
    let Served { port, _serving, .. } = serving(false);
    let stream = connect(port).await;
    tokio::time::pause();
    let began = Instant::now();
    assert!(!is_answered(&say(stream, "GET /here HTTP/1.1\r\n").await));
    assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
}

#[tokio::test]
async fn who_is_slow_to_shake_hands_is_not_waited_for() {
    let Served { port, _serving, .. } = serving(true);
    let stream = connect(port).await;
    tokio::time::pause();
    let began = Instant::now();
    assert_eq!(say(stream, "").await, "");
    assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
}

/// Asks as an authority about `gateway.test`, but with these protocols, and gives what the answer says and is certified
/// with, if there is one.
async fn asked(served: &Served, authority: &CertificateDer<'static>, protocols: &[&[u8]]) -> Option<(String, Vec<u8>)> {
    let mut config = ClientConfig::clone(&client(authority, &served.issued));
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let stream = shake_hands(connect(served.port).await, Arc::new(config)).await.ok()?;
    let certified = stream.get_ref().1.peer_certificates()?.first()?.to_vec();
    Some((say(stream, &request(0)).await, certified))
}

#[tokio::test]
async fn authority_is_answered_about_a_name_in_question_alone_and_hears_nothing_else() {
    const QUESTION: &[u8] = b"acme-tls/1";
    let served = serving(true);
    let own = served.issued.authority.clone();
    assert_eq!(asked(&served, &own, &[QUESTION]).await, None, "nothing is in question");
    let key = KeyPair::generate().unwrap();
    let proof = CertificateParams::new(vec!["gateway.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    let answer = || {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        challenge_config(proof.der().clone(), key).unwrap()
    };
    let other = served.challenges.offer("other.test", answer());
    for authority in [&own, proof.der()] {
        assert_eq!(asked(&served, authority, &[QUESTION]).await, None, "another name is");
    }
    drop(other);

    let offer = served.challenges.offer("gateway.test", answer());
    let told = asked(&served, proof.der(), &[QUESTION]).await.unwrap();
    assert_eq!(told, (String::new(), proof.der().to_vec()), "the proof, and no answer to a request");
    // Who offers anything else beside it is no authority.
    let told = asked(&served, &own, &[b"http/1.1", QUESTION]).await.unwrap();
    assert!(is_answered(&told.0) && told.1 != proof.der().to_vec(), "{told:?}");
    let told = asked(&served, &own, &[QUESTION, b"http/1.1"]).await.unwrap();
    assert!(is_answered(&told.0) && told.1 != proof.der().to_vec(), "{told:?}");
    let told = asked(&served, &own, &[b"http/1.1"]).await.unwrap();
    assert!(is_answered(&told.0), "others are served meanwhile");
    drop(offer);
    assert_eq!(asked(&served, proof.der(), &[QUESTION]).await, None, "it is over");
    assert_eq!(asked(&served, &own, &[QUESTION]).await, None, "and no other certificate is shown");
}

/// How long a connection lasts on which a byte is said each second, at most a minute.
async fn lasts_drop_by_drop(mut stream: TcpStream, text: &[u8]) -> u64 {
    tokio::time::pause();
    let began = Instant::now();
    for byte in text.iter().cycle().take(60) {
        let said = stream.write_all(std::slice::from_ref(byte)).await;
        let mut room = [0; 64];
        let heard = timeout(Duration::from_secs(1), stream.read(&mut room)).await;
        if said.is_err() || heard.is_ok() {
            break;
        }
    }
    began.elapsed().as_secs()
}

#[tokio::test]
async fn who_asks_drop_by_drop_is_waited_for_no_longer() {
    let Served { port, _serving, .. } = serving(false);
    let lasted = lasts_drop_by_drop(connect(port).await, b"GET /here HTTP/1.1\r\nx: ").await;
    assert!((PATIENCE.as_secs()..=PATIENCE.as_secs() + 1).contains(&lasted), "{lasted}");
}

#[tokio::test]
async fn who_shakes_hands_drop_by_drop_is_waited_for_no_longer() {
    let Served { port, _serving, .. } = serving(true);
    // A record of a handshake that has 512 bytes.
    let record = [&[22, 3, 1, 2, 0][..], &[0; 55]].concat();
    let lasted = lasts_drop_by_drop(connect(port).await, &record).await;
    assert!((PATIENCE.as_secs()..=PATIENCE.as_secs() + 1).contains(&lasted), "{lasted}");
}

#[tokio::test]
async fn connection_ends_after_a_minute_however_busy_it_is_and_a_last_answer_after_another() {
    let Served { port, _serving, .. } = serving(false);
    for (path, most) in [("/here", 65), ("/never", 125)] {
        let mut stream = connect(port).await;
        tokio::time::pause();
        let began = Instant::now();
        let ask = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        let mut heard = vec![0; 4096];
        loop {
            let ended = stream.write_all(ask.as_bytes()).await.is_err();
            if ended || matches!(stream.read(&mut heard).await, Ok(0) | Err(_)) {
                break;
            }
            sleep(Duration::from_secs(5)).await;
        }
        assert!((most - 10..=most).contains(&began.elapsed().as_secs()), "{path}: {:?}", began.elapsed());
        tokio::time::resume();
    }
}

/// The other end of a connection from this address, which is handed to the gateway.
async fn from(address: [u8; 4], tls: &TlsAcceptor, guests: &Arc<Guests>) -> (TcpStream, Task) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let stream = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = socket.accept().await.unwrap();
    let address = SocketAddr::new(IpAddr::from(address), 1);
    (stream, task::spawn(admit(accepted, address, Some(tls.clone()), Arc::clone(guests))))
}

#[tokio::test]
async fn strangers_that_stay_give_way_and_one_network_cannot_take_all_places() {
    let issued = issue();
    let tls = TlsAcceptor::from(listener_config(Arc::clone(&issued.identity), &issued.authority, false).unwrap());
    let trusting = client(&issued.authority, &issued);
    let (guests, _) = guests(128, &Arc::default());
    let asked = async |address| {
        let (stream, _task) = from(address, &tls, &guests).await;
        let Ok(stream) = shake_hands(stream, Arc::clone(&trusting)).await else { return false };
        is_answered(&say(stream, &request(0)).await)
    };
    let mut held = Vec::new();
    for number in 0..8 {
        held.push(from([192, 0, 2, number], &tls, &guests).await);
        tokio::task::yield_now().await;
    }
    assert!(!asked([192, 0, 2, 200]).await, "its network's share is taken");
    assert!(asked([198, 51, 100, 1]).await);
    let served = timeout(adit_testing::PATIENCE, async {
        while !asked([192, 0, 2, 200]).await {
            sleep(Duration::from_millis(50)).await;
        }
    });
    served.await.expect("who has done nothing for a second gives way");
    assert_eq!(say(held.remove(0).0, "").await, "", "and hears so");
}

/// Lets this process have so many files open.
fn allow_files(number: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(number).min(hard), hard).unwrap();
}

#[tokio::test]
async fn thousand_half_open_handshakes_of_as_many_networks_keep_nobody_out() {
    const HALF_OPEN: u8 = 250;
    allow_files(4096);
    let issued = issue();
    let tls = TlsAcceptor::from(listener_config(Arc::clone(&issued.identity), &issued.authority, false).unwrap());
    let trusting = client(&issued.authority, &issued);
    let (guests, _) = guests(4 * usize::from(HALF_OPEN), &Arc::default());
    let mut held = Vec::new();
    for (first, second) in
        [10, 20, 30, 40].into_iter().flat_map(|first| (0..HALF_OPEN).map(move |second| (first, second)))
    {
        let (mut stream, task) = from([first, second, 0, 1], &tls, &guests).await;
        stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        held.push((stream, task));
        tokio::task::yield_now().await;
    }
    let open = held.iter().filter(|(_, task)| !task.is_finished()).count();
    assert_eq!(open, 4 * usize::from(HALF_OPEN), "each has a place");
    for user in [[10, 0, 0, 1], [192, 0, 2, 1]] {
        let served = timeout(adit_testing::PATIENCE, async {
            loop {
                let (stream, _task) = from(user, &tls, &guests).await;
                let Ok(stream) = shake_hands(stream, Arc::clone(&trusting)).await else {
                    sleep(Duration::from_millis(50)).await;
                    continue;
                };
                break is_answered(&say(stream, &request(0)).await);
            }
        });
        assert!(served.await.expect("who does no more than that gives way"), "{user:?}");
    }
    let left = held.iter().filter(|(_, task)| !task.is_finished()).count();
    assert!(left >= open - 8, "and no more of them than is needed: {left}");
}
