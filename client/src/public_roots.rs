//! The certificate authorities that this host trusts.

use rustls::RootCertStore;

/// What they are called in messages, as in "not of …".
pub(crate) const CALLED: &str = "an authority that this host trusts";

/// Reads them.
///
/// # Errors
/// There is none.
pub(crate) fn load() -> Result<RootCertStore, &'static str> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems keep old ones that no library takes any more.
    let (added, _ignored) = roots.add_parsable_certificates(found.certs);
    if added == 0 { Err("this host has no certificate authorities") } else { Ok(roots) }
}
