//! A double of a gateway for tests: real QUIC, TLS and HTTP/3 on the loopback, and answers that the test writes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use adit_net::http::h3::H3Connection;
use adit_net::http::stream::TunnelStream;
use adit_net::quic;
use adit_net::tls::{self, ServerIdentity};
use adit_program::task::{self, Task};
use adit_proto::http::field::{Field, value};
use adit_proto::http::h3::message::MessageEvent;
use adit_proto::invite::Place;
use adit_proto::role::Role;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

/// What a test answers to a request for a path with a body: a status and a body.
pub(crate) type Answers = Box<dyn FnMut(&str, &Value) -> (u16, Value) + Send>;

/// A certificate authority.
pub(crate) struct Authority {
    pub(crate) certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), certificate: certificate.into(), issuer: Issuer::new(params, key) }
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }

    /// A chain and key for the loopback address.
    fn issue(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (vec![leaf.into(), self.certificate.clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

/// The gateway; it ends on drop.
pub(crate) struct GatewayDouble {
    endpoint: quinn::Endpoint,
    pub(crate) own: Arc<Authority>,
    /// Path and body of each request so far.
    pub(crate) asked: Arc<Mutex<Vec<(String, Value)>>>,
    _serving: Task,
}

impl GatewayDouble {
    /// Starts one that shows the public a certificate of `public`, if there is one.
    pub(crate) fn start(public: Option<&Authority>, answers: Answers) -> Self {
        let own = Arc::new(Authority::new());
        let (chain, key) = own.issue();
        let identity = ServerIdentity::new(chain, key).unwrap();
        if let Some((chain, key)) = public.map(Authority::issue) {
            identity.show_to_public(tls::Certified::new(chain, key).unwrap().into());
        }
        let tls = tls::server_config(Arc::new(identity), &own.certificate).unwrap();
        let socket = quic::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).unwrap();
        let keys = quic::EndpointKeys { reset: [1; 32], token: [2; 32], connection_id: 3 };
        let endpoint = quic::server_endpoint(socket, tls, &keys).unwrap();
        let asked = Arc::<Mutex<Vec<(String, Value)>>>::default();
        let serving = task::spawn(serve(endpoint.clone(), Arc::clone(&asked), answers));
        Self { endpoint, own, asked, _serving: serving }
    }

    pub(crate) fn place(&self) -> Place {
        let address = self.endpoint.local_addr().unwrap();
        Place { host: address.ip().to_string(), port: address.port() }
    }

    /// The paths and bodies of all requests.
    pub(crate) fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().clone()
    }

    /// What the gateway answers to an enrolment.
    pub(crate) fn enrolled(own: &Authority, request: &Value) -> Value {
        let csr = CertificateSigningRequestParams::from_pem(request["csr"].as_str().unwrap()).unwrap();
        let certificate = csr.signed_by(&own.issuer).unwrap().pem();
        json!({ "user": "alice", "device": "d1", "certificate": certificate, "authority": own.pem })
    }
}

async fn serve(endpoint: quinn::Endpoint, asked: Arc<Mutex<Vec<(String, Value)>>>, mut answers: Answers) {
    while let Some(incoming) = endpoint.accept().await {
        let Ok(quic) = incoming.await else { continue };
        let http = H3Connection::start(quic, Role::Server);
        let Ok(stream) = http.accept_request().await else { continue };
        let mut stream = TunnelStream::from(stream);
        let Ok(Some(MessageEvent::Headers(fields))) = stream.next_event().await else { continue };
        let path = value(&fields, ":path").unwrap().to_owned();
        let body: Value = serde_json::from_slice(&stream.read_body(16 * 1024).await.unwrap()).unwrap();
        let (status, answer) = answers(&path, &body);
        asked.lock().unwrap().push((path, body));
        let answer = serde_json::to_vec(&answer).unwrap();
        let fields =
            [Field::new(":status", status.to_string()), Field::new("content-length", answer.len().to_string())];
        stream.send_headers(&fields).await.unwrap();
        stream.send_data(&answer).await.unwrap();
        stream.finish();
        http.quic().closed().await;
    }
}
