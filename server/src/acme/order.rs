//! One order, from the first word to the certificate (RFC 8555 section 7.4, RFC 8737).

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use adit_net::tls::{Certified, challenge_config};
use adit_program::durable_file::Reservation;
use adit_program::exit::{Exit, Failure};
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use zeroize::Zeroizing;

use super::fault::{Fault, is_about_former};
use super::files::{create_folder, unwritten};
use super::kept::{Kept, text};
use crate::directories::StateDir;
use crate::listener::Challenges;
use crate::off_runtime::off_runtime;

/// Room that is taken before a certificate is ordered: key and chain need some 10 KiB, and no more than this is read.
const ROOM: usize = 60 << 10;
/// How long an authority may look at a proof, or issue.
const PATIENCE: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(120));

/// A name, and what is known about it.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    /// The certificate that the new one replaces.
    pub(super) former: Option<CertificateIdentifier<'static>>,
    /// Where it is ordered.
    pub(super) directory: &'a str,
}

impl Wanted<'_> {
    /// Gets a certificate, which is in its file when this returns.
    pub(super) async fn get(&self, room: Room, account: &Account, challenges: &Arc<Challenges>) -> Result<Kept, Fault> {
        let mut order = self.order(account).await?;
        self.prove(&mut order, challenges).await?;
        let key = KeyPair::generate().map_err(|error| self.unmade(&error))?;
        let mut params = CertificateParams::new(vec![self.name.to_owned()]).map_err(|error| self.unmade(&error))?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(|error| self.unmade(&error))?;
        order.finalize_csr(request.der()).await?;
        let chain = order.poll_certificate(&PATIENCE).await?;
        let key = Zeroizing::new(key.serialize_pem());
        let content = text(self.directory, &key, &chain);
        let kept = self.check(&content)?;
        room.fill(content).await?;
        Ok(kept)
    }

    /// Orders, and says which certificate is replaced, if the authority takes that.
    async fn order(&self, account: &Account) -> Result<Order, Error> {
        let names = [Identifier::Dns(self.name.to_owned())];
        if let Some(former) = self.former.clone() {
            match account.new_order(&NewOrder::new(&names).replaces(former)).await {
                Err(error) if is_about_former(&error) => {
                    tracing::debug!(%error, "the authority does not hear of the former certificate");
                }
                ordered => return ordered,
            }
        }
        account.new_order(&NewOrder::new(&names)).await
    }

    /// Proves that the name is the gateway's. The proof is on offer until the authority has looked.
    async fn prove(&self, order: &mut Order, challenges: &Arc<Challenges>) -> Result<(), Fault> {
        let mut offers = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
            let mut challenge = challenge.ok_or_else(|| self.no_way())?;
            let answer = self.answer(challenge.key_authorization().digest().as_ref())?;
            offers.push(challenges.offer(self.name, answer));
            challenge.set_ready().await?;
        }
        match order.poll_ready(&PATIENCE).await {
            Ok(OrderStatus::Ready) => Ok(()),
            Ok(_) => Err(why_refused(order, Error::Str("why the authority refused the order")).await.into()),
            Err(error) => Err(why_refused(order, error).await.into()),
        }
    }

    /// What an authority gets to see that looks for the proof (RFC 8737 section 3).
    fn answer(&self, digest: &[u8]) -> Result<Arc<ServerConfig>, Fault> {
        let key = KeyPair::generate().map_err(|error| self.unmade(&error))?;
        let mut params = CertificateParams::new(vec![self.name.to_owned()]).map_err(|error| self.unmade(&error))?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let proof = params.self_signed(&key).map_err(|error| self.unmade(&error))?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| self.unmade(&error))?;
        let config = challenge_config(proof.der().clone(), key).map_err(|error| self.unmade(&error))?;
        Ok(config)
    }

    /// What was issued: a certificate for the name and the key, which clients can check.
    fn check(&self, content: &[u8]) -> Result<Kept, Failure> {
        let unfit = |reason: String| {
            let next = "look whether acme.directory is that of an authority you trust";
            Failure::new(Exit::Other, format!("what the authority issued for {}", self.name), reason, next)
        };
        if content.len() > ROOM {
            return Err(unfit(format!("is larger than {ROOM} bytes")));
        }
        let kept = Kept::of_text(content).ok_or_else(|| unfit("is no certificate".to_owned()))?;
        let chain = CertificateDer::pem_slice_iter(content).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| unfit(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(content).map_err(|error| unfit(error.to_string()))?;
        Certified::new(chain, key).map_err(|error| unfit(error.to_string()))?;
        let name = ServerName::try_from(self.name).map_err(|error| unfit(error.to_string()))?;
        let parsed = ParsedCertificate::try_from(&kept.certificate).map_err(|error| unfit(error.to_string()))?;
        verify_server_name(&parsed, &name).map_err(|error| unfit(error.to_string()))?;
        Ok(kept)
    }

    fn no_way(&self) -> Failure {
        let reason = "it does not look at names by tls-alpn-01, the only way that the gateway has";
        let next = "name another authority in acme.directory, or files in tls.certificate and tls.key";
        Failure::new(Exit::Other, format!("the authority asked about {}", self.name), reason, next)
    }

    fn unmade(&self, error: &dyn Display) -> Failure {
        let what = format!("a certificate for {}", self.name);
        Failure::new(Exit::Other, what, error.to_string(), "look at the name in acme.names")
    }
}

/// Why an authority did not believe a proof. It says so at the proof; at the order stands something else, if anything.
async fn why_refused(order: &mut Order, otherwise: Error) -> Error {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if let Ok(state) = authorization.refresh().await
            && let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.clone())
        {
            return Error::Api(problem);
        }
    }
    otherwise
}

/// Room in the file system for a certificate. Whoever has none orders none.
pub(super) struct Room {
    path: PathBuf,
    reservation: Reservation,
}

impl Room {
    pub(super) async fn take(state_dir: &StateDir, name: &str) -> Result<Self, Failure> {
        let (folder, path) = (state_dir.acme(), state_dir.acme_certificate(name));
        let place = path.clone();
        let taking = move || create_folder(&folder).and_then(|()| Reservation::new(&place, ROOM, 0o600));
        let reservation = off_runtime(taking).await.map_err(|error| unwritten(&path, &error))?;
        Ok(Self { path, reservation })
    }

    /// Puts the content into its file, in place of the former one.
    async fn fill(self, content: Zeroizing<Vec<u8>>) -> Result<(), Failure> {
        let Self { path, reservation } = self;
        off_runtime(move || reservation.replace(&content)).await.map_err(|error| unwritten(&path, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "vpn.example.org";
    const DIRECTORY: &str = "https://acme.example/dir";

    #[test]
    fn only_a_certificate_for_the_name_and_the_key_of_the_order_is_taken() {
        let wanted = Wanted { name: NAME, former: None, directory: DIRECTORY };
        let (own, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let check = |name: &str, certified: &KeyPair| {
            let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(certified).unwrap();
            wanted.check(&text(DIRECTORY, &own.serialize_pem(), &certificate.pem()))
        };
        assert!(check(NAME, &own).is_ok(), "the positive control");
        for (refused, of) in [(check("other.example.org", &own), "name"), (check(NAME, &other), "key")] {
            let refused = refused.expect_err(of);
            assert!(refused.what.contains(NAME) && refused.next.contains("acme.directory"), "{of}: {refused}");
        }
        let key = own.serialize_pem();
        for nonsense in ["", "garbage", &"-".repeat(2 * ROOM)] {
            assert!(wanted.check(&text(DIRECTORY, &key, nonsense)).is_err());
        }
    }
}
